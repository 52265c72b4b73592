"""The registry that processes share on memory stores: each of them learns what others have changed."""

from __future__ import annotations

from tests.simulation.stores.memory import SharedAgents
from wazuh_comms_trio.backends.interfaces import Agent


async def test_each_process_is_told_once_of_an_agent_that_has_changed() -> None:
    registry = SharedAgents()
    await registry.add(Agent("a", "agent", "hash"))
    with registry.opened() as one, registry.opened() as other:
        await one.rekey("a", "another hash")
        assert await one.changed() == {"a"}
        assert await other.changed() == {"a"}
        assert await one.changed() == set()
        await registry.remove("a")  # by the operator's tool
        assert await other.changed() == {"a"}
        assert await one.changed() == {"a"}
