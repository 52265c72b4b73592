"""Another version of the program is put onto the nodes, one after the other: by a reload, whose workers serve beside
those of before, or by a stop; and the one before comes back, onto what the other one has written."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.nodes.versions import VERSIONS

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Node
    from tests.simulation.world import World

__all__ = ["run_upgrades"]


async def run_upgrades(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} upgrades")
    place = VERSIONS.index(world.nodes[0].version)
    while True:
        await trio.sleep(rng.uniform(2.0, until / 2))
        if trio.current_time() > until:
            return
        place = rng.choice([each for each in (place - 1, place + 1) if 0 <= each < len(VERSIONS)])
        for node in world.nodes:
            node.version = VERSIONS[place]
            world.trace.strike("another version", node.version, node.name)
            await _bring_in(world, node, rng)
            await trio.sleep(rng.uniform(0.0, 3.0))


async def _bring_in(world: World, node: Node, rng: Random) -> None:
    how = rng.random()
    if how < 0.5:
        await node.reload()
    elif how < 0.8 and node.is_up:
        world.stops_node()
        node.pause = rng.uniform(0.2, 3.0)
        node.stop()
    # Else it has what its workers come with when they are started again.
