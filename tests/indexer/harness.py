"""The contract suite's harness for `backend: wazuh`: a real OpenSearch, and an engine of the tests."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.contract.harness import Clock, Harness, until_it_works
from tests.engine.fake import fake_engine
from tests.indexer.cluster import shared_node
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.proxy import proxy
from wazuh_comms_trio.backends.engine.client import UnixEngine
from wazuh_comms_trio.backends.event_lines import find_bad_line
from wazuh_comms_trio.backends.files.folder import FolderFiles
from wazuh_comms_trio.backends.interfaces import Backends, Engine, FileStore
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import EngineClient, Indexer, IndexerCommands, IndexerHost
from wazuh_comms_trio.errors import BackendUnavailable

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
    call(port, "DELETE", "/_template/*")


async def refresh(stores: OpenSearchStores) -> None:
    """Of the indices of ours whose searches nobody refreshes."""
    for index in ("wazuh-agents", "wazuh-comms-presence"):
        if (await stores.client.request("HEAD", f"/{index}")).status == 200:
            await stores.client.json("POST", f"/{index}/_refresh")


class NotedEngine(UnixEngine):
    """Knows whose bodies were taken, in the order they were."""

    def __init__(self, settings: EngineClient) -> None:
        super().__init__(settings)
        self.senders: list[str] = []

    async def send_events(self, body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
        await super().send_events(body, agent_id=agent_id, length=length)
        self.senders.append(agent_id)


def as_backends(stores: OpenSearchStores, engine: Engine, files: FileStore) -> Backends:
    return Backends(stores.agents, stores.events, stores.commands, engine, files, stores.presence)


def settings(port: int, **more: Any) -> Indexer:
    hosts = (IndexerHost("127.0.0.1", port),)
    return Indexer(hosts=hosts, commands=IndexerCommands(interval=0.2, idle_interval=0.5, lease=2.0), **more)


@asynccontextmanager
async def open_real(folder: Path) -> AsyncIterator[Harness]:
    """An indexer that is shared, and wiped; an engine of its own."""
    node = shared_node().port
    wipe(node)
    call(node, "PUT", "/_index_template/contract", UNINDEXED)
    clock = Clock()
    names = folder / "files"
    names.mkdir()
    async with proxy(node) as between, fake_engine(folder, judge=find_bad_line) as fake:
        engine = NotedEngine(EngineClient(fake.path, retries=0))

        @asynccontextmanager
        async def second() -> AsyncIterator[Backends]:
            async with open_opensearch(settings(node), wall_clock=clock, revocation=0.3) as stores:
                yield as_backends(stores, engine, FolderFiles(names))

        @asynccontextmanager
        async def outage() -> AsyncIterator[None]:
            between.switch("refuse")
            fake.status = 503
            yield
            between.switch("pass")
            fake.status = 204
            await until_it_works(lambda: stores.client.json("GET", "/"))

        def put_file(name: str, content: bytes | None) -> None:
            if content is None:
                (names / name).mkdir()
            else:
                (names / name).write_bytes(content)

        async with open_opensearch(settings(between.port), wall_clock=clock, revocation=0.3) as stores:
            yield Harness(
                "wazuh",
                as_backends(stores, engine, FolderFiles(names)),
                clock,
                settle=stores.agents.flush_logins,
                refreshed=partial(refresh, stores),
                outage=outage,
                second=second,
                put_file=put_file,
                taken=lambda: [
                    (sender, body) for sender, (_, _, body) in zip(engine.senders, fake.requests, strict=True)
                ],
                notice=0.3,
            )
            await engine.aclose()


@asynccontextmanager
async def open_fake(folder: Path) -> AsyncIterator[Harness]:
    """The fake OpenSearch in the real one's place, in memory."""
    clock = Clock()
    async with trio.open_nursery() as nursery:
        fake = FakeOpenSearch(nursery)

        @asynccontextmanager
        async def stores() -> AsyncIterator[OpenSearchStores]:
            async with open_opensearch(
                settings(9200), wall_clock=clock, revocation=0.3, connect=fake.connect
            ) as opened:
                yield opened

        @asynccontextmanager
        async def second() -> AsyncIterator[Backends]:
            async with stores() as others:
                yield as_backends(others, memory.engine, memory.files)

        @asynccontextmanager
        async def outage() -> AsyncIterator[None]:
            fake.go_down()
            memory.engine.faults.error = BackendUnavailable()
            yield
            memory.engine.faults.error = None
            fake.up = True
            await until_it_works(lambda: opened.client.json("GET", "/"))

        memory = memory_backends()
        async with stores() as opened:
            yield Harness(
                "fake-wazuh",
                as_backends(opened, memory.engine, memory.files),
                clock,
                settle=opened.agents.flush_logins,
                refreshed=partial(refresh, opened),
                outage=outage,
                second=second,
                notice=0.3,
            )
        nursery.cancel_scope.cancel()
