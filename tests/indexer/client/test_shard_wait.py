"""How long the indexer may wait for a shard that is on no node, before it answers a write: each says so."""

from __future__ import annotations

from trio.testing import MockClock

from tests.indexer.bench import A1, client_of, fake, stores_of
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.opensearch.admin.unreadable import remove_unreadable
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.templates import PRESENCE_INDEX

AGENT = Agent(A1, "a1", "hash-1")


async def test_removals_say_so(autojump_clock: MockClock) -> None:
    """So do the other writes: ``stores_of`` looks at those of all its tests."""
    async with fake() as node, stores_of(node) as stores, client_of({"node": node}) as client:
        node.index(PRESENCE_INDEX)
        await stores.agents.add(AGENT)
        assert await stores.agents.remove(A1)
        assert node.requests[-1] == ("DELETE", f"/{PRESENCE_INDEX}/_doc/{A1}")
        await stores.agents.add(AGENT)
        assert await remove_unreadable(client, Found(A1, "wazuh-agents"))
        assert node.unlimited == []
