"""Which other nodes write to the same cluster."""

from __future__ import annotations

from trio.testing import MockClock

from tests.indexer.bench import fake, stores_of
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.node_registry import other_nodes
from wazuh_comms_trio.backends.opensearch.node_watch import NodeWatch

NOW = 1_750_000_000.0


async def test_nodes_that_gave_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        assert await other_nodes(stores.client, "me", NOW) == []
        for name, seen in (("me", NOW), ("second", NOW - 200), ("third", NOW - 100), ("gone", NOW - 400)):
            await NodeWatch(stores.client, LocalNode(name, f"{name}:27000", "k"), lambda seen=seen: seen).look()
        assert await other_nodes(stores.client, "me", NOW) == ["second:27000", "third:27000"]
        assert await other_nodes(stores.client, "nobody", NOW) == ["me:27000", "second:27000", "third:27000"]
