"""The quarantine on disk: other processes, what kills leave, full disks."""

import errno
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from attrs import evolve

from tests.backends.embedded.notes import complaints
from tests.backends.embedded.small_disk import fill, small_disk
from tests.contract.harness import A1, A2, until_it_works
from wazuh_comms_trio.backends.embedded.database.database import open_database
from wazuh_comms_trio.errors import DocumentUnreadable, StorageFull
from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.quarantine import store
from wazuh_comms_trio.quarantine.interface import Rejected, Remaining
from wazuh_comms_trio.quarantine.schema import QUARANTINE
from wazuh_comms_trio.quarantine.store import StoredQuarantine, open_quarantine_store

pytestmark = pytest.mark.real_clock

MIB = 1024 * 1024
LARGE = b"x" * MIB


def store_in(folder: Path, *, max_bytes: int = 100 * MIB) -> AbstractAsyncContextManager[StoredQuarantine]:
    return open_quarantine_store(folder, max_bytes=max_bytes)


@pytest.fixture
async def quarantine(tmp_path: Path) -> AsyncIterator[StoredQuarantine]:
    async with store_in(tmp_path) as opened:
        yield opened


def rejected(payload: bytes = b"small", agent_id: str = A1) -> Rejected:
    return Rejected(agent_id, "stateless", "why", b"", payload)


def files_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "payloads")) if (folder / "payloads").exists() else []


async def test_it_survives_closing(tmp_path: Path) -> None:
    async with store_in(tmp_path) as quarantine:
        await quarantine.add([rejected(), rejected(LARGE)])
    async with store_in(tmp_path) as quarantine:
        found = [await quarantine.get(entry.id) for entry in await quarantine.list()]
    assert [item[1] for item in found if item is not None] == [rejected(), rejected(LARGE)]


async def test_two_processes_share_one(quarantine: StoredQuarantine, tmp_path: Path) -> None:
    async with store_in(tmp_path) as other:
        await quarantine.add([rejected(b"1")])
        await other.add([rejected(b"2"), rejected(LARGE)])
        await other.add([rejected(b"1")])
        assert [entry.count for entry in await quarantine.list()] == [2, 1, 1]
        entries = await quarantine.list()
        assert await other.drop([entries[2].id]) == 1
        assert await quarantine.get(entries[2].id) is None
        assert [piece async for piece in quarantine.payload(entries[2].id)] == []
        assert (await quarantine.usage()).entries == 2
    assert files_in(tmp_path) == []


