"""What befalls a database file, and what callers and the log see of it."""

import os
from pathlib import Path

import apsw
import pytest
import trio

from tests.backends.embedded.conftest import NOTES
from tests.backends.embedded.notes import complaints, insert, read, select, write
from tests.contract.harness import until_it_works
from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull

pytestmark = [pytest.mark.real_clock, pytest.mark.expects_errors]


async def refused(database: Database, times: int = 3) -> None:
    for number in range(times):
        with pytest.raises(BackendUnavailable):
            await write(database, f"refused {number}")


async def test_locked_by_another_program(notes: Database, caplog: pytest.LogCaptureFixture) -> None:
    await write(notes, "before")
    other = apsw.Connection(str(notes.path))
    other.execute("BEGIN EXCLUSIVE")
    await refused(notes)
    assert await read(notes) == {"before"}  # reading goes on
    assert await notes.read_now(select) == {"before"}
    assert len(complaints(caplog)) == 1
    assert "locked by another program" in complaints(caplog)[0]
    other.execute("COMMIT")
    await write(notes, "after")
    other.close()


async def test_locked_even_for_reading(notes: Database) -> None:
    """Recovery of the log by another process holds every lock for a moment; here one that doesn't end."""
    await write(notes, "before")
    blocked = 0

    def busy(connection: apsw.Connection) -> set[str]:
        nonlocal blocked
        if not connection.is_async:
            blocked += 1
            raise apsw.BusyError("locked")
        return select(connection)

    assert await notes.read_now(busy) == {"before"}
    assert blocked == 1


async def test_a_full_disk(notes: Database, caplog: pytest.LogCaptureFixture) -> None:
    await write(notes, "before")
    await notes.write(lambda connection: connection.execute("PRAGMA max_page_count = 8").get)
    large = "x" * 100_000
    for _ in range(3):
        with pytest.raises(StorageFull):
            await write(notes, large)
    assert len(complaints(caplog)) == 1
    assert "the disk is full" in complaints(caplog)[0]
    async with trio.open_nursery() as nursery:
        # In one group: the large one finds no room, the small ones do.
        for number in range(5):
            nursery.start_soon(write, notes, f"small {number}")
        with pytest.raises(StorageFull):
            await write(notes, large)
    await notes.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000").get)
    await write(notes, large)
    assert await read(notes) == {"before", large} | {f"small {number}" for number in range(5)}
    assert len(complaints(caplog)) == 1


async def test_taken_away_and_brought_back(notes: Database, caplog: pytest.LogCaptureFixture) -> None:
    await write(notes, "before")
    away = notes.path.with_name("away")
    notes.path.rename(away)
    await refused(notes)
    with pytest.raises(BackendUnavailable):
        await read(notes)
    assert not notes.path.exists()  # an empty one would tell every agent that it doesn't exist
    away.rename(notes.path)
    await until_it_works(lambda: write(notes, "after"))
    assert await read(notes) == {"before", "after"}
    assert len(complaints(caplog)) == 1
    assert "gone" in complaints(caplog)[0]


