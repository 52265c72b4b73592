"""Bulk calls that are written in parts, of which not all can be."""

from __future__ import annotations

import json
import tracemalloc
from bisect import bisect_right
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest
import trio
import trio.testing

from tests.contract.harness import INDEX, Clock
from wazuh_comms_trio.backends.embedded import documents
from wazuh_comms_trio.backends.embedded.database.page_cache import shrink
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull

pytestmark = pytest.mark.real_clock

#: 4 MB, in parts of half a mebibyte and what makes it full: six documents.
OPERATIONS = [DocumentOperation("create", INDEX, str(number), b'{"a":"%b"}' % (b"x" * 100_000)) for number in range(40)]


def fail_after(stores: SqliteStores, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many parts are written, then the disk is full."""
    write_parts = stores.database.write_parts

    async def write_some(parts: Sequence[Any]) -> Sequence[Any]:
        made = list(await write_parts(parts[:count]))
        return made + [StorageFull() for _ in parts[count:]]

    monkeypatch.setattr(stores.database, "write_parts", write_some)


async def test_what_could_not_be_written_is_to_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        with monkeypatch.context() as patched:
            fail_after(stores, 2, patched)
            results = await stores.events.bulk(OPERATIONS)
        assert [result.status for result in results] == [201] * 12 + [503] * 28
        assert {result.outcome for result in results[12:]} == {Outcome.PASSING}
        assert await stores.events.get(INDEX, "11") == OPERATIONS[11].body
        assert await stores.events.get(INDEX, "12") is None
        results = await stores.events.bulk(OPERATIONS)
        assert [(result.status, result.result) for result in results] == [(200, "noop")] * 12 + [(201, "created")] * 28


async def test_nothing_written_is_a_failure_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        fail_after(stores, 0, monkeypatch)
        with pytest.raises(StorageFull):
            await stores.events.bulk(OPERATIONS)


async def test_a_small_call_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        fail_after(stores, 0, monkeypatch)
        results = await stores.events.bulk(OPERATIONS[:5])
        assert [result.status for result in results] == [201] * 5
        monkeypatch.undo()
        before = stores.database.commits[0]
        await stores.events.bulk([DocumentOperation("delete", INDEX, str(number)) for number in range(5)])
        assert stores.database.commits[0] == before + 1


async def test_a_closed_store_takes_no_parts(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        pass
    with pytest.raises(BackendUnavailable):
        await stores.events.bulk(OPERATIONS)


LARGE = DocumentOperation("create", INDEX, "large", b'{"a":"%b"}' % (b"x" * 1024 * 1024))


def changes(count: int, *, letters: int = 0) -> list[DocumentOperation]:
    pad = "x" * letters
    return [DocumentOperation("update", INDEX, "large", b'{"n":%d,"p":"%b"}' % (n, pad.encode())) for n in range(count)]


async def number_in(stores: SqliteStores) -> int:
    return int(json.loads(await stores.events.get(INDEX, "large") or b"")["n"])


async def test_many_changes_of_a_large_document_are_no_single_transaction(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        await stores.events.bulk([LARGE])
        before = stores.database.commits[1]
        results = await stores.events.bulk(changes(100))
        assert [result.status for result in results] == [200] * 100
        assert await number_in(stores) == 99
        assert stores.database.commits[1] - before == 4  # of 31 or 32 each


async def test_of_those_what_could_not_be_written_is_to_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        await stores.events.bulk([LARGE])
        write, calls = stores.database.write, count()

        async def write_once(work: Any, **how: Any) -> Any:
            if next(calls):
                raise StorageFull
            return await write(work, **how)

        with monkeypatch.context() as patched:
            patched.setattr(stores.database, "write", write_once)
            results = await stores.events.bulk(changes(100))
        done = [result.status for result in results].count(200)
        assert 1 < done < 100
        assert [result.status for result in results] == [200] * done + [503] * (100 - done)
        assert await number_in(stores) == done - 1


async def test_a_part_with_too_much_of_a_large_document_is_done_in_several_calls(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        await stores.events.bulk([LARGE])
        left = changes(100, letters=10_000)
        calls = 0
        while left:
            outcomes = [result.outcome for result in await stores.events.bulk(left)]
            done = outcomes.index(Outcome.PASSING) if Outcome.PASSING in outcomes else len(left)
            assert done > 0
            left = left[done:]
            calls += 1
        assert calls > 1
        assert await number_in(stores) == 99


async def test_a_call_about_many_large_documents_does_not_read_all_of_them_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_WORK_BYTES", 1024 * 1024)
    ids = [str(number) for number in range(500)]
    body = b'{"a":"%b"}' % (b"x" * 20_000)
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        await stores.events.bulk([DocumentOperation("create", INDEX, i, body) for i in ids])
        tracemalloc.start()
        try:
            results = await stores.events.bulk([DocumentOperation("update", INDEX, i, b'{"b":1}') for i in ids])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [result.status for result in results] == [200] * 500
        assert most < 6_000_000  # of ten, twice


def own(action: Literal["create", "update"], document_id: str, value: int, letters: int = 0) -> DocumentOperation:
    body = json.dumps({"v": value, "x": "x" * letters}).encode()
    return DocumentOperation(action, INDEX, document_id, body, own=True)


@pytest.mark.parametrize("letters", [0, 200_000])
@pytest.mark.parametrize("odd_id", ["c", "\ud800"])
async def test_what_waited_for_the_file_is_not_written_once_its_request_is_closed(
    tmp_path: Path, letters: int, odd_id: str
) -> None:
    """Its agent sends it again, to another process; a late write would undo what that has written since."""
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores, open_sqlite(tmp_path, wall_clock=Clock()) as others:
        opened = {0, 1, 2}
        starts = [0, 3, 5]

        def is_open(position: int) -> bool:
            return bisect_right(starts, position) - 1 in opened

        calls = [own("create", "a", 1, letters), own("update", "a", 2, letters), own("create", "b", 1, letters)]
        calls += [own("create", "a", 3, letters), own("create", odd_id, 3, letters), own("update", "d", 5, letters)]
        lock = apsw.Connection(str(tmp_path / "state.db"))
        lock.execute("BEGIN IMMEDIATE")
        made: list[ItemResult] = []

        async def write() -> None:
            made.extend(await stores.events.bulk(calls, boundaries=starts, is_open=is_open))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked(0.05)
            opened.remove(1)
            lock.execute("COMMIT")
        lock.close()
        bad = 400 if odd_id != "c" else 503
        assert [result.status for result in made] == [201, 200, 201, 503, bad, 201]
        assert made[3].outcome is Outcome.PASSING
        # The other process has it; the first one's tries end.
        await others.events.bulk([own("create", "a", 4, letters)])
        opened.clear()
        again = await stores.events.bulk(calls, boundaries=starts, is_open=is_open)
        assert {result.outcome for result in again} <= {Outcome.PASSING, Outcome.REFUSED}
        assert json.loads(await others.events.get(INDEX, "a") or b"{}")["v"] == 4
        assert await stores.events.get(INDEX, "c") is None


async def test_large_ones_arent_kept_in_memory(tmp_path: Path) -> None:
    size = 30_000_000
    async with open_sqlite(tmp_path, wall_clock=Clock()) as stores:
        before = apsw.memory_used()
        for number, action in enumerate(("create", "create", "update")):
            text = b'{"n":%d,"a":"%b"}' % (number, b"x" * size)
            operations = [DocumentOperation(action, INDEX, name, text, own=True) for name in "ab"]  # type: ignore[arg-type]
            assert {result.status for result in await stores.events.bulk(operations)} <= {200, 201}
            await stores.database.write(shrink)
            assert apsw.memory_used() - before < size / 2
