"""What is gone as a whole, with the lists of what was in it."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import apsw
import attrs
import pytest
import trio

from tests.backup.small_store import make_store, pieces, state
from tests.backup.test_verify import found
from tests.contract.harness import A1
from wazuh_comms_trio.backends.embedded.database.file_watch import MadeMark
from wazuh_comms_trio.backends.embedded.ndjson import folder_id
from wazuh_comms_trio.backends.embedded.ndjson.folder_id import noted_id, read_id
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.backup.create import backup
from wazuh_comms_trio.backup.format import STATE_DB
from wazuh_comms_trio.backup.restore import restore
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.opening import made_marks, open_quarantine

pytestmark = pytest.mark.real_clock


def known(config: Config) -> int | None:
    connection = apsw.Connection(str(state(config) / "state.db"))
    try:
        connection.set_busy_timeout(5000)
        return noted_id(connection)
    finally:
        connection.close()


@asynccontextmanager
async def daemon(config: Config) -> AsyncIterator[Backends]:
    """Its stores, once it has looked whose folder it has."""
    async with open_backends(config, tolerant=True) as backends, open_quarantine(config, tolerant=True):
        with trio.fail_after(60):
            while known(config) is None or read_id(events_of(config)) != abs(known(config) or 0):  # noqa: ASYNC110
                await trio.sleep(0.01)
        yield backends


def events_of(config: Config) -> Path:
    return state(config) / "events"


async def send_event(backends: Backends) -> None:
    async with aclosing(pieces(b'{"n":1}\n')) as body:
        await backends.engine.send_events(body, agent_id=A1, length=None)


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    """Of a state on which daemons have run."""
    made = await make_store(tmp_path)
    assert found(made) == []  # nothing is known of the folder of an earlier version
    for _ in range(2):
        async with daemon(made):
            pass
    assert found(made) == []
    return made


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_the_folder_of_events(config: Config, tmp_path: Path) -> None:
    shutil.rmtree(events_of(config))
    for _ in range(2):
        (finding,) = found(config)
        assert (finding.place, finding.repaired) == ("events", False)
        assert "is gone" in finding.damage
        assert [text.split(":")[0] for text in backup(config, tmp_path / "one.backup").damaged] == ["events"]
        async with open_backends(config):  # as the tool does, which makes a new one
            pass
    assert found(config, repair=True)[0].repaired
    assert found(config) == []


@pytest.mark.expects_errors
async def test_a_daemon_tells_once_and_goes_on(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(events_of(config))
    for _ in range(2):
        async with daemon(config) as backends:
            await send_event(backends)
            assert known(config) != read_id(events_of(config))
    assert [text.partition(": the")[0] for text in errors(caplog)] == [f"events: {events_of(config)}"]
    assert [finding.place for finding in found(config)] == ["events"]
    found(config, repair=True)
    async with daemon(config):
        assert found(config) == []
    assert len(errors(caplog)) == 1


@pytest.mark.expects_errors
async def test_a_daemon_that_runs_notices(
    config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_id, "_INTERVAL", 0.01)
    async with daemon(config) as backends:
        shutil.rmtree(events_of(config))
        await send_event(backends)
        with trio.fail_after(60):
            while not errors(caplog):  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert [finding.place for finding in found(config)] == ["events"]


@pytest.mark.expects_errors
async def test_a_loss_is_noted_before_the_folder_is_marked(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """Here it can't be; a daemon that is killed between the two leaves the same."""
    shutil.rmtree(events_of(config))
    (events_of(config) / folder_id.FILE).mkdir(parents=True)
    async with open_backends(config, tolerant=True):
        with trio.fail_after(60):
            while "can't be marked" not in caplog.text:  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert len(errors(caplog)) == 1
    (events_of(config) / folder_id.FILE).rmdir()
    assert [finding.place for finding in found(config)] == ["events"]


async def test_of_many_processes_one_marks_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = await make_store(tmp_path)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            async with daemon(config):
                pass

        for _ in range(5):
            nursery.start_soon(run)
    assert found(config) == []
    assert errors(caplog) == []


@pytest.mark.parametrize("segments", [True, False])
async def test_what_is_restored_is_another_folder(config: Config, tmp_path: Path, segments: bool) -> None:
    if not segments:
        for path in events_of(config).glob("*.ndjson"):
            path.unlink()
        found(config, repair=True)
    backup(config, tmp_path / "one.backup")
    restore(config, tmp_path / "one.backup", replace=True)
    assert found(config) == []
    async with daemon(config):
        assert found(config) == []


async def test_a_backup_knows_no_folder(config: Config, tmp_path: Path) -> None:
    """An earlier version restores it as it is, and makes a folder without a mark."""
    assert known(config) is not None
    assert backup(config, tmp_path / "one.backup").damaged == ()
    with tarfile.open(tmp_path / "one.backup") as archive:
        archive.extract(STATE_DB, tmp_path / "unpacked")
    connection = apsw.Connection(str(tmp_path / "unpacked" / STATE_DB))
    assert noted_id(connection) is None
    connection.close()


