"""What a real OpenSearch says to what goes wrong, and what a caller is told: each row of its tables that matters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.contract.harness import until_it_works
from tests.indexer.harness import call, settings
from tests.indexer.proxy import proxy
from tests.indexer.stores.real_operations import INDEX, create
from wazuh_comms_trio.backends.interfaces import Agent, DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.error_details import error_of
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import IndexerClient
from wazuh_comms_trio.errors import BackendUnavailable

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]


def update(document_id: str, index: str = INDEX, **data: Any) -> DocumentOperation:
    return DocumentOperation("update", index, document_id, json.dumps(data).encode())


def delete(document_id: str, index: str = INDEX) -> DocumentOperation:
    return DocumentOperation("delete", index, document_id)


async def one(stores: OpenSearchStores, operation: DocumentOperation) -> ItemResult:
    (result,) = await stores.events.bulk([operation])
    return result


@contextmanager
def cluster_settings(port: int, **values: Any) -> Iterator[None]:
    """Until the block ends."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    call(port, "PUT", "/_cluster/settings", {"transient": named})
    try:
        yield
    finally:
        call(port, "PUT", "/_cluster/settings", {"transient": dict.fromkeys(named)})


def put_settings(port: int, index: str, **values: Any) -> None:
    call(port, "PUT", f"/{index}/_settings", {name.replace("__", "."): value for name, value in values.items()})


# --- items ---


async def test_malformed_documents(port: int, stores: OpenSearchStores) -> None:
    mappings = {"dynamic": "strict", "properties": {"n": {"type": "long"}, "when": {"type": "date"}}}
    call(port, "PUT", f"/{INDEX}", {"mappings": mappings})
    results = await stores.events.bulk(
        [
            create("1", n=1),
            create("2", n="text"),
            create("3", other=1),
            create("4", when="yesterday"),
            create("5", index="Upper", n=1),
            create("6", index="_bad*name", n=1),
            update("1", n="text"),
            update("1", n=2),
        ]
    )
    assert [result.status for result in results] == [201, 400, 400, 400, 400, 400, 400, 200]
    assert [result.outcome for result in results] == [
        Outcome.REFUSED if result.status == 400 else Outcome.DONE for result in results
    ]
    assert "strict" in results[2].result
    assert "n" in results[1].result


async def test_mapping_conflicts(stores: OpenSearchStores) -> None:
    assert (await one(stores, create("1", a={"b": 1}))).status == 201
    conflict = await one(stores, create("2", a="text"))
    assert (conflict.status, conflict.outcome) == (400, Outcome.REFUSED)
    assert (await one(stores, create("3", a={"b": 2}))).status == 201


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":1,"a":2}',
        b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"a":1e999}',
        b'{"":1}',
        b'{"a..b":1}',
        b'{".":1}',
        b'{"_id":"x"}',
        b'{"a":\r 1}',
    ],
)
@pytest.mark.parametrize("action", ["create", "update"])
async def test_one_bad_document_does_not_sink_the_others(stores: OpenSearchStores, action: Any, line: bytes) -> None:
    await stores.events.bulk([create("old", a=0.5)])
    bad = DocumentOperation(action, INDEX, "old" if action == "update" else "new", line)
    operations = [*(create(f"a{n}", n=n) for n in range(10)), bad, *(create(f"b{n}", n=n) for n in range(10))]
    results = await stores.events.bulk(operations)
    assert {result.status for result in results[:10] + results[11:]} == {201}  # type: ignore[operator]
    assert results[10].outcome in (Outcome.REFUSED, Outcome.DONE)
    assert results[10].status in (400, 200, 201)


async def test_blocks_pass(port: int, stores: OpenSearchStores) -> None:
    await one(stores, create("1", a=1))
    for block, status in (("blocks__write", 403), ("blocks__read_only_allow_delete", 429)):
        put_settings(port, INDEX, **{f"index__{block}": True})
        for operation in (create("2"), update("1", a=2), delete("1")):
            result = await one(stores, operation)
            if (block, operation.action) == ("blocks__read_only_allow_delete", "delete") and result.status == 200:
                await one(stores, create("1", a=1))
                continue
            assert (result.status, result.outcome) == (status, Outcome.PASSING)
        put_settings(port, INDEX, **{f"index__{block}": None})
    assert (await one(stores, create("2"))).status == 201


async def test_a_closed_index_passes(port: int, stores: OpenSearchStores) -> None:
    await one(stores, create("1", a=1))
    call(port, "POST", f"/{INDEX}/_close")
    for operation in (create("2"), update("1", a=2), delete("1")):
        result = await one(stores, operation)
        assert (result.status, result.outcome) == (400, Outcome.PASSING)
    call(port, "POST", f"/{INDEX}/_open?wait_for_active_shards=1")
    assert (await one(stores, create("2"))).status == 201


