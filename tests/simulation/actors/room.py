"""Who fills the quarantine, an operator who makes room where an agent has filled its share of it or others have filled
the whole, and what an agent is told then."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import UUID

import trio

from tests.simulation.actors.operators import insist
from tests.simulation.trace import Violation
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import AGENT_SHARE, OVERHEAD_BYTES, Rejected, size_of

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Fillers", "is_no_room", "run_room_maker"]

#: Bytes of an entry beside payload and overhead: the metadata line, the reason.
_ROUND: Final = 450
#: Bytes that others leave of the whole: of one body or two of which nothing can be taken.
_LEFT: Final = (500, 6000)
#: Seconds until all nodes have their quarantines, and between an operator's looks at whether it is full.
_BEGINS: Final = 1.0
_LOOKS: Final = (4.0, 15.0)


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


class Fillers:
    """Other agents, whose events fill the whole quarantine: nothing of theirs goes but what the operator drops."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = Random(f"{world.plan.seed} fillers")
        #: By agent, what each quarantine has of it.
        self._kept: dict[str, bytes] = {}

    async def run(self) -> None:
        """Until cancelled."""
        world, rng = self._world, self._rng
        await trio.sleep(_BEGINS)
        limit = world.plan.quarantine
        await self._fill(limit - rng.randint(*_LEFT))
        while self._kept:
            await trio.sleep(rng.uniform(*_LOOKS) if world.faults_ended is None else 0.5)
            if max(world.stores.quarantine_used(None), default=0) < limit * 0.9 and world.faults_ended is None:
                continue
            agent_id = rng.choice(list(self._kept))
            payload = self._kept.pop(agent_id)
            dropped = await insist(partial(world.stores.drop_quarantined, agent_id))
            if any(each != payload for each in dropped):
                raise Violation("quarantine", f"of another's entries {dropped} were dropped")
            world.trace.strike("full quarantine", "dropped", agent_id[:8])
            world.room_made_at = trio.current_time()

    async def _fill(self, most: int) -> None:
        share = self._world.plan.quarantine // AGENT_SHARE
        used = 0
        while most - used > OVERHEAD_BYTES + _ROUND:
            agent_id = str(UUID(int=self._rng.getrandbits(128), version=4))
            payload = b'{"id":"filler","module":"fim","operation":"create"}\n{"text":"poison\xff'
            payload += b"x" * (min(share, most - used) - OVERHEAD_BYTES - _ROUND) + b'"}'
            rejected = Rejected(agent_id, "stateful", "another's", b'{"agent":{}}', payload)
            used += size_of(rejected, len(payload))
            await insist(partial(self._world.stores.quarantine, [rejected]))
            self._kept[agent_id] = payload
        self._world.trace.strike("full quarantine", "filled", f"{used} bytes")

    def check(self, quarantined: Sequence[tuple[str, bytes]]) -> None:
        """At any time: what nobody has dropped is there."""
        there = {agent_id for agent_id, _ in quarantined}
        if gone := self._kept.keys() - there:
            raise Violation("quarantine", f"what {sorted(gone)} have there is gone, and nobody has dropped it")


def is_no_room(world: World, agent_id: str, place: str, body: bytes, since: float) -> bool:
    """May what can never be taken of this body find no room? No entry that would exceed the agent's own share, or the
    whole, at this moment or since the request began."""
    refusable = body.count(b"poison") + body.count(b'"module":"command"')
    if world.plan.features.global_ids:  # what is there already, or isn't, also its own that comes again
        refusable = max(refusable, body.count(b'"operation"'))
    if not refusable or not place.startswith("POST events"):
        return False
    if world.room_made_at >= since:
        return True
    needed = len(body) + refusable * (OVERHEAD_BYTES + _ROUND)
    whole = world.plan.quarantine
    return any(used + needed > whole // AGENT_SHARE for used in world.stores.quarantine_used(agent_id)) or any(
        used + needed > whole for used in world.stores.quarantine_used(None)
    )
