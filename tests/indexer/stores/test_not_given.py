"""Documents in a real OpenSearch that it takes and can't give: an answer with one of them fails as a whole."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.indexer import cbor
from tests.indexer.harness import call, settings
from wazuh_comms_trio.backends.interfaces import Agent, CommandReport, CommandResult, DocumentOperation
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.admin.unreadable import find_unreadable, get_document, remove_unreadable
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.node_registry import had_registry
from wazuh_comms_trio.backends.opensearch.node_watch import NodeWatch
from wazuh_comms_trio.backends.opensearch.stores import open_opensearch
from wazuh_comms_trio.backends.opensearch.templates import index_body
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable
from wazuh_comms_trio.foundation.timestamps import to_iso

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
NOBODY = "11111111-1111-4111-8111-111111111111"
AGENTS, COMMANDS = "wazuh-agents", "wazuh-commands"
#: What the agents' index takes, which looks into every field.
OF_AGENTS = ("surrogate", "low", "name")


def make(port: int, name: str, kind: Any) -> None:
    call(port, "PUT", f"/{name}", index_body(kind))


def command(agent_id: str, args: Any) -> Any:
    return {
        "@timestamp": to_iso(time.time()),
        "command": {
            "status": "pending",
            "target": {"type": "agent", "id": agent_id},
            "action": {"name": "restart", "args": args},
            "timeout": 100,
        },
    }


async def test_commands(port: int, caplog: pytest.LogCaptureFixture) -> None:
    make(port, COMMANDS, "commands")
    for kind, args in cbor.NOT_GIVEN.items():
        cbor.put(port, COMMANDS, f"bad-{kind}", command(NOBODY, args))
    cbor.put(port, COMMANDS, "sound", command(A1, {"s": "ü"}))
    async with open_opensearch(settings(port)) as stores:
        commands = stores.commands
        with trio.fail_after(15):
            assert await commands.wait_news() == {A1}
        (claimed,) = await commands.claim([A1, NOBODY])
        assert (claimed.document_id, claimed.action.args) == ("sound", {"s": "ü"})
        await commands.mark_sent(["sound"])
        assert [each.document_id for each in await commands.list()] == ["sound"]
        call(port, "PUT", f"/{COMMANDS}/_doc/later?refresh=true", command(A1, {}))
        with trio.fail_after(15):
            assert await commands.wait_news() == {A1}
        named = {record.getMessage().split(" ")[0] for record in caplog.records if record.levelno == logging.WARNING}
        assert named == {f"{COMMANDS}/bad-{kind}" for kind in cbor.NOT_GIVEN}
        for kind in cbor.NOT_GIVEN:
            with pytest.raises(DocumentUnreadable, match=f"{COMMANDS}/bad-{kind} can't be read: "):
                await commands.get(f"bad-{kind}")


@pytest.mark.parametrize("mapped", [True, False])
async def test_commands_are_cancelled_by_what_is_indexed_of_them(port: int, mapped: bool) -> None:
    if mapped:
        make(port, COMMANDS, "commands")
    else:
        call(
            port,
            "PUT",
            f"/{COMMANDS}",
            {"mappings": {"properties": {"command.action.args": {"enabled": False, "type": "object"}}}},
        )
    kinds = list(cbor.NOT_GIVEN)
    for kind, args in cbor.NOT_GIVEN.items():
        written = command(NOBODY.upper(), args)
        written["command"] |= {"order_id": "o1", "user": "someone", "timeout": 1000}
        cbor.put(port, COMMANDS, f"bad-{kind}", written)
    taken = command(NOBODY, cbor.NOT_GIVEN["bytes"]) | {"delivery": {"token": "another.1"}}
    cbor.put(port, COMMANDS, "taken", taken)
    async with open_opensearch(settings(port)) as stores:
        commands = stores.commands
        for kind in kinds:
            cancelled = await commands.cancel(f"bad-{kind}")
            assert cancelled is not None
            found = await commands.get(f"bad-{kind}")
            assert found is not None
            assert found == evolve(cancelled, created_at=found.created_at)
            assert (found.status, found.target.id, found.action.name) == ("failed", NOBODY, "restart")
            assert (found.order_id, found.user, found.timeout) == ("o1", "someone", 1000)
            assert abs(found.created_at - time.time()) < 60
        unchanged = await commands.cancel("taken")
        assert unchanged is not None
        assert unchanged.status == "pending"
        with pytest.raises(DocumentUnreadable):
            await commands.get("taken")
        assert await commands.cancel("nothing") is None
        (result,) = await commands.report([CommandReport(NOBODY, "taken", CommandResult(0, "done"))])
        assert result.status == 400  # it was never offered


@pytest.mark.parametrize("size", [3, 1003])
async def test_they_are_found_and_removed(port: int, size: int) -> None:
    """``size``: also behind the first page."""
    make(port, COMMANDS, "commands")
    line = b'{"create":{"_index":"%b"}}\n%b\n' % (COMMANDS.encode(), json.dumps(command(A1, {})).encode())
    call(port, "POST", "/_bulk?refresh=true", line * size)
    for kind, args in cbor.NOT_GIVEN.items():
        cbor.put(port, COMMANDS, f"bad-{kind}", command(NOBODY, args))
    async with OpenSearchClient(settings(port)) as client:
        found = [each async for each in find_unreadable(client, COMMANDS)]
        assert sorted(each.id for each in found) == sorted(f"bad-{kind}" for kind in cbor.NOT_GIVEN)
        for each in found:
            shown = await get_document(client, COMMANDS, each.id)
            assert shown is not None
            assert shown.problem
            assert await remove_unreadable(client, shown)
        assert [each async for each in find_unreadable(client, COMMANDS)] == []


async def test_agents(port: int) -> None:
    make(port, AGENTS, "agents")
    async with open_opensearch(settings(port)) as stores:
        agents = stores.agents
        await agents.add(Agent(A1, "a1", "hash", groups=("web",)))
        bad = [f"11111111-1111-4111-8111-11111111111{number}" for number in range(len(OF_AGENTS))]
        for agent_id, kind in zip(bad, OF_AGENTS, strict=True):
            written = {"agent": {"key": "hash", "groups": ["web"], "status": "active", "host": cbor.NOT_GIVEN[kind]}}
            cbor.put(port, AGENTS, agent_id, written)
        answers: dict[str, object] = {}

        async def log_in(agent_id: str) -> None:
            try:
                answers[agent_id] = await agents.get(agent_id)
            except BackendUnavailable as exc:
                answers[agent_id] = type(exc)

        async with trio.open_nursery() as nursery:
            for agent_id in (*bad, A1):
                nursery.start_soon(log_in, agent_id)
        one = answers.pop(A1)
        assert isinstance(one, Agent)
        assert answers == dict.fromkeys(bad, DocumentUnreadable)
        assert [each.id for each in await agents.list()] == [A1]
        assert set(await agents.members("web")) == {A1, *bad}
        assert await agents.remove(bad[0])
        assert await agents.get(bad[0]) is None


async def test_an_index_that_keeps_no_sources_makes_nobody_unknown(port: int) -> None:
    call(port, "PUT", f"/{AGENTS}", {"mappings": {"_source": {"enabled": False}}})
    async with open_opensearch(settings(port)) as stores:
        await stores.agents.add(Agent(A1, "a1", "hash"))
        with pytest.raises(DocumentUnreadable):
            await stores.agents.get(A1)
        assert await stores.agents.get(NOBODY) is None


async def test_states_are_other_content_and_hold_up_no_other(port: int) -> None:
    name = "wazuh-states-fim"
    call(port, "PUT", f"/{name}", {"mappings": {"dynamic": False}})
    for kind, args in cbor.NOT_GIVEN.items():
        cbor.put(port, name, kind, args)
    async with open_opensearch(settings(port)) as stores:
        kinds = [*cbor.NOT_GIVEN, "new"]
        creates = [DocumentOperation("create", name, kind, b'{"n":1}', own=True) for kind in kinds]
        results = await stores.events.bulk(creates)
        assert [result.status for result in results] == [200] * len(cbor.NOT_GIVEN) + [201]
        for kind in kinds:
            assert await stores.events.get(name, kind) == b'{"n":1}'
        for kind, args in cbor.NOT_GIVEN.items():
            cbor.put(port, name, kind, args)
        updates = [DocumentOperation("update", name, kind, b'{"n":2}', own=True) for kind in kinds]
        results = await stores.events.bulk(updates)
        assert all(result.outcome.name == "REFUSED" for result in results[:-1])
        assert results[-1].status == 200


@pytest.mark.parametrize("first", [True, False])
async def test_states_among_many_that_are_created_again(port: int, first: bool) -> None:
    """``first``: they are among those that are read, or not."""
    name = "wazuh-states-fim"
    call(port, "PUT", f"/{name}", {"mappings": {"dynamic": False}})
    others = [f"d{number}" for number in range(200)]
    places = range(0, 200, 10) if first else range(1, 200, 10)
    for place, (kind, args) in zip(places, cbor.NOT_GIVEN.items(), strict=False):
        others[place] = kind
        cbor.put(port, name, kind, args)
    async with open_opensearch(settings(port)) as stores:

        async def create(content: int) -> set[int]:
            body = b'{"n":%d}' % content
            creates = [DocumentOperation("create", name, each, body, own=True) for each in others]
            return {result.status for result in await stores.events.bulk(creates)}

        assert await create(1) == {200, 201}
        for kind, args in cbor.NOT_GIVEN.items():
            cbor.put(port, name, kind, args)
        assert await create(2) == {200}
        for each in others:
            assert await stores.events.get(name, each) == b'{"n":2}'


async def test_nodes(port: int) -> None:
    async with OpenSearchClient(settings(port)) as client:
        watch = NodeWatch(client, LocalNode("n1", "n1", "key"), time.time)
        await watch.look()
        cbor.put(port, "wazuh-comms-nodes", "other", {"name": b"\xff", "seen": 1})
        await watch.look()
        assert await had_registry(client) is False
