"""Documents of any size that others wrote: no answer is larger than what may be in memory at once, and what they cost
keeps no other task waiting."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import client_of, fakes, stores_of
from tests.indexer.fake_index import Index
from wazuh_comms_trio.backends.document_rules import Key
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult
from wazuh_comms_trio.backends.opensearch.client import multi_get
from wazuh_comms_trio.backends.opensearch.client.bulk import BulkItem
from wazuh_comms_trio.backends.opensearch.client.multi_get import get_many
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.events import stored_documents
from wazuh_comms_trio.backends.opensearch.events.own_documents import Corrections
from wazuh_comms_trio.backends.opensearch.events.stored_documents import (
    Stored,
    StoredDocuments,
    Write,
    size_of,
    worked_out,
)
from wazuh_comms_trio.http.client.pool import HttpPool

INDEX = "wazuh-states-fim"
LETTERS = 100_000
LIMIT = 10 * LETTERS
KEYS = [(INDEX, str(number)) for number in range(50)]


def filled(index: Index, **more: Any) -> Index:
    """With as many documents, five times what is read at once."""
    for _, document_id in KEYS:
        index.write(document_id, json.dumps({"a": "x" * LETTERS, **more}).encode())
    return index


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_documents, "_BYTES_AT_ONCE", LIMIT)
    monkeypatch.setattr(multi_get, "_LARGEST_REPLY", LIMIT)


async def test_so_many_are_read_at_once_as_may_be_in_memory(limited: None, autojump_clock: MockClock) -> None:
    async with fakes("node") as nodes, client_of(nodes) as client:
        node = nodes["node"]
        node.indices[INDEX] = filled(Index(INDEX, trio.current_time))
        documents = StoredDocuments(client, lambda: LIMIT)
        found: dict[Key, Any] = {}
        async with aclosing(documents.pages([*KEYS, *KEYS, (INDEX, "missing")])) as pages:
            async for page in pages:
                assert sum(map(size_of, page.values())) <= LIMIT
                found |= page
        assert list(found) == [*KEYS, (INDEX, "missing")]
        assert found.pop((INDEX, "missing")) is None
        assert {size_of(stored) for stored in found.values()} == {LETTERS + 9}
        # It knows then how many are few enough: a dozen calls, and a few to find out.
        assert len(node.requests) < 20
        assert client.hosts.all[0].failures == 0


async def test_small_ones_that_are_read_beside_them_make_no_call_too_large_again(
    limited: None, autojump_clock: MockClock
) -> None:
    async with fakes("node") as nodes, client_of(nodes) as client:
        node = nodes["node"]
        index = node.indices[INDEX] = filled(Index(INDEX, trio.current_time))
        index.write("small", b"{}")
        documents = StoredDocuments(client, lambda: LIMIT)
        count = 0
        async with aclosing(documents.pages(KEYS)) as pages:
            async for _ in pages:
                count += 1
                await documents.read((INDEX, "small"))
        assert len(node.requests) - count < 20


async def test_small_ones_are_read_by_the_thousand_and_large_ones_after_them_are_not(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fakes("node") as nodes, client_of(nodes) as client:
        node = nodes["node"]
        index = node.indices[INDEX] = Index(INDEX, trio.current_time)
        small = [(INDEX, f"small{number}") for number in range(2100)]
        for _, document_id in small:
            index.write(document_id, b'{"a":1}')
        documents = StoredDocuments(client, lambda: LIMIT)

        async def pages(keys: Sequence[Key]) -> list[int]:
            async with aclosing(documents.pages(keys)) as pages:
                return [len(page) async for page in pages]

        assert await pages(small) == [100, 1000, 1000]
        monkeypatch.setattr(stored_documents, "_BYTES_AT_ONCE", LIMIT)
        filled(index)
        found = await pages([*KEYS, *small])
        assert max(found[:10]) <= 10  # of the large ones
        assert sum(found) == 2150
        assert documents.at_once == 1000


async def test_one_that_is_larger_is_read_alone(limited: None, autojump_clock: MockClock) -> None:
    async with fakes("node") as nodes, client_of(nodes) as client:
        index = nodes["node"].indices[INDEX] = filled(Index(INDEX, trio.current_time))
        index.write("7", json.dumps({"a": "x" * 2 * LIMIT}).encode())
        documents = StoredDocuments(client, lambda: LIMIT)
        async with aclosing(documents.pages(KEYS)) as pages:
            (alone,) = [page async for page in pages if (INDEX, "7") in page]
        assert [size_of(stored) for stored in alone.values()] == [2 * LIMIT + 9]
        assert len(set(await documents.versions(KEYS))) == 50  # by number, too


@pytest.mark.parametrize("own", [True, False])
async def test_creates_that_met_them_are_compared_and_put_right(
    own: bool, limited: None, autojump_clock: MockClock
) -> None:
    """What is equal is a noop, and of the rest each has its own answer: nothing is 503 for its size."""
    async with fakes("node") as nodes:
        node = nodes["node"]
        async with stores_of(node) as stores:
            index = node.indices[INDEX] = filled(Index(INDEX, trio.current_time))
            same, other = json.dumps({"a": "x" * LETTERS}).encode(), b'{"a":1}'
            operations = [
                DocumentOperation("create", INDEX, document_id, same if place % 2 else other, own=own)
                for place, (_, document_id) in enumerate(KEYS)
            ]
            results = await stores.events.bulk(operations)
            answers = [(result.status, result.result) for result in results]
            assert answers[1::2] == [(200, "noop")] * 25
            if own:
                assert answers[::2] == [(200, "updated")] * 25
                assert [stored.source for stored in index.documents.values()][::2] == [{"a": 1}] * 25
            else:
                assert {status for status, _ in answers[::2]} == {409}
                assert all(result.version for result in results[::2])


async def test_the_tools_reads_and_searches_are_split_too(
    limited: None, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is more than the client takes at all: hits come without their documents, and these in portions."""
    monkeypatch.setattr(
        HttpPool.__init__, "__kwdefaults__", {**HttpPool.__init__.__kwdefaults__, "largest_reply": LIMIT}
    )
    async with fakes("node") as nodes, client_of(nodes) as client:
        index = nodes["node"].indices[INDEX] = filled(Index(INDEX, trio.current_time))
        index.refresh()
        ids = [document_id for _, document_id in KEYS]
        found = await get_many(client, INDEX, ids)
        assert {len(each.source["a"]) for each in found.values()} == {LETTERS}
        hits = await search(client, INDEX, {"match_all": {}})
        assert sorted(each.id for each in hits.readable) == sorted(ids) == sorted(found)
        assert {len(each.source["a"]) for each in hits.readable} == {LETTERS}
        assert client.hosts.all[0].failures == 0


