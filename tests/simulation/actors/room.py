"""An operator who makes room where an agent has filled its share of the quarantine, and what such an agent is told."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.operators import insist
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import AGENT_SHARE, OVERHEAD_BYTES

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["is_share_full", "run_room_maker"]

#: Bytes of an entry beside payload and overhead: the metadata line, the reason.
_ROUND = 450


async def run_room_maker(world: World) -> None:
    """Until cancelled. Once the index has healed what is kept is sent on; else it is dropped. At the end so much that
    one body finds room of which nothing can be taken."""
    rng = Random(f"{world.plan.seed} room")
    share = world.plan.quarantine // AGENT_SHARE
    while True:
        over = world.faults_ended is not None
        await trio.sleep(rng.uniform(0.3, 1.0) if over else rng.uniform(3.0, 12.0))
        for agent in world.agents:
            if max(world.stores.quarantine_used(agent.uuid), default=0) < share * (0.05 if over else 0.8):
                continue
            if world.plan.heals < trio.current_time() and not over:
                with suppress(BackendUnavailable):
                    await world.stores.replay(world)
                world.trace.strike("full share", "replayed", agent.name)
            else:
                dropped = await insist(partial(world.stores.drop_quarantined, agent.uuid))
                world.dropped += dropped
                world.trace.strike("full share", "dropped", f"{agent.name}, {len(dropped)}")
            world.room_made_at = trio.current_time()


def is_share_full(world: World, agent_id: str, body: bytes, since: float) -> bool:
    """May what can never be taken of this body find no room? No entry that would exceed the agent's own share, at this
    moment or since the request began."""
    if world.room_made_at >= since:
        return True
    refusable = body.count(b"poison") + body.count(b'"module":"command"')
    needed = len(body) + refusable * (OVERHEAD_BYTES + _ROUND)
    share = world.plan.quarantine // AGENT_SHARE
    return bool(refusable) and any(used + needed > share for used in world.stores.quarantine_used(agent_id))
