"""The power goes as soon as a backup or a restore has said that it is done: what it made is there, whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.backup.test_backup import BODY, check, fill, pieces
from tests.contract.harness import A1, A2, INDEX, embedded_config, stored_bodies
from tests.simulation.stores.disk import Disk
from wazuh_comms_trio.backends.factory import StateUnusable, open_backends
from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.backup.create import backup, restore
from wazuh_comms_trio.backup.verify import verify
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = pytest.mark.real_clock

#: What is left of what wasn't synced is chance's.
SEEDS = range(6)
#: Writes and syncs of a restore, and one more.
CALLS = 22


@contextmanager
def power_cut_after(folder: Path, seed: int, call: int = 0) -> Iterator[None]:
    """Of the files in the folder what wasn't synced in the block may be gone behind it. ``call``: the power goes with
    this write or sync of the block, if there are so many."""
    folder.mkdir(exist_ok=True)
    disk = Disk(folder, Random(seed), is_exempt=lambda: False, meets=lambda call: None, on_cut=lambda: None)
    with disk.mounted():
        disk.rest()
        disk.arm(call)
        yield
        disk.cut()
        disk.come_back()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_backup_stays(tmp_path: Path, seed: int) -> None:
    config = embedded_config(tmp_path)
    await fill(config)
    with power_cut_after(tmp_path / "backups", seed):
        backup(config, tmp_path / "backups" / "backup.tar")
    other = embedded_config(tmp_path / "other")
    restore(other, tmp_path / "backups" / "backup.tar")
    await check(other)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_put_back_stays(tmp_path: Path, seed: int) -> None:
    config = embedded_config(tmp_path)
    await fill(config)
    backup(config, tmp_path / "backup.tar")
    with power_cut_after(config.communications_api.embedded.path, seed):
        restore(config, tmp_path / "backup.tar", replace=True)
    assert not list(verify(config))
    await check(config)


async def outcome(config: Config) -> str:
    try:
        async with open_backends(config) as backends, open_quarantine(config):
            return "put back" if await backends.events.get(INDEX, "2") is None else "as before"
    except StateUnusable as exc:
        return exc.message


@pytest.mark.parametrize("call", range(1, CALLS + 1))
@pytest.mark.parametrize("seed", SEEDS)
async def test_in_the_middle_all_is_as_before_or_it_is_to_be_run_again(tmp_path: Path, seed: int, call: int) -> None:
    config = embedded_config(tmp_path)
    await fill(config)
    backup(config, tmp_path / "backup.tar")
    async with open_backends(config) as backends:
        await backends.events.bulk([DocumentOperation("create", INDEX, "2", b"{}")])
        await backends.engine.send_events(pieces(BODY), agent_id=A2, length=None)
    with power_cut_after(config.communications_api.embedded.path, seed, call):
        restore(config, tmp_path / "backup.tar", replace=True)
    became = await outcome(config)
    if became.endswith("run it again"):
        restore(config, tmp_path / "backup.tar", replace=True)
        became = await outcome(config)
    if became == "put back":
        await check(config)
    else:
        assert became == "as before"
        assert stored_bodies(config.communications_api.embedded.path) == [(A1, BODY), (A2, BODY)]
    assert not list(verify(config))