async def test_a_closed_index_refuses_no_agent_for_good(port: int, stores: OpenSearchStores) -> None:
    first, second = (Agent(f"018f3c5e-0000-7000-8000-00000000000{n}", f"a{n}", "hash") for n in (1, 2))
    await stores.agents.add(first)
    (name,) = [each["index"] for each in call(port, "GET", "/_cat/indices/*agents*?format=json&expand_wildcards=all")]
    call(port, "POST", f"/{name}/_close")
    with pytest.raises(BackendUnavailable):
        await stores.agents.add(second)
    call(port, "POST", f"/{name}/_open?wait_for_active_shards=1")
    await stores.agents.add(second)


async def test_an_index_that_may_not_be_made_passes(port: int, stores: OpenSearchStores) -> None:
    with cluster_settings(port, action__auto_create_index="false"):
        for operation in (create("1"), update("1"), delete("1")):
            result = await one(stores, operation)
            assert (result.status, result.outcome) == (404, Outcome.PASSING), operation
    assert (await one(stores, create("1"))).status == 201


async def test_a_cluster_that_is_full_of_shards_passes(port: int, stores: OpenSearchStores) -> None:
    with cluster_settings(port, cluster__max_shards_per_node=1):
        await stores.events.bulk([create("1", index="wazuh-states-a")])
        result = await one(stores, create("1", index="wazuh-states-b"))
        assert (result.status, result.outcome) == (400, Outcome.PASSING)


async def test_an_alias_without_a_write_index_passes(port: int, stores: OpenSearchStores) -> None:
    for name in ("real-1", "real-2"):
        call(port, "PUT", f"/{name}", {"aliases": {INDEX: {}}})
    result = await one(stores, create("1"))
    assert (result.status, result.outcome) == (400, Outcome.PASSING)


# --- whole calls ---


async def test_a_breaker_that_trips(port: int, stores: OpenSearchStores) -> None:
    operations = [create(str(n), text="x" * 2000) for n in range(2000)]
    with cluster_settings(port, network__breaker__inflight_requests__limit="1mb"):
        results = await stores.events.bulk(operations, boundaries=range(0, 2000, 10))
    assert {result.status for result in results} == {201}


async def test_a_breaker_that_nothing_passes(port: int, stores: OpenSearchStores) -> None:
    with (
        cluster_settings(port, network__breaker__inflight_requests__limit="10b"),
        pytest.raises(BackendUnavailable, match="429"),
    ):
        await stores.events.bulk([create("1", text="x" * 200)])


async def test_bodies_are_taken_compressed(port: int) -> None:
    async with open_opensearch(settings(port, client=IndexerClient(gzip_bytes=1))) as stores:
        assert (await one(stores, create("1", text="ü" * 1000))).status == 201
        large = [create(f"l{n}", text="x" * 1000) for n in range(1000)]
        assert {result.status for result in await stores.events.bulk(large)} == {201}
        assert len((await stores.events.get(INDEX, "1")) or b"") > 1000


# --- connections ---


async def test_an_answer_that_is_cut_off(port: int) -> None:
    async with proxy(port) as between, open_opensearch(settings(between.port)) as stores:
        await one(stores, create("first"))
        operations = [create(str(n), n=n) for n in range(200)]
        between.cut_after = 300
        with pytest.raises(BackendUnavailable):
            await stores.events.bulk(operations)
        await until_it_works(lambda: stores.client.json("GET", "/"))  # the only node rests a little
        assert {(r.status, r.result) for r in await stores.events.bulk(operations)} == {(200, "noop")}


async def test_one_that_accepts_and_never_answers(port: int) -> None:
    async with open_opensearch(settings(port)) as stores:  # a new index takes its time
        await one(stores, create("0"))
    limits = IndexerClient(read_timeout=2)
    async with proxy(port) as between, open_opensearch(settings(between.port, client=limits)) as stores:
        between.switch("hang")
        with trio.fail_after(8), pytest.raises(BackendUnavailable):
            await one(stores, create("1"))
        with trio.fail_after(8), pytest.raises(BackendUnavailable):
            await stores.agents.get("nobody")
        between.switch("pass")
        result = await until_it_works(lambda: one(stores, create("2")))
        # Also an attempt that nobody waited for may have been written.
        assert (result.status, result.result) in {(201, "created"), (200, "noop")}


async def test_connections_that_the_node_closed_are_no_errors(port: int) -> None:
    async with proxy(port) as between, open_opensearch(settings(between.port)) as stores:
        for number in range(20):
            between.break_all()
            await trio.testing.wait_all_tasks_blocked(0.01)  # once they are closed
            assert (await one(stores, create(str(number)))).status == 201
        assert between.accepted >= 20


# --- what the client relies on ---


async def test_a_real_conflict_is_worded_as_we_know_it(port: int) -> None:
    async with OpenSearchClient(settings(port)) as client:
        await client.json("PUT", path("i", "_create", "1"), {"a": 1})
        reply = await client.request("PUT", path("i", "_create", "1"), b'{"a":1}')
        assert reply.status == 409
        assert "document already exists" in (error_of(reply).reason or "")
