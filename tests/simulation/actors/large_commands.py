"""An operator, or a server of commands, that sends an agent more at once than one reply holds: it comes in several, and
what fits into none ends with that as its reason."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.operators import begin, insist
from wazuh_comms_trio.backends.interfaces import Action, Command, Target

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["run_large_commands"]


async def run_large_commands(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} large commands")
    limit = world.plan.limits["LARGEST_REPLY"]
    number = order = 0
    has_order_within = world.plan.stores != "indexer"  # of one call's commands, which have one time
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(0.15))
        agent, timeout = rng.choice(world.agents), rng.choice([60.0, 600.0])
        commands, lives = [], []
        order += 1
        for _ in range(rng.choice([1, 3, 6, 12])):
            number += 1
            size = rng.choice([0, 0, limit // 4, limit // 2, limit - 300, limit + 1])
            life = begin(world, f"l{number}", agent, timeout, posted=False)
            life.number, life.too_large = number if has_order_within else order, size > limit
            lives.append(life)
            action = Action("restart", args={"text": "x" * size})
            commands.append(
                Command(document_id=f"l{number}", target=Target("agent", agent.uuid), action=action, timeout=timeout)
            )
        await insist(partial(world.stores.tool.add, commands))
        for life in lives:
            life.added = trio.current_time()
        world.trace.strike("large", f"{len(commands)} commands", agent.name)
