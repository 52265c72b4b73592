"""``verify`` of states whose files aren't just damaged: missing, something else, damaged twice."""

import os
import shutil
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import apsw
import pytest

from tests.backup.small_store import LARGE, pieces, state
from tests.backup.test_verify import config, found, spoil
from tests.contract.harness import A1, A2, stored_bodies
from wazuh_comms_trio.audit.log import User, audit_log
from wazuh_comms_trio.backends.embedded.ndjson.spool import remove_stale
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backup.create import backup
from wazuh_comms_trio.backup.restore import restore
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

__all__ = ["config"]

pytestmark = pytest.mark.real_clock


def segment_of(config: Config) -> Path:
    (segment,) = (state(config) / "events").glob("*.ndjson")
    return segment


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
async def test_a_segment_that_is_something_else(config: Config, make: Callable[[Path], None]) -> None:
    segment = segment_of(config)
    segment.rename(state(config) / "moved")
    make(segment)
    assert [finding.damage.partition("(")[2] for finding in found(config)] == ["what has its name is no file)"]
    assert found(config, repair=True)[0].repaired
    assert found(config) == []
    assert segment in list(segment.parent.iterdir())


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
async def test_a_list_of_segments_that_is_something_else(
    config: Config, make: Callable[[Path], None], tmp_path: Path
) -> None:
    """It hides no event, and keeps nobody from reading or writing them."""
    ledger = state(config) / "events" / "segments.ledger"
    whole = stored_bodies(state(config))
    ledger.unlink()
    make(ledger)
    assert [text.split(":")[0] for text in backup(config, tmp_path / "one.backup").damaged] == [
        "events/segments.ledger"
    ]
    spoil(segment_of(config), 200)
    places = [finding.place for finding in found(config)]
    assert places == ["events/segments.ledger", f"events/{segment_of(config).name}"]
    async with open_backends(config) as backends, aclosing(pieces(b'{"new":1}\n')) as body:
        await backends.engine.send_events(body, agent_id=A1, length=None)
    assert all(finding.repaired for finding in found(config, repair=True))
    assert found(config) == []
    assert ledger.with_name("segments.ledger.damaged") in list(ledger.parent.iterdir())
    kept = stored_bodies(state(config))
    assert [body for body in whole if body in kept] == kept[:-1]
    assert len(kept) == len(whole)  # one was damaged, one is new
    segment_of_first = min((state(config) / "events").glob("*.ndjson"))
    segment_of_first.unlink()
    assert "missing" in found(config)[0].damage  # it is noted again


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["audit.log", "quarantine/payloads/*"])
async def test_others_that_are_something_else(config: Config, name: str, make: Callable[[Path], None]) -> None:
    """Nobody waits for them."""
    audit_log(state(config)).append(User(0), "agents add", "a")
    (path,) = state(config).glob(name)
    path.unlink()
    make(path)
    (finding,) = found(config)
    assert "can't be read: " in finding.damage


async def test_counters_that_are_missing(config: Config) -> None:
    for counter in ("agents", "age", "age_at", "news", "documents"):
        connection = apsw.Connection(str(state(config) / "state.db"))
        connection.execute("DELETE FROM counters WHERE name = ?", (counter,))
        connection.close()
        (finding,) = found(config, repair=True)
        assert finding.damage.startswith(f"the counter of {counter} is None")
        assert finding.repaired
        assert found(config) == []


async def test_columns_that_are_something_else(config: Config) -> None:
    """A row's header that is damaged makes another type of a value."""
    connection = apsw.Connection(str(state(config) / "quarantine" / "quarantine.db"))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'kind TEXT NOT NULL', 'kind TEXT') WHERE name = 'entries'"
    )
    connection.close()
    connection = apsw.Connection(str(state(config) / "quarantine" / "quarantine.db"))
    connection.execute("UPDATE entries SET kind = NULL WHERE id = 1")
    connection.execute("UPDATE entries SET file = ? WHERE id = 2", ("a\0b",))
    connection.close()
    assert {finding.place for finding in found(config)} >= {"quarantine entry 1", "quarantine entry 2"}
    async with open_quarantine(config) as quarantine:
        with pytest.raises(BackendUnavailable):
            [piece async for piece in quarantine.payload(2)]


