"""Who has the key that an agent had before: it isn't the agent any more, from the moment on at which the operator was
told so."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.client import SimClient
from tests.simulation.actors.keys import KEYS
from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["run_earlier_keys"]


class _Earlier(SimClient):
    """Whatever it is refused is right."""

    def _check(self, place: str, reply: object, refusable: bool) -> None: ...


async def run_earlier_keys(world: World, until: float) -> None:
    """Tries to log in with such a key again and again."""
    rng = Random(f"{world.plan.seed} earlier keys")
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(1.0))
        agent = rng.choice(world.agents)
        own, before = agent.client, agent.client.keys
        if not before or own.is_being_rekeyed:
            continue
        intruder = _Earlier(world, "earlier", agent.uuid, KEYS[(before - 1) % 2], first_token=None, chunked=False)
        with suppress(ExchangeFailed):
            reply = await intruder.authenticate()
            same = own.keys == before and not own.is_being_rekeyed
            world.trace.strike("earlier key", f"{reply.status}", agent.name)
            if reply.status == 200 and same:
                raise Violation("revoked", f"somebody logged in as {agent.name} with its earlier key")
