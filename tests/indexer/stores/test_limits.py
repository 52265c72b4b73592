"""A real node with little room: what it refuses of whole calls and of single items, and what becomes of it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import trio

from tests.contract.harness import until_it_works
from tests.indexer.cluster import chosen_build, nodes
from tests.indexer.harness import UNINDEXED, call, settings
from tests.indexer.proxy import proxy
from wazuh_comms_trio.backends.interfaces import (
    Action,
    Agent,
    Command,
    DocumentOperation,
    ItemResult,
    Outcome,
    Target,
)
from wazuh_comms_trio.backends.opensearch.client.bulk import read_items
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import IndexerClient
from wazuh_comms_trio.errors import BackendUnavailable

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

INDEX = "wazuh-states-fim"
A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
SMALL = {
    "indexing_pressure.memory.limit": "1mb",
    "http.max_content_length": "3mb",
    "thread_pool.write.size": "1",
    "thread_pool.write.queue_size": "1",
}


@pytest.fixture(scope="module")
def made() -> Iterator[int]:
    with nodes(1, SMALL, build=chosen_build()) as (small,):
        call(small.port, "PUT", "/_index_template/contract", UNINDEXED)
        yield small.port


@pytest.fixture
def node(made: int) -> int:
    """Its port; it is empty."""
    call(made, "DELETE", "/wazuh-*")
    return made


@pytest.fixture
async def stores(node: int) -> AsyncIterator[OpenSearchStores]:
    async with open_opensearch(settings(node)) as opened:
        yield opened


def creates(count: int, size: int) -> list[DocumentOperation]:
    body = json.dumps({"text": "x" * size}).encode()
    return [DocumentOperation("create", INDEX, str(number), body) for number in range(count)]


def stored(port: int) -> int:
    call(port, "POST", f"/{INDEX}/_refresh")
    return int(call(port, "GET", f"/{INDEX}/_count")["count"])


async def test_indexing_pressure(node: int, stores: OpenSearchStores) -> None:
    """The same 429 comes for as long as the call is as large: it is sent in smaller ones, cut between packets."""
    reply = await stores.client.request("POST", "/_bulk", raw(creates(1000, 2000)), content_type=NDJSON)
    assert reply.status == 429
    assert b"rejected_execution_exception" in reply.body
    results = await stores.events.bulk(creates(1000, 2000), boundaries=range(0, 1000, 20))
    assert {result.status for result in results} == {201}
    assert stored(node) == 1000


async def test_a_body_beyond_the_limit(node: int, stores: OpenSearchStores) -> None:
    """413, also where it was compressed."""
    body = raw(creates(2000, 2000))
    for more in ({"gzip_bytes": 0}, {"gzip_bytes": 1}):
        async with OpenSearchClient(settings(node, client=IndexerClient(**more))) as client:
            assert (await client.request("POST", "/_bulk", body, content_type=NDJSON)).status == 413
    results = await stores.events.bulk(creates(2000, 2000), boundaries=range(0, 2000, 20))
    assert {result.status for result in results} == {201}
    assert stored(node) == 2000


async def test_a_document_beyond_the_limit(node: int, stores: OpenSearchStores) -> None:
    """It can never be taken; its neighbours are."""
    first, last = creates(2, 10)
    (large,) = creates(1, 4_000_000)
    results = await stores.events.bulk([first, DocumentOperation("create", INDEX, "large", large.body), last])
    assert [result.outcome for result in results] == [Outcome.DONE, Outcome.REFUSED, Outcome.DONE]
    assert stored(node) == 2


async def test_a_write_queue_that_is_full(
    node: int, stores: OpenSearchStores, caplog: pytest.LogCaptureFixture
) -> None:
    """The call or an item says so; it may pass, and does. Smaller calls would be more calls: none is made smaller."""
    busy: list[ItemResult] = []
    whole: list[IndexerUnavailable] = []
    everything = creates(600, 1200)  # each call could be cut, and all together are within the other limit

    async def write(operations: Sequence[DocumentOperation]) -> None:
        left = list(operations)
        while left:
            try:
                results = await stores.events.bulk(left)
            except IndexerUnavailable as exc:  # the call itself found no place
                whole.append(exc)
                continue
            busy.extend(result for result in results if result.status == 429)
            assert {result.outcome for result in results} <= {Outcome.DONE, Outcome.PASSING}
            left = [each for each, result in zip(left, results, strict=True) if result.outcome is Outcome.PASSING]

    caplog.set_level(logging.INFO)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for start in range(0, 600, 60):
                nursery.start_soon(write, everything[start : start + 60])
    assert stored(node) == 600
    assert busy or whole
    assert all("rejected execution" in result.result for result in busy)
    assert all("429" in str(exc) for exc in whole)
    assert "too large" not in caplog.text


def raw(operations: Sequence[DocumentOperation]) -> bytes:
    lines = []
    for operation in operations:
        action = json.dumps({operation.action: {"_index": operation.index, "_id": operation.document_id}})
        lines += [action.encode(), operation.body or b""]
    return b"\n".join([*lines, b""])


async def test_a_last_line_that_is_missing_is_noticed(stores: OpenSearchStores) -> None:
    """The indexer says nothing of an action without its document: 200, and an item fewer."""
    body = raw(creates(2, 10)) + b'{"create":{"_index":"wazuh-states-fim","_id":"without"}}\n'
    reply = await stores.client.request("POST", "/_bulk", body, content_type=NDJSON)
    assert reply.status == 200
    assert [item.status for item in read_items(reply, 2)] == [201, 201]
    with pytest.raises(IndexerUnavailable, match="3 items got 2 answers"):
        read_items(reply, 3)


async def test_answers_that_take_20_seconds(node: int) -> None:
    """They are answers, each of them; nothing is sent twice meanwhile, and what isn't slow isn't held up."""
    seen: list[bytes] = []
    async with proxy(node) as between, open_opensearch(settings(between.port)) as stores:
        await stores.agents.add(Agent(A1, "a", "c2FsdA=="))
        await stores.commands.add([Command("c", Target("agent", A1), Action("restart"))])
        between.on_request = lambda data: seen.append(data.split(b" HTTP", 1)[0])
        between.delay = 20
        took: dict[str, float] = {}

        async def timed(name: str, work: Any) -> None:
            began = trio.current_time()
            result = await work
            took[name] = trio.current_time() - began
            assert result

        async with trio.open_nursery() as nursery:
            nursery.start_soon(timed, "bulk", stores.events.bulk(creates(10, 10)))
            nursery.start_soon(timed, "agent", stores.agents.get(A1))
            nursery.start_soon(timed, "command", stores.commands.get("c"))
        assert all(20 <= seconds < 30 for seconds in took.values()), took
        assert sum(line.startswith(b"POST /_bulk?") and b"timeout" in line for line in seen) == 1
        between.delay = 0
        results = await stores.events.bulk(creates(10, 10))
        assert {(result.status, result.result) for result in results} == {(200, "noop")}


async def test_a_connection_that_breaks_under_a_call(node: int) -> None:
    """What was sent is not believed, whatever came of it; sent again it is there, once."""
    async with proxy(node) as between, open_opensearch(settings(between.port)) as stores:
        await stores.events.bulk(creates(1, 10))
        operations = creates(200, 500)
        between.on_request = lambda data: between.break_all() if b"_bulk" in data else None
        with pytest.raises(BackendUnavailable):
            await stores.events.bulk(operations)
        between.on_request = lambda data: None
        await until_it_works(lambda: stores.client.json("GET", "/"))
        results = await stores.events.bulk(operations)
        assert {result.outcome for result in results} == {Outcome.DONE}
    assert stored(node) == 200
