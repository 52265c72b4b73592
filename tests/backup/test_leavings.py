"""What killed processes leave under the first names of files is removed by whoever comes next; what isn't ours, and
what a process that lives is writing, stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backup.small_store import make_store, state
from tests.backup.test_missing_parts import daemon
from tests.contract.harness import embedded_config
from wazuh_comms_trio.backends.embedded.state_lock import hold_state
from wazuh_comms_trio.backup.create import BackupError, backup, restore
from wazuh_comms_trio.backup.leavings import remove_left_scratch
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory
from wazuh_comms_trio.daemon.restore_wait import wait_for_restore
from wazuh_comms_trio.foundation.folders import draft
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, VerifiedKeys

pytestmark = pytest.mark.real_clock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


async def start_daemon(config: Config) -> None:
    async with daemon(config):
        pass


@pytest.mark.parametrize(
    "name",
    [
        "events/.events-id-0123abcd",
        "events/.spool-1-0123456789abcdef-0123",
        "events/.00000000000001-1-000001-0123abcd.ndjson.saving",
    ],
)
async def test_of_events(tmp_path: Path, name: str) -> None:
    config = await make_store(tmp_path)
    left = state(config) / name
    left.write_bytes(b"half")
    with locked(left):
        await start_daemon(config)
    assert left.exists()
    await start_daemon(config)
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "start"),
    [
        (".proven-keys-1-0123abcd", lambda folder: VerifiedKeys(folder / FILE_NAME, b"secret")),
        (".token-keys.json-1", lambda folder: KeyMemory(folder).note_signing("key")),
    ],
    ids=["proven-keys", "token-keys"],
)
def test_of_keys(tmp_path: Path, name: str, start: Callable[[Path], object]) -> None:
    left = tmp_path / name
    left.write_bytes(b"half")
    with locked(left):
        start(tmp_path)
    assert left.exists()
    start(tmp_path)
    assert not left.exists()


async def test_of_a_backup(tmp_path: Path) -> None:
    config = await make_store(tmp_path)
    target = tmp_path / "backups"
    target.mkdir()
    (target / ".one.backup.0123abcd").write_bytes(b"half")
    (target / ".backup-abcd_123").mkdir()
    (target / ".backup-abcd_123" / "state.db").write_bytes(b"half")
    (target / ".backup-somebody").mkdir()
    (target / ".backup-somebody" / "else").touch()
    (target / ".another.backup.0123abcd").touch()
    with locked(target / ".backup-abcd_123"), locked(target / ".one.backup.0123abcd"):
        backup(config, target / "one.backup")
    stays = {"one.backup", ".backup-somebody", ".another.backup.0123abcd"}
    assert set(os.listdir(target)) == stays | {".one.backup.0123abcd", ".backup-abcd_123"}
    backup(config, target / "one.backup")
    assert set(os.listdir(target)) == stays


async def test_another_backup_that_takes_a_new_folder_for_a_killed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = await make_store(tmp_path)
    (tmp_path / "backups").mkdir()
    make, made = Path.mkdir, []

    def mkdir(self: Path, mode: int = 0o777) -> None:
        make(self, mode)
        made.append(self)
        if len(made) == 1:
            remove_left_scratch(self.parent)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    backup(config, tmp_path / "backups" / "one.backup")
    assert len(made) == 2
    assert os.listdir(tmp_path / "backups") == ["one.backup"]


def test_of_a_restore(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    staging = state(config) / ".restore-0123456789abcdef"
    staging.mkdir(parents=True)
    (staging / "state.db").write_bytes(b"half")
    kept = state(config) / ".replaced-20261130T120000Z.backup.0123abcd"
    kept.write_bytes(b"half")
    foreign = state(config) / ".restore-me"
    foreign.mkdir()
    wait_for_restore(config)
    assert not staging.exists()
    assert not kept.exists()
    assert foreign.exists()
    staging.mkdir()
    (state(config) / "restore-under-way").touch()
    wait_for_restore(config)
    assert staging.exists()  # the next restore's


def test_one_that_is_being_restored_is_left_alone(tmp_path: Path) -> None:
    from wazuh_comms_trio.backup.leavings import remove_leavings

    staging = state(embedded_config(tmp_path)) / ".restore-0123456789abcdef"
    staging.mkdir(parents=True)
    with hold_state(staging.parent, alone=True):
        remove_leavings(staging.parent)
    assert staging.exists()


def test_a_process_that_is_killed_leaves_one_and_the_lock_is_gone(tmp_path: Path) -> None:
    """As the kernel does it, which removes no file."""
    code = (
        "import os, signal, sys; from pathlib import Path; from wazuh_comms_trio.foundation.folders import open_draft;"
        "open_draft(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    left = tmp_path / ".proven-keys-1-0123abcd"
    assert subprocess.run([sys.executable, "-c", code, str(left)], check=False).returncode == -9
    assert left.exists()
    VerifiedKeys(tmp_path / FILE_NAME, b"secret")
    assert not left.exists()


def test_a_draft_that_got_no_name_goes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), draft(tmp_path / "draft"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


async def test_a_restore_that_fails_leaves_nothing(tmp_path: Path) -> None:
    config = await make_store(tmp_path)
    backup(config, tmp_path / "one.backup")
    os.truncate(tmp_path / "one.backup", 5000)
    (state(config) / ".restore-me").mkdir()  # somebody's
    before = sorted(os.listdir(state(config)))
    (state(config) / ".restore-0123456789abcdef").mkdir()
    with pytest.raises(BackupError):
        restore(config, tmp_path / "one.backup", replace=True)
    assert sorted(os.listdir(state(config))) == before
