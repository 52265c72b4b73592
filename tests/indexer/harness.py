"""The contract suite's harness for a real OpenSearch."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.contract.harness import Clock, Harness, until_it_works
from tests.indexer.cluster import shared_node
from tests.indexer.proxy import proxy
from wazuh_comms_trio.backends.base import Backends
from wazuh_comms_trio.backends.memory_engine import MemoryEngine, MemoryFiles
from wazuh_comms_trio.backends.opensearch import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.models import Indexer, IndexerCommands, IndexerHost

#: Documents of the contract suite have values of every kind in the same field: kept, not indexed.
UNINDEXED = {
    "index_patterns": ["wazuh-states-*"],
    "priority": 500,
    "template": {"settings": {"number_of_replicas": 0}, "mappings": {"dynamic": False}},
}


def call(port: int, method: str, target: str, body: Any = None) -> Any:
    """A request of the test's own, not through the code under test."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        encoded = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, target, encoded, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
        assert reply.status < 500, (reply.status, content)
        return json.loads(content) if content else None
    finally:
        connection.close()


def wipe(port: int) -> None:
    """Everything that tests made."""
    call(port, "DELETE", "/*,.*?expand_wildcards=all")
    call(port, "DELETE", "/_index_template/*")


def as_backends(stores: OpenSearchStores) -> Backends:
    return Backends(stores.agents, stores.events, stores.commands, MemoryEngine(), MemoryFiles({}))


def settings(port: int, **more: Any) -> Indexer:
    hosts = (IndexerHost("127.0.0.1", port),)
    return Indexer(hosts=hosts, commands=IndexerCommands(interval=0.2, idle_interval=0.5, lease=2.0), **more)


@asynccontextmanager
async def open_real(folder: Path) -> AsyncIterator[Harness]:
    node = shared_node().port
    wipe(node)
    call(node, "PUT", "/_index_template/contract", UNINDEXED)
    clock = Clock()
    async with proxy(node) as between:

        @asynccontextmanager
        async def second() -> AsyncIterator[Backends]:
            async with open_opensearch(settings(node), wall_clock=clock, revocation=0.3) as stores:
                yield as_backends(stores)

        @asynccontextmanager
        async def outage() -> AsyncIterator[None]:
            between.switch("refuse")
            yield
            between.switch("pass")
            await until_it_works(lambda: stores.client.json("GET", "/"))

        async with open_opensearch(settings(between.port), wall_clock=clock, revocation=0.3) as stores:
            yield Harness(
                "opensearch",
                as_backends(stores),
                clock,
                settle=stores.agents.flush_logins,
                outage=outage,
                second=second,
                notice=0.3,
            )
