"""What a real OpenSearch says to what goes wrong, and what a caller is told: each row of its tables that matters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from tests.contract.harness import until_it_works
from tests.indexer.harness import call, settings
from tests.indexer.proxy import proxy
from wazuh_comms_trio.backends.interfaces import (
    Action,
    Agent,
    Command,
    CommandReport,
    CommandResult,
    DocumentOperation,
    ItemResult,
    Outcome,
    Target,
)
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient, error_of, path
from wazuh_comms_trio.backends.opensearch.client.queries import exactly
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import IndexerClient, IndexerNames
from wazuh_comms_trio.errors import BackendUnavailable, MalformedRequest

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

INDEX = "wazuh-states-fim"
A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


@pytest.fixture
async def stores(port: int) -> AsyncIterator[OpenSearchStores]:
    async with open_opensearch(settings(port)) as opened:
        yield opened


def create(document_id: str, index: str = INDEX, **data: Any) -> DocumentOperation:
    return DocumentOperation("create", index, document_id, json.dumps(data).encode())


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
    limits = IndexerClient(read_timeout=0.5)
    async with proxy(port) as between, open_opensearch(settings(between.port, client=limits)) as stores:
        await one(stores, create("0"))
        between.switch("hang")
        with trio.fail_after(2), pytest.raises(BackendUnavailable):
            await one(stores, create("1"))
        with trio.fail_after(4), pytest.raises(BackendUnavailable):
            await stores.agents.get("nobody")
        between.switch("pass")
        with trio.fail_after(10):
            while True:
                try:
                    assert (await one(stores, create("2"))).status == 201
                    break
                except BackendUnavailable:
                    await trio.sleep(0.1)


async def test_connections_that_the_node_closed_are_no_errors(port: int) -> None:
    async with proxy(port) as between, open_opensearch(settings(between.port)) as stores:
        for number in range(20):
            between.break_all()
            await trio.sleep(0.01)
            assert (await one(stores, create(str(number)))).status == 201
        assert between.accepted >= 20


# --- queries on both kinds of mapping ---

VALUES = [
    "pending",
    "PENDING",
    "Pending",
    "pending retry",
    "pend",
    "0194857f-39b5-7bfb",
    "0194857f-39b5-7bfb-a7bc",
    "ü",
]
KEYWORD: Mapping[str, Any] = {"properties": {"f": {"properties": {"s": {"type": "keyword"}}}}}


@pytest.mark.parametrize("mappings", [None, KEYWORD], ids=["dynamic", "explicit"])
async def test_exactly_is_exact(port: int, mappings: Any) -> None:
    call(port, "PUT", "/values", {"mappings": mappings} if mappings else {})
    for number, value in enumerate(VALUES):
        call(port, "PUT", f"/values/_doc/{number}", {"f": {"s": value}})
    call(port, "PUT", "/values/_doc/list?refresh=true", {"f": {"s": ["one", "two words"]}})
    async with OpenSearchClient(settings(port)) as client:

        async def find(*wanted: str) -> set[str]:
            return {hit.id for hit in (await search(client, "values", exactly("f.s", wanted))).readable}

        for number, value in enumerate(VALUES):
            assert await find(value) == {str(number)}
        assert await find("pending", "pend", "none") == {"0", "4"}
        assert await find("two words") == {"list"}
        assert await find("words") == await find("two") == set()


@asynccontextmanager
async def dotted(port: int) -> AsyncIterator[OpenSearchStores]:
    async with open_opensearch(settings(port, names=IndexerNames(".agents", ".commands"))) as stores:
        yield stores


#: Extracts of the templates of a Wazuh indexer.
TEMPLATES: Mapping[str, Any] = {
    ".agents": {
        "dynamic": "strict",
        "date_detection": False,
        "properties": {
            "agent": {
                "properties": {
                    **{
                        name: {"type": "keyword"}
                        for name in ("id", "key", "name", "type", "version", "status", "groups")
                    },
                    "last_login": {"type": "date"},
                    "host": {
                        "properties": {
                            "architecture": {"type": "keyword"},
                            "hostname": {"type": "keyword"},
                            "ip": {"type": "ip"},
                            "os": {
                                "properties": {
                                    name: {"type": "keyword"} for name in ("name", "type", "version", "platform")
                                }
                            },
                        }
                    },
                }
            }
        },
    },
    ".commands": {
        "dynamic": True,
        "date_detection": False,
        "properties": {
            "@timestamp": {"type": "date"},
            "delivery_timestamp": {"type": "date"},
            "agent": {"properties": {"groups": {"type": "keyword"}}},
            "command": {
                "properties": {
                    **{name: {"type": "keyword"} for name in ("source", "user", "status", "order_id", "request_id")},
                    "target": {"properties": {"id": {"type": "keyword"}, "type": {"type": "keyword"}}},
                    "action": {
                        "properties": {
                            "name": {"type": "keyword"},
                            "version": {"type": "keyword"},
                            "args": {"type": "object"},
                        }
                    },
                    "timeout": {"type": "short"},
                    "result": {
                        "properties": {
                            "code": {"type": "short"},
                            "message": {"type": "keyword"},
                            "data": {"type": "keyword"},
                        }
                    },
                }
            },
        },
    },
}


@pytest.mark.parametrize("kind", ["dynamic", "template"])
async def test_a_days_work_on_both_kinds_of_mapping(port: int, kind: str) -> None:
    for name, mappings in TEMPLATES.items():
        hidden = {"settings": {"index": {"hidden": True, "refresh_interval": "5s"}}}
        call(port, "PUT", f"/{name}", {**hidden, "mappings": mappings if kind == "template" else {}})
    agent = Agent(
        A1,
        "a1",
        "c2FsdA==",
        groups=("web", "db servers"),
        host={"hostname": "h", "ip": ["10.0.0.5"], "os": {"name": "Ubuntu"}},
    )
    written = {"status": "PENDING", "target": {"type": "agent", "id": A1}, "action": {"name": "restart"}, "timeout": 60}
    now = "2099-01-01T00:00:00.000Z"
    call(port, "PUT", "/.commands/_doc/theirs", {"@timestamp": now, "command": written})
    async with dotted(port) as here, dotted(port) as there:
        await here.agents.add(agent)
        await here.agents.record_login(A1, 1_750_000_000.25)
        await here.agents.flush_logins()
        stored = await there.agents.get(A1)
        assert stored is not None
        assert (stored.status, stored.last_login) == ("active", 1_750_000_000.25)
        assert await there.agents.members("web") == [A1]
        assert await there.agents.members("db servers") == [A1]
        assert await there.agents.members("db") == []
        await there.commands.add(
            [Command("ours", Target("group", "web"), Action("x", "1", {"a": {"b": ["1", "c"]}, "n": 5}))]
        )
        got: set[str] = set()
        with trio.fail_after(20):
            while len(got) < 2:
                assert await here.commands.wait_news() == {A1}
                got |= {each.document_id for each in await here.commands.claim([A1])}
        assert got == {"theirs", f"ours_{A1}"}
        await here.commands.mark_sent(got)
        assert {each.document_id for each in await there.commands.list(status="sent", agent_id=A1)} == got
        results = await there.commands.report(
            [
                CommandReport(A1, "theirs", CommandResult(0, "m" * 40_000, {"k": ["v"]})),
                CommandReport(A1, f"ours_{A1}", CommandResult(1, "no", "text")),
            ]
        )
        assert [result.status for result in results] == [200, 200]
        done = await here.commands.get("theirs")
        assert done is not None
        assert done.result is not None
        assert (done.status, done.result.data) == ("success", {"k": ["v"]})
        assert {each.document_id for each in await here.commands.list(status="failed")} == {f"ours_{A1}"}


async def test_sent_and_not_answered_is_found_on_both(port: int) -> None:
    clock = [1_750_000_000.0]
    for name in ("dynamic", "template"):
        index = f"commands-{name}"
        body = {"mappings": TEMPLATES[".commands"]} if name == "template" else {}
        call(port, "PUT", f"/{index}", body)
        names = IndexerNames(f"agents-{name}", index)
        async with open_opensearch(settings(port, names=names), wall_clock=lambda: clock[0]) as stores:
            await stores.commands.add(
                [Command(f"c{n}", Target("agent", A1), Action("restart"), timeout=10 * n) for n in (1, 2)]
            )
            await stores.commands.claim([A1])
            await stores.commands.mark_sent(["c1", "c2"])
            clock[0] += 15
            await stores.commands.expire()
            first, second = await stores.commands.get("c1"), await stores.commands.get("c2")
            assert first is not None
            assert second is not None
            assert (first.status, second.status) == ("failed", "sent")


# --- what the client relies on ---


async def test_a_real_conflict_is_worded_as_we_know_it(port: int) -> None:
    async with OpenSearchClient(settings(port)) as client:
        await client.json("PUT", path("i", "_create", "1"), {"a": 1})
        reply = await client.request("PUT", path("i", "_create", "1"), b'{"a":1}')
        assert reply.status == 409
        assert "document already exists" in (error_of(reply).reason or "")


STRANGE_IDS = ["", "x" * 513, "\ud800", "a\0b", "a/b", " ", "ü" * 256, "ü" * 257]


async def test_ids_that_nobody_can_have(stores: OpenSearchStores) -> None:
    """They come from agents; one must not spoil what is read or written with it for others."""
    await stores.agents.add(Agent(A1, "a", "hash"))
    found: dict[str, Agent | None] = {}

    async def look(agent_id: str) -> None:
        found[agent_id] = await stores.agents.get(agent_id)

    async with trio.open_nursery() as nursery:
        for agent_id in [*STRANGE_IDS, A1]:
            nursery.start_soon(look, agent_id)
    assert [agent_id for agent_id, agent in found.items() if agent is not None] == [A1]
    await stores.commands.add([Command("c1", Target("agent", A1), Action("restart"))])
    await stores.commands.claim([A1])
    reports = [CommandReport(A1, i, CommandResult(0, "m\ud800", {"d": "\ud800"})) for i in [*STRANGE_IDS, "c1"]]
    results = await stores.commands.report(reports)
    assert [result.status for result in results] == [404] * len(STRANGE_IDS) + [200]
    written = await stores.events.bulk([create(i, n=1) for i in [*STRANGE_IDS, "good"]])
    assert [result.status for result in written] == [400, 400, 400, 201, 201, 201, 201, 400, 201]
    for document_id in STRANGE_IDS:
        assert await stores.commands.get(document_id) is None
        assert await stores.commands.cancel(document_id) is None
        assert not await stores.agents.remove(document_id)
        assert not await stores.agents.rekey(document_id, "x")
        await stores.agents.record_login(document_id, 1.0)
        assert (await stores.events.get(INDEX, document_id) is not None) == (document_id in STRANGE_IDS[3:7])
    await stores.agents.flush_logins()
    for document_id in STRANGE_IDS[:3]:
        with pytest.raises(MalformedRequest):
            await stores.commands.add([Command(document_id, Target("agent", A1), Action("x"))])
        with pytest.raises(MalformedRequest):
            await stores.agents.add(Agent(document_id, "a", "hash"))


@pytest.mark.parametrize("seconds", [-5, 0, 0.5, 1e15, 32_768])
async def test_timeouts_beyond_the_calendar(stores: OpenSearchStores, seconds: float) -> None:
    (stored,) = await stores.commands.add([Command("c", Target("agent", A1), Action("x"), timeout=seconds)])
    assert stored.timeout == seconds
    await stores.commands.expire()
    again = await stores.commands.get("c")
    assert again is not None
    assert again.status == ("failed" if seconds <= 0 else "pending")
