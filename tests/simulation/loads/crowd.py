"""A crowd: many agents log in for the first time at the same moment, as after an outage, and each key takes a while.
Those whose turn would come too late are told to come back; none waits beyond its time, and all come in."""

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
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Crowd"]

_SIZES: Final = (20, 60)
#: Seconds after which an agent comes again that wasn't answered 200.
_COME_BACK: Final = 30.0


class Newcomer(SimClient):
    """It isn't refused, and may be told to come back."""

    def _check(self, place: str, reply: Reply, refusable: bool) -> None:
        if reply.status != 503:
            super()._check(place, reply, refusable)


class Crowd:
    """``left``: those that aren't in yet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.left: set[str] = set()

    async def come(self, until: float) -> None:
        world = self._world
        rng = Random(f"{world.plan.seed} crowd")
        agents = [
            Agent(str(UUID(int=rng.getrandbits(128), version=4)), f"crowd{number}", world.key_hash)
            for number in range(rng.choice(_SIZES))
        ]
        for agent in agents:
            await insist(partial(self._add, agent))
        await trio.sleep_until(rng.uniform(0.2, 0.9) * until)
        self.left.update(agent.name for agent in agents)
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(self._log_in, agent, rng.uniform(0.0, 1.0))

    async def _add(self, agent: Agent) -> None:
        with suppress(AgentExists):  # the answer was lost
            await self._world.stores.add_agent(agent)

    async def _log_in(self, agent: Agent, delay: float) -> None:
        client = Newcomer(self._world, agent.name, agent.id, KEYS[0], first_token=None, chunked=False)
        await trio.sleep(delay)
        status = 0
        while status != 200:
            with suppress(ExchangeFailed):
                status = (await client.authenticate()).status
                self._world.trace.strike("crowd", f"{status}", "log-in")
            if status != 200:
                await trio.sleep(_COME_BACK)
        self.left.remove(agent.name)