async def test_databases_that_went_with_it(config: Config) -> None:
    shutil.rmtree(events_of(config))
    (state(config) / "quarantine" / "quarantine.db").unlink()
    assert {finding.place for finding in found(config)} == {"events", "quarantine.db"}
    shutil.rmtree(state(config) / "quarantine")
    assert {finding.place for finding in found(config)} == {"events", "quarantine.db"}
    (state(config) / "state.db").unlink()
    assert {finding.place for finding in found(config)} == {"state.db", "quarantine.db"}


async def test_the_quarantines_payloads(config: Config, tmp_path: Path) -> None:
    shutil.rmtree(state(config) / "quarantine" / "payloads")
    (finding,) = found(config)
    assert finding.place == "quarantine entry 2"
    assert "is missing" in finding.damage
    assert [text.split(":")[0] for text in backup(config, tmp_path / "one.backup").damaged] == ["quarantine entry 2"]


async def test_a_mark_that_is_something_else(config: Config) -> None:
    mark = events_of(config) / folder_id.FILE
    for make in (lambda: mark.write_bytes(b"?"), mark.mkdir, lambda: mark.symlink_to("/etc/passwd")):
        mark.unlink()
        make()
        assert [finding.place for finding in found(config)] == ["events"]
        if mark.is_dir():
            mark.rmdir()
            mark.write_bytes(b"")
        found(config, repair=True)
        assert found(config) == []


async def test_a_restored_segment_is_known_to_its_last_record(config: Config, tmp_path: Path) -> None:
    async with open_backends(config) as backends:
        for _ in range(3):
            await send_event(backends)
    backup(config, tmp_path / "one.backup")
    restore(config, tmp_path / "one.backup", replace=True)
    assert found(config) == []
    segment = max(events_of(config).glob("*.ndjson"))
    whole = segment.read_bytes()
    for damaged in (whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], whole[:-1], b""):
        segment.write_bytes(damaged)
        (finding,) = found(config)
        assert segment.name in finding.place, finding
    segment.write_bytes(whole + b"cut off by a cra")
    assert found(config) == []


# --- a database that is gone as a whole, and made anew by the next start


def on_an_indexer(config: Config) -> Config:
    return attrs.evolve(config, communications_api=attrs.evolve(config.communications_api, backend="wazuh"))


async def open_both(config: Config) -> None:
    async with open_quarantine(config, tolerant=True):
        if config.communications_api.backend == "embedded":
            async with open_backends(config, tolerant=True):
                pass


@pytest.mark.expects_errors
@pytest.mark.parametrize(
    ("name", "indexer"), [("quarantine.db", True), ("quarantine.db", False), ("state.db", False)], ids=str
)
async def test_a_database_that_was_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, indexer: bool
) -> None:
    config = await make_store(tmp_path)
    config = on_an_indexer(config) if indexer else config
    assert found(config) == []
    if name == "quarantine.db":
        shutil.rmtree(state(config) / "quarantine")
    else:
        (state(config) / name).unlink()
    assert [finding.damage for finding in found(config)] == ["the file is missing; restore a backup"]
    for _ in range(2):
        await open_both(config)
        (text,) = errors(caplog)
        assert text.endswith(f"{name} is gone, with all that was in it: a new one is made")
        (finding,) = found(config)
        assert (finding.place, finding.repaired) == (name, False)
        assert made_marks(config)[name].loss() == finding.damage
        assert any(told.startswith(f"{name}: the one that was") for told in backup(config, tmp_path / "a").damaged)
    assert found(config, repair=True)[0].repaired
    await open_both(config)
    assert found(config) == []
    assert len(errors(caplog)) == 1


@pytest.mark.expects_errors
async def test_a_restore_makes_up_for_it(tmp_path: Path) -> None:
    config = await make_store(tmp_path)
    backup(config, tmp_path / "one.backup")
    shutil.rmtree(state(config) / "quarantine")
    await open_both(config)
    restore(config, tmp_path / "one.backup", replace=True)
    await open_both(config)
    assert found(config) == []


async def test_a_quarantine_that_is_kept_elsewhere_from_now_on(tmp_path: Path) -> None:
    config = await make_store(tmp_path)
    api = config.communications_api
    moved = attrs.evolve(api, quarantine=attrs.evolve(api.quarantine, path=tmp_path / "elsewhere"))
    await open_both(attrs.evolve(config, communications_api=moved))
    assert found(attrs.evolve(config, communications_api=moved)) == []


def test_where_nothing_can_be_noted_nothing_is_missed(tmp_path: Path) -> None:
    mark = MadeMark(tmp_path / ("a" * 300), tmp_path / "state.db")  # no folder can have that name
    mark.check()
    mark.note()
    assert mark.loss() is None


@pytest.mark.parametrize("text", ["", "[]", "\0", '{"database":"DB","gone":[]}', '{"x":' + "[" * 8000])
def test_a_note_that_is_damaged_is_none(tmp_path: Path, text: str) -> None:
    mark = MadeMark(tmp_path, tmp_path / "state.db")
    mark.path.write_text(text.replace("DB", str(mark.database)))
    mark.check()
    assert mark.loss() is None
    mark.note()
    assert mark.loss() == "the file is missing"
