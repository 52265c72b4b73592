"""Commands in a real OpenSearch that don't lie where their ids have them: routed by their writers, behind aliases, in
closed indices."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import trio

from tests.indexer import cbor
from tests.indexer.harness import call, settings
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.backends.opensearch.admin.check import check_indexer
from wazuh_comms_trio.backends.opensearch.admin.unreadable import find_unreadable, get_document, remove_unreadable
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.backends.opensearch.templates import index_body
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.timestamps import to_iso

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
NAME = "wazuh-commands"


def make(port: int, index: str, shards: int = 1) -> None:
    body = index_body("commands")
    call(port, "PUT", f"/{index}", {**body, "settings": {"number_of_shards": shards, "number_of_replicas": 0}})


def command(agent_id: str = A1, **more: Any) -> dict[str, Any]:
    fields = {"status": "pending", "target": {"type": "agent", "id": agent_id}, "action": {"name": "restart"}}
    return {"@timestamp": to_iso(time.time()), "command": {**fields, "timeout": 1000, **more}}


async def problems(port: int, what: str) -> list[str]:
    return [f.text async for f in check_indexer(settings(port)) if f.level == "problem" and f.what == what]


async def go_through(stores: OpenSearchStores, *ids: str) -> None:
    """Each is found, claimed, delivered, reported on and shown."""
    commands = stores.commands
    with trio.fail_after(15):
        assert await commands.wait_news() == {A1}
    claimed = await commands.claim([A1])
    assert {each.document_id for each in claimed} == set(ids)
    await commands.mark_sent(ids)
    for each in ids:
        (result,) = await commands.report([CommandReport(A1, each, CommandResult(0, "done"))])
        assert (result.status, result.result) == (200, "updated")
        found = await commands.get(each)
        assert found is not None
        assert found.status == "success"


async def test_routed_by_their_writers(port: int) -> None:
    make(port, NAME, shards=5)
    ids = [f"c{number}" for number in range(10)]
    for each in ids:
        call(port, "PUT", f"/{NAME}/_doc/{each}?routing=r{each}", command())
    async with open_opensearch(settings(port)) as stores:
        await go_through(stores, *ids)
        call(port, "PUT", f"/{NAME}/_doc/late?routing=x", command())
        cancelled = await stores.commands.cancel("late")
        assert cancelled is not None
        assert cancelled.status == "failed"
        assert await stores.commands.get("nothing") is None
        (result,) = await stores.commands.report([CommandReport(A1, "nothing", CommandResult(0, "done"))])
        assert result.status == 404
        assert call(port, "GET", f"/{NAME}/_count")["count"] == 11  # nothing was doubled
    async with OpenSearchClient(settings(port)) as client:
        call(port, "PUT", f"/{NAME}/_doc/bad?routing=y&refresh=true", {"no": "command"})
        (found,) = [
            each
            async for each in find_unreadable(
                client, NAME, find_problem=lambda source: None if "command" in source else "none"
            )
        ]
        shown = await get_document(client, NAME, found.id)
        assert shown is not None
        assert await remove_unreadable(client, shown)
        assert await get_document(client, NAME, found.id) is None


async def test_behind_an_alias_of_several(port: int) -> None:
    for index in ("commands-1", "commands-2"):
        make(port, index)
    actions = [{"add": {"index": f"commands-{n}", "alias": NAME, "is_write_index": n == 2}} for n in (1, 2)]
    call(port, "POST", "/_aliases", {"actions": actions})
    call(port, "PUT", "/commands-1/_doc/old", command())
    cbor.put(port, "commands-1", "bad", command(action={"name": "restart", "args": cbor.NOT_GIVEN["bytes"]}))
    async with open_opensearch(settings(port)) as stores:
        made = Command("new", Target("agent", A1), Action("restart"), timeout=1000)
        again = Command("old", Target("agent", A1), Action("restart"), timeout=1000)
        assert {each.document_id for each in await stores.commands.add([made, again])} == {"new", "old"}
        assert call(port, "GET", "/commands-2/_doc/old")["found"] is False
        await go_through(stores, "new", "old")
        assert call(port, "GET", "/commands-1/_doc/old")["_source"]["command"]["status"] == "success"
        cancelled = await stores.commands.cancel("bad")
        assert cancelled is not None
        assert cancelled.status == "failed"
        assert call(port, "GET", "/commands-1/_doc/bad")["found"]
        assert call(port, "GET", "/commands-2/_doc/bad")["found"] is False
    assert await problems(port, "commands index") == []


async def test_an_alias_without_an_index_to_write_to(port: int) -> None:
    for index in ("commands-1", "commands-2"):
        make(port, index)
    call(port, "POST", "/_aliases", {"actions": [{"add": {"indices": ["commands-1", "commands-2"], "alias": NAME}}]})
    call(port, "PUT", "/commands-1/_doc/c1", command())
    async with open_opensearch(settings(port)) as stores:
        await go_through(stores, "c1")
    (text,) = await problems(port, "commands index")
    assert "no write index" in text


async def test_agents_behind_an_alias_of_several(port: int) -> None:
    """An agent is read by its id in real time, which one index alone can give."""
    for index in ("agents-1", "agents-2"):
        call(port, "PUT", f"/{index}", index_body("agents"))
    call(
        port,
        "POST",
        "/_aliases",
        {"actions": [{"add": {"indices": ["agents-1", "agents-2"], "alias": "wazuh-agents"}}]},
    )
    async with open_opensearch(settings(port)) as stores:
        with pytest.raises(BackendUnavailable, match="more than one ind"):
            await stores.agents.get(A1)
    texts = await problems(port, "agents index")
    assert any("several indices" in text for text in texts)


async def test_agents_behind_an_alias_of_one(port: int) -> None:
    call(port, "PUT", "/agents-1", {**index_body("agents"), "aliases": {"wazuh-agents": {}}})
    async with open_opensearch(settings(port)) as stores:
        agent = Agent(A1, "a1", "hash")
        await stores.agents.add(agent)
        assert await stores.agents.get(A1) == agent
    assert await problems(port, "agents index") == []


async def test_a_closed_index(port: int, caplog: pytest.LogCaptureFixture) -> None:
    make(port, NAME)
    call(port, "POST", f"/{NAME}/_close")
    async with open_opensearch(settings(port)) as stores:
        agent = Agent(A1, "a1", "hash")
        await stores.agents.add(agent)
        with pytest.raises(BackendUnavailable, match="closed"):
            await stores.commands.list()
        with trio.move_on_after(2):
            await stores.commands.wait_news()
        assert await stores.agents.get(A1) == agent
        lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "closed" in r.getMessage()]
        assert len(lines) == 1
        texts = await problems(port, "commands index")
        assert texts
        assert all("closed" in text for text in texts)
        call(port, "POST", f"/{NAME}/_open")
        call(port, "PUT", f"/{NAME}/_doc/c1", command())
        await go_through(stores, "c1")


async def test_a_command_that_no_agent_takes_ends(port: int) -> None:
    """As the service ends one that another program wrote: it is claimed, reported on, and given back."""
    make(port, NAME)
    call(port, "PUT", f"/{NAME}/_doc/huge", command(action={"name": "restart", "args": {"x": "y" * 9_000_000}}))
    async with open_opensearch(settings(port)) as stores:
        commands = stores.commands
        with trio.fail_after(15):
            assert await commands.wait_news() == {A1}
        assert [each.document_id for each in await commands.claim([A1])] == ["huge"]
        (result,) = await commands.report([CommandReport(A1, "huge", CommandResult(1, "too large"))])
        assert result.status == 200
        await commands.release(["huge"])
        found = await commands.get("huge")
        assert found is not None
        assert (found.status, found.result) == ("failed", CommandResult(1, "too large"))
        assert await commands.claim([A1]) == []