async def test_a_segment_that_is_damaged_again(config: Config) -> None:
    """Each repair keeps what it replaces."""
    segment = segment_of(config)
    versions = []
    for position in (10, 20):
        spoil(segment, position)
        versions.append(segment.read_bytes())
        (finding,) = found(config, repair=True)
        assert finding.repaired
        assert found(config) == []
    kept = [segment.with_name(f"{segment.name}.damaged{suffix}").read_bytes() for suffix in ("", "-2")]
    assert kept == versions
    assert len(stored_bodies(state(config))) == 2


async def test_a_daemon_that_starts_while_a_segment_is_saved(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes what killed processes have left."""
    spoil(segment_of(config), 10)

    class Starting(file_writes.FileCalls):
        def link(self, source: str, name: str, folder: int) -> None:
            super().link(source, name, folder)
            remove_stale(state(config) / "events")

    monkeypatch.setattr(file_writes, "calls", Starting())
    assert [finding.repaired for finding in found(config, repair=True)] == [True]
    assert found(config) == []
    assert len(stored_bodies(state(config))) == 3


@pytest.mark.parametrize("name", ["state.db", "quarantine/quarantine.db"])
async def test_a_database_that_is_missing(config: Config, name: str) -> None:
    (state(config) / "events" / ".segments-read").touch()  # as the daemon does
    assert found(config) == []
    (state(config) / name).unlink()
    assert [(finding.place, finding.damage) for finding in found(config)] == [
        (Path(name).name, "the file is missing; restore a backup")
    ]


@pytest.mark.parametrize("name", ["events/segments.ledger", "audit.log"])
async def test_what_cannot_be_read_hides_nothing_else(config: Config, name: str) -> None:
    path = state(config) / name
    path.unlink(missing_ok=True)
    path.mkdir()
    (payload,) = (state(config) / "quarantine" / "payloads").iterdir()
    payload.unlink()
    places = {finding.place for finding in found(config)}
    assert places == {name, "quarantine entry 2"}


async def test_a_length_that_is_not_the_payloads(config: Config) -> None:
    connection = apsw.Connection(str(state(config) / "quarantine" / "quarantine.db"))
    connection.execute("UPDATE entries SET payload_bytes = payload_bytes - 1 WHERE id = 2")
    connection.close()
    assert [finding.place for finding in found(config)] == ["quarantine entry 2"]


@pytest.mark.expects_errors
@pytest.mark.parametrize("size", ["size + 1", "size + (1 << 61)", "-size", "'many'", "1.5"])
async def test_a_size_that_is_not_the_entrys(config: Config, tmp_path: Path, size: str) -> None:
    """What it counts as against the limits: told, in a backup, too, and set right in what that restores."""
    path = state(config) / "quarantine" / "quarantine.db"
    connection = apsw.Connection(str(path))
    right = connection.execute("SELECT sum(size) FROM entries").get
    connection.execute(f"UPDATE entries SET size = {size}")
    connection.close()
    places = ["quarantine entry 1", "quarantine entry 2"]
    assert [finding.place for finding in found(config)] == [*places, "quarantine.db"]
    copy = tmp_path / "one.backup"
    assert [text.split(":")[0] for text in backup(config, copy).damaged] == places
    restore(config, copy, replace=True)
    assert [finding.place for finding in found(config, repair=True)] == places
    assert found(config) == []
    async with open_quarantine(config) as quarantine:
        assert (await quarantine.usage()).bytes == right
        assert await quarantine.drop([entry.id for entry in await quarantine.list()]) == 2
        assert (await quarantine.usage()).bytes == 0
        await quarantine.add([Rejected(A1, "stateful", "why", b"{}", b"{}\nnonsense")])


async def test_what_counts_a_wrong_size_is_never_stopped(config: Config) -> None:
    """Before it is repaired, too: what is dropped takes its size from the sums."""
    path = state(config) / "quarantine" / "quarantine.db"
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE entries SET size = -(1 << 62) + 1 WHERE id = 1")
    connection.execute("UPDATE usage SET bytes = (1 << 62)")
    async with open_quarantine(config) as quarantine:
        assert await quarantine.drop([1]) == 1
        with pytest.raises(StorageFull):
            await quarantine.add([Rejected(A1, "stateful", "why", b"{}", b"new")])
        assert [(finding.place, finding.repaired) for finding in found(config, repair=True)] == [
            ("quarantine.db", True)
        ]
        await quarantine.add([Rejected(A1, "stateful", "why", b"{}", b"new")])
        assert len(await quarantine.list()) == 2
    connection.close()


async def test_a_table_of_sqlites_own_that_is_renamed(config: Config) -> None:
    path = state(config) / "quarantine" / "quarantine.db"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"sqlite_sequence", b"sqlite_sepuence"))
    assert any(finding.place == "quarantine.db" for finding in found(config))


@pytest.mark.expects_errors
async def test_payloads_outlive_their_database(config: Config) -> None:
    """The entries went with the file; what they stood for was acknowledged."""
    folder = state(config) / "quarantine"
    for time in range(2):
        (folder / "quarantine.db").unlink()
        async with open_quarantine(config) as quarantine:
            assert await quarantine.list() == []
            await quarantine.add([Rejected(A2, "stateless", "why", b"", b"%d" % time + LARGE)])
    kept = [file.read_bytes() for aside in folder.glob("payloads.without-entries*") for file in aside.iterdir()]
    assert sorted(kept) == sorted([LARGE, b"0" + LARGE])
    async with open_quarantine(config):
        pass
    assert len(list(folder.glob("payloads.without-entries*"))) == 2


@pytest.mark.expects_errors
async def test_payloads_outlive_a_damaged_log(config: Config) -> None:
    """The rows that name them are in the log, which is kept."""
    folder = state(config) / "quarantine"
    async with open_quarantine(config) as quarantine:
        await quarantine.add([Rejected(A1, "stateless", "why", b"", b"1" + LARGE)])
        shutil.copytree(folder, folder.with_name("killed"))
    shutil.rmtree(folder)
    folder.with_name("killed").rename(folder)
    log = folder / "quarantine.db-wal"
    (folder / "quarantine.db-shm").unlink()
    spoil(log, 40)
    for _ in range(2):
        async with open_quarantine(config) as quarantine:
            assert len(await quarantine.list()) == 2
        assert len(list((folder / "payloads").iterdir())) == 2


async def test_an_audit_log_without_an_entry(config: Config) -> None:
    (state(config) / "audit.log").write_bytes(b"\xff\n\0\n")
    assert [finding.damage for finding in found(config)] == ["no line of it is an entry"]


async def test_only_the_tool_has_run(config: Config) -> None:
    """Where no daemon has run there needn't be a quarantine."""
    shutil.rmtree(state(config))
    async with open_backends(config) as backends:
        assert await backends.agents.get(A1) is None
    assert found(config) == []


@pytest.mark.parametrize(
    ("name", "statement", "places"),
    [
        ("state.db", "UPDATE agents SET name = CAST(x'61ff' AS TEXT) WHERE id = '{A1}'", [f"agent {A1}"]),
        ("state.db", "UPDATE documents SET checksum = CAST(x'61ff' AS TEXT) WHERE id = 'd2'", ["document d2"]),
        ("state.db", "UPDATE documents SET id = CAST(x'61ff' AS TEXT) WHERE id = 'd2'", [r"document a\xff"]),
        ("state.db", "UPDATE counters SET value = CAST(x'61ff' AS TEXT) WHERE name = 'documents'", ["the counter"]),
        ("quarantine/quarantine.db", "UPDATE entries SET reason = CAST(x'61ff' AS TEXT)", []),
        ("quarantine/quarantine.db", "UPDATE entries SET kind = CAST(x'61ff' AS TEXT) WHERE id = 1", ["its 11 bytes"]),
        ("quarantine/quarantine.db", "UPDATE entries SET file = CAST(x'61ff' AS TEXT) WHERE id = 2", ["its payload"]),
        ("quarantine/quarantine.db", "UPDATE entries SET digest = 'x', payload_bytes = 'x' WHERE id = 1", ["its "]),
    ],
)
async def test_text_that_is_none(config: Config, name: str, statement: str, places: list[str]) -> None:
    """Bytes that aren't UTF-8, and values of other types, where SQLite was given text: the row is named, and no other
    is hidden. (Triggers would take the checksum away.)"""
    connection = apsw.Connection(str(state(config) / name))
    for trigger in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger[0]}")
    connection.execute(statement.format(A1=A1))
    connection.close()
    damage = [finding.damage for finding in found(config) if "triggers" not in finding.damage]
    assert len(damage) == len(places)
    assert [each.startswith(place) for each, place in zip(damage, places, strict=True)] == [True] * len(places)
