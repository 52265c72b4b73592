"""One document that another program wrote badly, on the fake OpenSearch and the mock clock: it costs at most itself."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from tests.indexer.bench import A1, A2, fake, stores_of
from tests.indexer.stores.commands.nodes import INDEX, command, ids, put, source
from wazuh_comms_trio.backends.interfaces import Agent, CommandReport, CommandResult, DocumentOperation
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable
from wazuh_comms_trio.foundation.timestamps import to_iso

BAD: Any = {"name": "restart", "args": {"s": "\udced"}}
AGENT = Agent(A1, "a1", "hash-1", host={"hostname": "h"})
OTHER = Agent(A2, "a2", "hash-2")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_command_holds_up_no_other(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with fake() as node, stores_of(node) as stores:
        put(node, "bad", A2, action=BAD)
        put(node, "sound")
        with trio.fail_after(30):
            assert await stores.commands.wait_news() == {A1}
        assert ids(await stores.commands.claim([A1, A2])) == ["sound"]
        await stores.commands.mark_sent(["sound"])
        await trio.sleep(60)  # many rounds
        put(node, "later")
        with trio.fail_after(30):
            assert await stores.commands.wait_news() == {A1}
        assert sorted(ids(await stores.commands.list())) == ["later", "sound"]
        (named,) = warnings(caplog)
        assert named.startswith(f"{INDEX}/bad can't be read: ")


async def test_a_full_page_of_them_isnt_the_end(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        for number in range(1100):
            put(node, f"bad-{number}", A2, action=BAD)
        put(node, "sound", timeout=100_000)
        await stores.commands.claim([A1])  # this agent asks here
        with trio.fail_after(60):
            assert await stores.commands.wait_news() == {A1}
        assert ids(await stores.commands.claim([A1])) == ["sound"]


async def test_it_is_shown_and_cancelled(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        put(node, "bad", action=BAD)
        with pytest.raises(DocumentUnreadable) as caught:
            await stores.commands.get("bad")
        assert caught.value.name == f"{INDEX}/bad"
        assert r"\udced" in caught.value.text
        cancelled = await stores.commands.cancel("bad")
        assert cancelled is not None
        assert cancelled.status == "failed"
        assert source(node, "bad")["command"]["status"] == "failed"
        assert source(node, "bad")["command"]["action"] == BAD


async def test_a_report_on_it_counts(autojump_clock: MockClock) -> None:
    """Another program may have delivered it."""
    async with fake() as node, stores_of(node) as stores:
        put(node, "bad", action=BAD, status="sent")
        (result,) = await stores.commands.report([CommandReport(A1, "bad", CommandResult(0, "done"))])
        assert (result.status, result.result) == (200, "updated")
        assert source(node, "bad")["command"]["status"] == "success"


async def test_an_agent_costs_its_own_log_in_alone(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with fake() as node, stores_of(node, revocation=5.0) as stores:
        await stores.agents.add(AGENT)
        await stores.agents.add(OTHER)
        spoiled = source(node, A1, "wazuh-agents")
        spoiled["agent"]["host"] = {"hostname": "\udced"}
        node.indices["wazuh-agents"].write(A1, json.dumps(spoiled).encode())
        found: dict[str, object] = {}

        async def get(agent_id: str) -> None:
            try:
                found[agent_id] = await stores.agents.get(agent_id)
            except BackendUnavailable as exc:
                found[agent_id] = type(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, A1)
            nursery.start_soon(get, A2)
        assert found == {A1: DocumentUnreadable, A2: OTHER}
        await trio.sleep(60)
        assert await stores.agents.lookup(A1) == AGENT  # which was known; it has its token
        assert await stores.agents.revoked({A1: AGENT.fingerprint}) == []
        assert await stores.agents.list() == [OTHER]
        assert list(await stores.agents.members("all")) == [A1, A2]
        assert [line.split(":")[0] for line in warnings(caplog)] == [f"wazuh-agents/{A1} can't be read"]
        # the registry isn't away: what happens to others is seen
        await stores.agents.remove(A2)
        assert await stores.agents.lookup(A2) is None
        assert await stores.agents.remove(A1)
        assert await stores.agents.get(A1) is None


@pytest.mark.parametrize("written", [{"agent": "no object"}, {"agent": {"last_login": {}, "status": "active"}}, {}])
async def test_presence_passes_over_what_is_no_agent(written: Any, autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node, disconnected_after=60.0) as stores:
        await stores.agents.add(evolve(AGENT, status="active", last_login=1.0))
        node.index("wazuh-agents").write("other", json.dumps(written).encode())
        await trio.sleep(120)
        assert source(node, A1, "wazuh-agents")["agent"]["status"] == "disconnected"


async def test_a_group_whose_children_are_refused_holds_up_no_other(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(evolve(AGENT, groups=("web",)))
        too_long = "x" * 500  # its children's ids can't be
        put(node, too_long, target={"type": "group", "id": "web"})
        put(node, "fine", target={"type": "group", "id": "web"})
        with trio.fail_after(30):
            assert await stores.commands.wait_news() == {A1}
        assert ids(await stores.commands.claim([A1])) == [f"fine_{A1}"]
        assert source(node, too_long)["command"]["status"] == "failed"
        assert "can't be expanded" in source(node, too_long)["command"]["result"]["message"]
        assert len(warnings(caplog)) == 1


async def test_a_command_that_never_ends_is_one(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(evolve(AGENT, groups=("web",)))
        put(node, "long", target={"type": "group", "id": "web"}, timeout=1e300)
        with trio.fail_after(30):
            assert await stores.commands.wait_news() == {A1}
        (claimed,) = await stores.commands.claim([A1])
        assert len(to_iso(claimed.created_at + claimed.timeout)) == 24
        assert ids(await stores.commands.add([command("mine", A2)])) == ["mine"]


async def test_a_state_document_is_other_content(autojump_clock: MockClock) -> None:
    """A create that meets it isn't held up by what can't be compared."""
    async with fake() as node, stores_of(node) as stores:
        node.index("wazuh-states-fim").write("x", rb'{"s":"\udced"}')
        node.index("wazuh-states-fim").write("y", b'{"n":1}')
        operations = [DocumentOperation("create", "wazuh-states-fim", name, b'{"n":1}') for name in "xyz"]
        results = await stores.events.bulk(operations)
        assert [result.status for result in results] == [409, 200, 201]
        assert await stores.events.get("wazuh-states-fim", "x") == rb'{"s": "\udced"}'


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"agent": {"key": ["hash-2"]}}, "its `agent.key` is no text"),
        ({"agent": {"key": 5}}, "its `agent.key` is no text"),
        ({"agent": [{"key": "hash-2"}]}, "it has no object `agent`"),
        ({"agent.key": "hash-2"}, "it has no object `agent`"),
        ({}, "it has no object `agent`"),
    ],
)
async def test_an_agent_that_is_there_is_never_said_not_to_be(
    written: Any, why: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that hears that it doesn't exist ends."""
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        await stores.agents.add(OTHER)
        assert await stores.agents.lookup(A1) == AGENT
        node.indices["wazuh-agents"].write(A1, json.dumps(written).encode())
        with pytest.raises(DocumentUnreadable, match=why) as caught:
            await stores.agents.get(A1)
        assert "hash-2" not in caught.value.text
        await trio.sleep(60)
        assert await stores.agents.lookup(A1) == AGENT  # which was known; it has its token
        assert await stores.agents.list() == [OTHER]
        assert warnings(caplog) == [f"wazuh-agents/{A1} can't be read: {why}; it is passed over"]


async def test_a_pending_command_that_is_none_is_named(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A search finds it, and nobody is offered it."""
    async with fake() as node, stores_of(node) as stores:
        put(node, "listed", status=["pending"])
        node.index(INDEX).write("list", b'{"command":[{"status":"pending"}]}')
        put(node, "sound")
        with trio.fail_after(30):
            assert await stores.commands.wait_news() == {A1}
        assert ids(await stores.commands.claim([A1])) == ["sound"]
        assert sorted(warnings(caplog)) == [
            f"{INDEX}/list can't be read: it has no object `command`; it is passed over",
            f"{INDEX}/listed can't be read: its `command.status` is no text; it is passed over",
        ]
