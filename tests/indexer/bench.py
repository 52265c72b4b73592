"""What tests on the fake OpenSearch and the mock clock start from."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
A2 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"
EPOCH = 1_750_000_000.0


def wall_clock() -> float:
    """Goes with the mock clock."""
    return EPOCH + trio.current_time()


@asynccontextmanager
async def fakes(*names: str) -> AsyncIterator[dict[str, FakeOpenSearch]]:
    """Several nodes, each of its own: for what the client does, not for what a cluster does."""
    async with trio.open_nursery() as nursery:
        yield {name: FakeOpenSearch(nursery) for name in names}
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(nodes: dict[str, FakeOpenSearch], **settings: Any) -> AsyncIterator[OpenSearchClient]:
    async def connect(host: str, port: int) -> trio.abc.Stream:
        return await nodes[host].connect(host, port)

    indexer = Indexer(hosts=tuple(map(IndexerHost, nodes)), **settings)
    async with OpenSearchClient(indexer, connect=connect, rng=random.Random(1)) as client:
        yield client


@asynccontextmanager
async def fake() -> AsyncIterator[FakeOpenSearch]:
    async with fakes("node") as nodes:
        yield nodes["node"]


@asynccontextmanager
async def stores_of(
    node: FakeOpenSearch,
    *,
    revocation: float = 10.0,
    leadership: Leadership | None = None,
    key: str | None = None,
    wall_clock: Callable[[], float] = wall_clock,
    **settings: Any,
) -> AsyncIterator[OpenSearchStores]:
    indexer = Indexer(hosts=(IndexerHost("node"),), **settings)
    async with open_opensearch(
        indexer,
        revocation=revocation,
        wall_clock=wall_clock,
        rng=random.Random(1),
        connect=node.connect,
        leadership=leadership,
        node=None if key is None else LocalNode("this", "this", key),
    ) as stores:
        yield stores
        assert node.unlimited == []


async def ask(client: OpenSearchClient, count: int = 1) -> int:
    """How many of so many requests, one after the other, were answered."""
    answered = 0
    for _ in range(count):
        try:
            await client.json("GET", "/")
            answered += 1
        except IndexerUnavailable:
            pass
    return answered
