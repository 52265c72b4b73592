"""An agent that asks far more often than it may: it is told to come back, and nobody else is who keeps to its rate."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import UUID

import trio

from tests.simulation.actors.client import SimClient
from tests.simulation.actors.keys import KEYS
from tests.simulation.actors.operators import insist
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.errors import AgentExists
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Floods"]

#: Requests at once, and seconds between two such floods.
_AT_ONCE: Final = 60
_EACH: Final = 4.0


class Floods:
    """Who asks too often is refused no more than what is too often."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self, until: float) -> None:
        """Floods nodes with requests for a file."""
        world = self._world
        rng = Random(f"{world.plan.seed} floods")
        agent = Agent(str(UUID(int=rng.getrandbits(128), version=4)), "flooder", world.key_hash)
        await insist(partial(self._add, agent))
        client = SimClient(world, agent.name, agent.id, KEYS[0], first_token=None, chunked=False)
        while trio.current_time() < until:
            if client.token is None:
                with suppress(ExchangeFailed):
                    await client.authenticate()
            async with trio.open_nursery() as nursery:
                for _ in range(_AT_ONCE if client.token is not None else 0):
                    nursery.start_soon(self._ask, client)
            await trio.sleep(rng.uniform(0.5, 1.5) * _EACH)

    async def _add(self, agent: Agent) -> None:
        with suppress(AgentExists):  # the answer was lost
            await self._world.stores.add_agent(agent)

    async def _ask(self, client: SimClient) -> None:
        with suppress(ExchangeFailed):
            reply = await client.get_file("default.conf")
            if reply.status in (401, 403):
                client.token = None
            self._world.trace.strike("flood", f"{reply.status}", "files")