async def test_equal_large_ones_at_once_leave_one_file(quarantine: StoredQuarantine, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(quarantine.add, [rejected(LARGE)])
    (entry,) = await quarantine.list()
    assert entry.count == 5
    assert len(files_in(tmp_path)) == 1


async def test_what_is_refused_leaves_no_file(tmp_path: Path) -> None:
    async with store_in(tmp_path, max_bytes=30 * MIB) as quarantine:
        with pytest.raises(StorageFull):
            await quarantine.add([rejected(LARGE), rejected(LARGE + b"1"), rejected(LARGE * 2)])
        assert files_in(tmp_path) == []
        assert (await quarantine.usage()).entries == 0


async def test_files_without_an_entry_are_removed_when_it_is_opened(tmp_path: Path) -> None:
    async with store_in(tmp_path) as quarantine:
        await quarantine.add([rejected(LARGE)])
    kept = files_in(tmp_path)
    (tmp_path / "payloads" / ("0" * 32)).write_bytes(b"a killed process left this")
    with (tmp_path / "payloads" / ("1" * 32)).open("wb") as being_written:
        fcntl.flock(being_written, fcntl.LOCK_EX)
        async with store_in(tmp_path) as quarantine:
            assert files_in(tmp_path) == sorted([*kept, "1" * 32])
            (entry,) = await quarantine.list()
            assert await quarantine.get(entry.id) is not None


async def test_a_full_share_and_a_full_quarantine_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agents = [f"agent {number}" for number in range(12)]
    async with store_in(tmp_path, max_bytes=10 * MIB) as quarantine:
        for payload in (LARGE[:900_000], LARGE[:-100]):  # the second finds the share full
            for _ in range(2):
                for agent in agents[:2]:
                    with suppress(StorageFull):
                        await quarantine.add([rejected(payload, agent)])
        assert [agent in line for agent, line in zip(agents, complaints(caplog), strict=False)] == [True, True]
        assert f"share of {MIB} bytes" in complaints(caplog)[0]
        caplog.clear()
        for agent in agents[2:]:
            for _ in range(2):
                with suppress(StorageFull):
                    await quarantine.add([rejected(LARGE[:1_000_000], agent)])
        with pytest.raises(StorageFull):
            await quarantine.add([rejected(LARGE[:900_001], agents[-1])])
        (line,) = complaints(caplog)
        assert f"its {10 * MIB} bytes are full" in line


@pytest.mark.expects_errors
async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        async with store_in(disk) as quarantine:
            await quarantine.add([rejected(b"before"), rejected(LARGE)])
            ballast = fill(disk)
            for payload in (LARGE + b"1", LARGE + b"2"):
                with pytest.raises(StorageFull):
                    await quarantine.add([rejected(payload)])
            assert len(files_in(disk)) == 1
            assert len(complaints(caplog)) == 1
            ballast.unlink()
            await until_it_works(lambda: quarantine.add([rejected(LARGE + b"1"), rejected(b"after")]))
            assert (await quarantine.usage()).entries == 4


@pytest.mark.expects_errors
async def test_a_missing_payload_is_an_error_of_its_own(quarantine: StoredQuarantine, tmp_path: Path) -> None:
    await quarantine.add([rejected(b"small", A2), rejected(LARGE)])
    (name,) = files_in(tmp_path)
    (tmp_path / "payloads" / name).unlink()
    small, large = await quarantine.list()
    assert await quarantine.get(small.id) is not None
    with pytest.raises(DocumentUnreadable, match=f"entries/{large.id} can't be read: its payload: No such file"):
        await quarantine.get(large.id)
    assert await quarantine.drop([large.id]) == 1


async def test_a_cancelled_add_is_whole_or_not_there(quarantine: StoredQuarantine, tmp_path: Path) -> None:
    """Cancelled at every turn; what is there can be read."""
    for turns in range(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quarantine.add, [rejected(b"%d" % turns * 300_000)])
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    await quarantine.add([rejected(LARGE)])
    entries = await quarantine.list()
    for entry in entries:
        found = await quarantine.get(entry.id)
        assert found is not None
        assert len(found[1].payload) == entry.payload_bytes
    await quarantine.remove_unreferenced()
    assert len(files_in(tmp_path)) == sum(entry.payload_bytes > 256 * 1024 for entry in entries)


async def test_memory_stays_small_with_a_large_file(quarantine: StoredQuarantine, tmp_path: Path) -> None:
    """A hundred MiB pass through in pieces."""
    size = 9 * MIB
    path = tmp_path / "spool"
    path.write_bytes(os.urandom(size))
    with path.open("rb") as file:
        await quarantine.add_file(rejected(b""), file, size)
    (entry,) = await quarantine.list()
    assert entry.payload_bytes == size
    with path.open("rb") as file:
        async for piece in quarantine.payload(entry.id):
            assert len(piece) <= MIB
            assert piece == file.read(len(piece))
        assert file.read() == b""


async def test_two_versions_of_the_program_on_one_file(tmp_path: Path) -> None:
    """The one before knows nothing of documents; its entries are ones of which nothing is known."""
    folder = tmp_path / "quarantine"
    folder.mkdir()
    before = evolve(QUARANTINE, migrations=QUARANTINE.migrations[:1])
    insert = (
        "INSERT INTO entries (agent_id, kind, reason, size, payload_bytes, first_at, last_at, digest, metadata,"
        " payload, file) VALUES (?, 'stateful', 'r', ?, 1, 1.0, 1.0, ?, x'', x'00', NULL)"
    )
    async with open_database(folder / "quarantine.db", before) as database:
        await database.write(lambda connection: connection.execute(insert, ("a", 600, b"1")).get)
        async with open_quarantine_store(folder, max_bytes=10**6) as quarantine:
            await quarantine.add([Rejected("a", "stateful", "r", b"", b"new", "i/1", "absent")])
            await database.write(lambda connection: connection.execute(insert, ("a", 700, b"2")).get)
            entries = await quarantine.list()
            assert [(entry.document, entry.version) for entry in entries] == [("", ""), ("i/1", "absent"), ("", "")]
            assert (await quarantine.usage()).bytes == sum(entry.size for entry in entries)
            await quarantine.mark_overtaken([entries[1].id])
            # What the version before deletes and counts is right for both.
            delete = "DELETE FROM entries WHERE id = ?"
            for entry in entries[:2]:
                await database.write(lambda connection, no=entry.id: connection.execute(delete, (no,)).get)
            assert (await quarantine.usage()).bytes == 700
            own = "SELECT entries, bytes FROM usage WHERE agent_id = 'a'"
            assert await database.read(lambda connection: connection.execute(own).fetchall()) == [(1, 700)]
    # And it opens what the later one has left.
    async with open_database(folder / "quarantine.db", before) as database:
        count = "SELECT count(*) FROM entries"
        assert await database.read(lambda connection: connection.execute(count).get) == 1


BAD_ENTRIES = {"no text": ("reason", "CAST(x'ff' AS TEXT)"), "another type": ("first_at", "'yesterday'")}


@pytest.mark.parametrize("kind", BAD_ENTRIES)
async def test_an_entry_that_cannot_be_read(
    quarantine: StoredQuarantine, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    await quarantine.add([rejected(b"1"), rejected(b"2"), rejected(b"3")])
    first, bad, last = await quarantine.list()
    connection = apsw.Connection(str(tmp_path / "quarantine.db"))
    column, value = BAD_ENTRIES[kind]
    connection.execute(f"UPDATE entries SET {column} = {value} WHERE id = {bad.id}")
    connection.close()
    assert await quarantine.list() == [first, last]
    with pytest.raises(DocumentUnreadable, match=f"quarantine.db: entries/{bad.id} can't be read"):
        await quarantine.get(bad.id)
    assert len(complaints(caplog)) == 1
    assert await quarantine.drop([bad.id]) == 1
    assert await quarantine.get(bad.id) is None


async def test_a_page_of_nothing_but_unreadable_entries_is_no_end(
    quarantine: StoredQuarantine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await quarantine.add([rejected(b"%d" % number) for number in range(9)])
    entries = await quarantine.list()
    connection = apsw.Connection(str(tmp_path / "quarantine.db"))
    for entry, value in zip(entries[1:7], ["CAST(x'ff' AS TEXT)", "x'00'"] * 3, strict=True):
        connection.execute(f"UPDATE entries SET reason = {value} WHERE id = {entry.id}")
    connection.close()
    for limit in (1, 2, 3, 5):
        found, after = list[int](), 0
        while page := await quarantine.list(after=after, limit=limit):
            assert len(page) <= limit
            found += [entry.id for entry in page]
            after = page[-1].id
        assert found == [entries[0].id, entries[7].id, entries[8].id]
    assert len(complaints(caplog)) == 6


async def test_entries_of_the_version_before_are_older(tmp_path: Path) -> None:
    """It notes no order of arrival; among its own the time tells."""
    folder = tmp_path / "quarantine"
    folder.mkdir()
    before = evolve(QUARANTINE, migrations=QUARANTINE.migrations[:2])
    insert = (
        "INSERT INTO entries (agent_id, kind, reason, size, payload_bytes, first_at, last_at, digest, metadata,"
        " payload, document) VALUES ('a', 'stateful', 'r', 600, 1, 1.0, ?, ?, x'', x'00', ?)"
    )
    async with open_database(folder / "quarantine.db", before) as database:
        for row in ((5.0, b"1", None), (6.0, b"2", "i/1"), (4.0, b"3", "i/2")):
            await database.write(lambda connection, row=row: connection.execute(insert, row).get)
        async with open_quarantine_store(folder, max_bytes=10**6, wall_clock=lambda: 2.0) as quarantine:
            await quarantine.add([Rejected("a", "stateful", "r", b"", b"new", "i/3")])
            many = (await quarantine.list())[0]
            late = [Rejected("a", "stateful", "r", b"", b"late", f"i/{number}") for number in (1, 2, 3)]
            await quarantine.replace(many.id, [Remaining(one, "still") for one in late])
            payloads = {e.document: await quarantine.get(e.id) for e in await quarantine.list()}
            kept = {document: found[1].payload for document, found in payloads.items() if found is not None}
            assert kept == {"i/1": b"\0", "i/2": b"late", "i/3": b"new"}
            # The version before counts an arrival, too: the trigger is the file's.
            arrivals = "SELECT arrival FROM entries WHERE document IN ('i/1', 'i/3') ORDER BY document"
            again = "UPDATE entries SET count = count + 1 WHERE document = 'i/1'"
            await database.write(lambda connection: connection.execute(again).get)
            assert await database.read(lambda connection: connection.execute(arrivals).fetchall()) == [(2,), (1,)]


async def test_a_damaged_sum_stops_nobody(quarantine: StoredQuarantine, tmp_path: Path) -> None:
    await quarantine.add([rejected(b"1")])
    connection = apsw.Connection(str(tmp_path / "quarantine.db"))
    for value in ("1.5", "'many'", "x'00'"):
        connection.execute(f"UPDATE usage SET bytes = {value}")
        await quarantine.add([rejected(value.encode())])
    connection.close()
    assert len(await quarantine.list()) == 4


@pytest.mark.parametrize("name", [b"\xff" + b"0" * 31, b"\0" + b"0" * 31, b"../quarantine.db", b""])
async def test_a_damaged_name_costs_its_payload_and_leads_nowhere(
    quarantine: StoredQuarantine, tmp_path: Path, name: bytes
) -> None:
    """Its entry is replaced and dropped as any other is, beside sound ones."""
    entries = [evolve(rejected(LARGE + b"%d" % number), document=f"d{number}") for number in range(4)]
    await quarantine.add(entries)
    for number in (1, 2, 3):  # one after the other: names differ
        connection = apsw.Connection(str(tmp_path / "quarantine.db"))
        connection.set_busy_timeout(5000)
        connection.execute("UPDATE entries SET file = CAST(? AS TEXT) WHERE id = ?", (name, number))
        connection.close()
        with pytest.raises(DocumentUnreadable, match="its payload's name is damaged"):
            await quarantine.get(number)
        if number == 1:
            await quarantine.add([evolve(rejected(b"newer"), document="d0")])
        elif number == 2:
            await quarantine.replace(2, [Remaining(evolve(rejected(b"left"), document="d1"), "why")])
        else:
            assert await quarantine.drop([3, 4]) == 2
    found = [await quarantine.get(entry.id) for entry in await quarantine.list()]
    assert sorted(item[1].payload for item in found if item is not None) == [b"left", b"newer"]
    assert (tmp_path / "quarantine.db").exists()
    await quarantine.remove_unreferenced()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", [b"\xff" + b"0" * 31, b"0" * 32])
async def test_a_payload_whose_name_is_damaged_stays(tmp_path: Path, name: bytes) -> None:
    """Its entry, as long as that is there, could be put right by hand."""
    async with store_in(tmp_path) as quarantine:
        await quarantine.add([rejected(LARGE)])
    connection = apsw.Connection(str(tmp_path / "quarantine.db"))
    connection.execute("UPDATE entries SET file = CAST(? AS TEXT)", (name,))
    connection.close()
    async with store_in(tmp_path) as quarantine:
        assert len(files_in(tmp_path)) == 1
        await quarantine.drop([1])
    async with store_in(tmp_path):
        assert files_in(tmp_path) == []


async def test_files_of_calls_that_came_to_nothing_go_with_the_next_one(tmp_path: Path) -> None:
    """At a locked database an agent comes again and again with a large body, and gives up waiting."""
    async with store_in(tmp_path) as quarantine:
        blocker = apsw.Connection(str(tmp_path / "quarantine.db"))
        blocker.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quarantine.add, [rejected(b"first")])
            async with trio.open_nursery() as impatient:
                impatient.start_soon(quarantine.add, [rejected(LARGE + b"1")])
                while not files_in(tmp_path):  # noqa: ASYNC110  # a file's being there isn't told
                    await trio.sleep(0.01)
                impatient.cancel_scope.cancel()
            blocker.execute("COMMIT")
            blocker.close()
        await quarantine.add([rejected(LARGE)])
        assert len(files_in(tmp_path)) == 1
    assert len(files_in(tmp_path)) == 1


async def test_the_file_of_a_call_that_was_left_and_carried_out_stays(
    quarantine: StoredQuarantine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, left = threading.Event(), threading.Event()
    insert = store.insert_rows

    def insert_late(*args: Any) -> Any:
        begun.set()
        left.wait()
        return insert(*args)

    monkeypatch.setattr(store, "insert_rows", insert_late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(quarantine.add, [rejected(LARGE)])
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
        left.set()
    await quarantine.add([rejected(LARGE + b"2")])
    entries = await quarantine.list()
    assert len(files_in(tmp_path)) == len(entries) == 2
    for entry in entries:
        found = await quarantine.get(entry.id)
        assert found is not None
        assert len(found[1].payload) == entry.payload_bytes


async def test_a_file_that_cannot_be_removed_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadOnly(file_writes.FileCalls):
        def unlink(self, path: Path) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(file_writes, "calls", ReadOnly())
        async with store_in(tmp_path) as quarantine:
            await quarantine.add([rejected(LARGE)])
            assert await quarantine.drop([entry.id for entry in await quarantine.list()]) == 1
        async with store_in(tmp_path) as quarantine:
            await quarantine.add([rejected(b"small")])
            assert len(files_in(tmp_path)) == 1
    async with store_in(tmp_path):
        assert files_in(tmp_path) == []