async def test_what_takes_long_is_worked_out_in_a_thread() -> None:
    large = stored_documents._IN_THREAD
    assert await worked_out(large - 1, threading.get_ident) == threading.get_ident()
    assert await worked_out(large, threading.get_ident) != threading.get_ident()


class Slow:
    """One large document; counts the turns of another task."""

    at_once = 100

    def __init__(self) -> None:
        self.turns = 0
        self.meanwhile = 0
        self.began = trio.Event()

    async def pages(self, keys: Sequence[Key], unread: Collection[Key]) -> AsyncGenerator[Mapping[Key, Stored], None]:
        self.began.set()
        before = self.turns
        yield dict.fromkeys(keys, Stored(b'{"a":[%b]}' % b",".join([b"1.50000"] * 240_000), 1, 1))
        self.meanwhile = self.turns - before

    async def write(self, writes: Sequence[Write]) -> Sequence[BulkItem]:
        return [BulkItem(200)] * len(writes)

    async def count(self) -> None:
        await self.began.wait()
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1


async def test_other_tasks_run_while_one_large_document_is_compared() -> None:
    """It is found to differ after all of it was looked at: it has few enough values to be taken apart."""
    results: list[ItemResult | None] = [ItemResult(409, "exists")]
    body = b'{"a":[%b,1]}' % b",".join([b"1.500000"] * 239_999)
    documents = Slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(documents.count)
        operation = DocumentOperation("create", INDEX, "1", body, own=True)
        await Corrections([operation], results, [0], lambda position: True).make(documents)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()
    assert results[0] is not None
    assert results[0].result == "updated"
    assert documents.meanwhile > 5  # on the event loop it would be the two of starting and ending
