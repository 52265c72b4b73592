"""Bulk calls that are written in parts, of which not all can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.harness import INDEX, Clock
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import DocumentOperation, Outcome
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
