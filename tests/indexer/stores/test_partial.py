"""Indices of which a part is on no node: what is seen then is no answer, and what can't be written says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import trio

from tests.indexer.harness import call, settings
from wazuh_comms_trio.backends.interfaces import Action, Command, DocumentOperation, Outcome, Target
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.client import search as opensearch_search
from wazuh_comms_trio.backends.opensearch.client.bulk import QUERY, QUERY_VERSIONS
from wazuh_comms_trio.backends.opensearch.node_registry import INDEX as NODES
from wazuh_comms_trio.backends.opensearch.node_watch import NodeWatch
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.errors import BackendUnavailable

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
A2 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"


@pytest.fixture
async def stores(port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenSearchStores]:
    monkeypatch.setattr(opensearch_search, "_REFRESH_TIMEOUT", 0.5)
    # A claim's new fields, for which the indexer has the same time, take it longer on a busy machine.
    for query, wait in ((QUERY, "300ms"), (QUERY_VERSIONS, "3s")):
        monkeypatch.setitem(query, "timeout", wait)  # type: ignore[arg-type]  # a dictionary, in fact
    async with open_opensearch(settings(port), revocation=0.3) as opened:
        yield opened


def make_half(port: int, index: str, *, mappings: Any = None) -> None:
    """Two shards, of which the one node may have one."""
    place = {"number_of_shards": 2, "number_of_replicas": 0, "routing.allocation.total_shards_per_node": 1}
    call(port, "PUT", f"/{index}?wait_for_active_shards=0", {"settings": {"index": place}, "mappings": mappings or {}})
    call(port, "GET", f"/_cluster/health/{index}?wait_for_active_shards=1&timeout=20s")


def make_whole(port: int, index: str) -> None:
    call(port, "PUT", f"/{index}/_settings", {"index.routing.allocation.total_shards_per_node": -1})
    call(port, "GET", f"/_cluster/health/{index}?wait_for_status=green&timeout=20s")


def put(port: int, index: str, documents: Mapping[str, Any]) -> set[str]:
    """The ids of those whose shard is there."""
    lines = [
        json.dumps(line)
        for document_id, document in documents.items()
        for line in ({"index": {"_index": index, "_id": document_id}}, document)
    ]
    body = "\n".join([*lines, ""]).encode()
    items = [each["index"] for each in call(port, "POST", "/_bulk?timeout=1s&refresh=false", body)["items"]]
    assert {item["status"] for item in items} == {201, 503}, items
    return {item["_id"] for item in items if item["status"] == 201}


async def test_half_a_registry(port: int, stores: OpenSearchStores) -> None:
    """An agent that can't be read is not unknown, and half of the members are not the group."""
    make_half(port, "wazuh-agents", mappings={"properties": {"agent.groups": {"type": "keyword"}}})
    document = {"agent": {"name": "a", "key": "c2FsdA==", "groups": ["web"]}}
    documents = {str(uuid4()): document for _ in range(16)}
    there = put(port, "wazuh-agents", documents)
    for agent_id in documents:
        if agent_id in there:
            agent = await stores.agents.get(agent_id)
            assert agent is not None
            assert agent.name == "a"
        else:
            with pytest.raises(BackendUnavailable):
                await stores.agents.get(agent_id)
            with pytest.raises(BackendUnavailable):
                await stores.agents.lookup(agent_id)
    with pytest.raises(BackendUnavailable):
        await stores.agents.list()
    for group in ("web", "all"):
        with pytest.raises(BackendUnavailable):
            await stores.agents.members(group)
    with pytest.raises(BackendUnavailable):
        await stores.commands.add([Command("p", Target("group", "web"), Action("restart"))])
    make_whole(port, "wazuh-agents")
    assert len(await stores.agents.list()) == len(await stores.agents.members("web")) == len(there)


async def test_half_of_the_commands(port: int, stores: OpenSearchStores) -> None:
    make_half(port, "wazuh-commands")
    fields = {"status": "pending", "target": {"type": "agent", "id": A1}, "action": {"name": "restart"}, "timeout": 100}
    document = {"@timestamp": "2099-01-01T00:00:00.000Z", "command": fields}
    there = put(port, "wazuh-commands", dict.fromkeys(map(str, range(16)), document))
    with pytest.raises(BackendUnavailable):
        await stores.commands.list()
    with pytest.raises(BackendUnavailable):
        await stores.commands.expire()
    new = [Command(f"new{number}", Target("agent", A2), Action("restart")) for number in range(16)]
    with trio.fail_after(20), pytest.raises(BackendUnavailable):  # the indexer itself would wait for a minute
        await stores.commands.add(new)
    found = None
    with trio.move_on_after(2):  # several looks; none of them saw all
        found = await stores.commands.wait_news()
    assert found is None
    make_whole(port, "wazuh-commands")
    with trio.fail_after(10):
        assert A1 in await stores.commands.wait_news()
    claimed = await stores.commands.claim([A1])
    assert sorted(command.document_id for command in claimed) == sorted(there)


async def test_half_of_the_nodes(port: int, stores: OpenSearchStores) -> None:
    make_half(port, NODES)
    there = put(port, NODES, {f"n{n}": {"seen": 1_750_000_000_000, "key": "x", "name": f"n{n}"} for n in range(16)})
    watch = NodeWatch(stores.client, LocalNode(min(there), "me", "key"), lambda: 1_750_000_000.0)
    with pytest.raises(BackendUnavailable):
        await watch.look()


async def test_half_of_the_states(port: int, stores: OpenSearchStores) -> None:
    """Each item tells; the rest of the call is done."""
    index = "wazuh-states-fim"
    make_half(port, index)
    operations = [DocumentOperation("create", index, str(n), b'{"n":%d}' % n) for n in range(40)]
    with trio.fail_after(20):
        results = await stores.events.bulk(operations)
    assert {(result.status, result.outcome) for result in results} == {(201, Outcome.DONE), (503, Outcome.PASSING)}
    assert all("primary shard is not active" in result.result for result in results if result.status == 503)
    make_whole(port, index)
    again = await stores.events.bulk(operations)
    assert [result.status for result in again] == [200 if first.status == 201 else 201 for first in results]