@pytest.mark.parametrize("garbage", [b"garbage " * 5000, b"", b"SQLite format 3\0" + b"\xff" * 50_000])
async def test_overwritten_in_place_and_restored(
    notes: Database, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(200):
        await write(notes, f"{number} " * 20)
    everything = await read(notes)
    saved = notes.path.read_bytes()
    notes.path.write_bytes(garbage)
    await refused(notes)
    assert notes.path.read_bytes() == garbage
    notes.path.write_bytes(saved)
    await until_it_works(lambda: write(notes, "after"))
    assert await read(notes) == everything | {"after"}
    assert len(complaints(caplog)) == 1


async def test_replaced_by_another_copy(notes: Database, caplog: pytest.LogCaptureFixture) -> None:
    await write(notes, "before")
    copy = notes.path.with_name("copy")

    def make_copy() -> None:
        source, target = apsw.Connection(str(notes.path)), apsw.Connection(str(copy))
        with target.backup("main", source, "main") as backup:
            backup.step()
        target.execute("PRAGMA journal_mode = DELETE").get  # noqa: B018
        target.close()
        source.close()

    await trio.to_thread.run_sync(make_copy)
    for number in range(100):
        await write(notes, f"only in the old one {number}")
    os.replace(copy, notes.path)
    await refused(notes, 1)
    await until_it_works(lambda: write(notes, "after"))
    assert await read(notes) == {"before", "after"}
    assert "replaced" in complaints(caplog)[0]
    assert notes.path.with_name("notes.db-wal.replaced").exists()
    check = apsw.Connection(str(notes.path))
    assert check.execute("PRAGMA integrity_check").get == "ok"
    check.close()


async def test_the_log_file_is_deleted(notes: Database) -> None:
    await write(notes, "before")
    notes.path.with_name("notes.db-wal").unlink()
    await refused(notes, 1)
    await until_it_works(lambda: write(notes, "after"))
    assert await read(notes) == {"before", "after"}


async def test_not_writable_for_a_while(notes: Database, caplog: pytest.LogCaptureFixture) -> None:
    await write(notes, "before")
    await notes.read(lambda connection: None)
    writer = notes._connections.writer
    assert writer is not None
    await writer.execute("PRAGMA query_only = ON")
    await refused(notes, 1)
    await until_it_works(lambda: write(notes, "after"))
    assert await read(notes) == {"before", "after"}
    assert ["can't be written to" in line for line in complaints(caplog)] == [True]


async def test_damage_inside_is_found(tmp_path: Path, short_waits: None, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "notes.db"
    async with open_database(path, NOTES) as database:
        for number in range(500):
            await write(database, f"{number} " * 50)
    whole = path.read_bytes()
    path.write_bytes(whole[:32768] + b"\x5a" * (len(whole) - 32768))
    async with open_database(path, NOTES) as database:
        with pytest.raises(BackendUnavailable):
            await read(database)
        assert len(complaints(caplog)) == 1
        assert "damaged" in complaints(caplog)[0]
        path.write_bytes(whole)
        await until_it_works(lambda: read(database))
        assert len(await read(database)) == 500


@pytest.mark.parametrize("content", [b"this is not a database at all, it is a text file" * 100, b"\0" * 5000])
async def test_a_damaged_file_is_not_opened(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(content)
    with pytest.raises(StateUnusable, match=r"notes\.db: the database is damaged"):
        async with open_database(path, NOTES):
            pass
    assert path.read_bytes() == content


async def test_a_damaged_file_that_is_taken_away_is_not_made_anew(
    tmp_path: Path, short_waits: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Agents would be told that they don't exist, and end themselves."""
    path = tmp_path / "notes.db"
    async with open_database(path, NOTES) as database:
        await write(database, "before")
    whole = path.read_bytes()
    path.write_bytes(b"nonsense" * 1000)
    async with open_database(path, NOTES, tolerant=True) as database:
        path.unlink()
        with trio.fail_after(5):
            while not any("gone" in line for line in complaints(caplog)):  # noqa: ASYNC110  # a log has no event
                await trio.sleep(0.01)
        await refused(database)
        assert not path.exists()
        path.write_bytes(whole)
        await until_it_works(lambda: read(database))
        assert await read(database) == {"before"}


async def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(StateUnusable, match="belongs to another program"):
        async with open_database(path, NOTES):
            pass


async def test_a_newer_version_is_used_if_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    more = [*NOTES.migrations, Migration("ALTER TABLE notes ADD COLUMN colour TEXT", usable_since=1)]
    async with open_database(path, Schema("notes.db", NOTES.application_id, more)) as database:
        await database.write(lambda connection: connection.execute("INSERT INTO notes VALUES ('x', 'red')").get)
    async with open_database(path, NOTES) as database:  # the version before, on the same file
        await database.write(lambda connection: connection.execute("INSERT INTO notes (text) VALUES ('y')").get)
        assert await read(database) == {"x", "y"}
    breaking = [*more, Migration("ALTER TABLE notes RENAME COLUMN text TO words", usable_since=3)]
    async with open_database(path, Schema("notes.db", NOTES.application_id, breaking)):
        pass
    with pytest.raises(StateUnusable, match="newer version"):
        async with open_database(path, NOTES):
            pass


async def test_a_migration_happens_once_among_many(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    opened = 0

    async def one(number: int) -> None:
        nonlocal opened
        async with open_database(path, NOTES) as database:
            await write(database, str(number))
            opened += 1

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, number)
    assert opened == 8
    async with open_database(path, NOTES) as database:
        assert len(await read(database)) == 8


async def test_modes(tmp_path: Path) -> None:
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        await database.write(lambda connection: insert(connection, "x"))
        for entry in os.scandir(tmp_path):
            assert entry.stat().st_mode & 0o077 == 0, entry.name
