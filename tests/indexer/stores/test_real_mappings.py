"""A real OpenSearch's mappings, dynamic and by template, ids and timeouts of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.indexer.harness import call, settings
from tests.indexer.stores.real_operations import INDEX, create
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.queries import exactly
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import IndexerNames
from wazuh_comms_trio.errors import MalformedRequest

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


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


@pytest.mark.parametrize("seconds", [-5, 0, 90.5, 1e15, 32_768])
async def test_timeouts_beyond_the_calendar(stores: OpenSearchStores, seconds: float) -> None:
    (stored,) = await stores.commands.add([Command("c", Target("agent", A1), Action("x"), timeout=seconds)])
    assert stored.timeout == seconds
    await stores.commands.expire()
    again = await stores.commands.get("c")
    assert again is not None
    assert again.status == ("failed" if seconds <= 0 else "pending")
