"""Once faults are over: an agent is in the groups that it was given last; one that has left a group isn't given the
group's files any more, whatever the workers remember of it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.actors.groups import set_group
from tests.simulation.actors.keys import REVOCATION
from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.nodes.node import Node
    from tests.simulation.world import World

__all__ = ["check_last_groups", "check_left_groups"]

#: Seconds within which an agent takes a command, and a generation of workers replaces another.
_TAKEN_BOUND: Final = 120.0
_REPLACED_BOUND: Final = 60.0
_MOST: Final = 2


async def check_last_groups(world: World) -> None:
    """Everything is served. Which of two deliveries was the last nobody knows of what came twice, since a process had
    died, nor where two programs take an agent's commands."""
    if not world.stores.keeps_posted or world.plan.features.upgrades:  # a version before notes what it is told
        return
    groups = await world.stores.groups()
    twice = {life.document_id for life in world.commands.values() if life.excused or len(life.received) > 1}
    for agent in world.agents:
        came = agent.groups.came
        unsure = any(change.document_id in twice | world.stores.excused for change in came)
        if not came or unsure or agent.copy is not None or agent.thieves or agent.away or agent in world.at_once.twice:
            continue
        if (now := frozenset(groups[agent.uuid])) != came[-1].groups:
            raise Violation("last groups", f"{agent.name} was told to go to {came[-1]}, and is in {sorted(now)}")


async def check_left_groups(world: World) -> None:
    """Some agents go to a group; new workers learn that they are in it; then they leave it."""
    agents = Random(f"{world.plan.seed} left groups").sample(world.agents, min(_MOST, len(world.agents)))
    for agent in agents:
        await _go(world, agent, ["web"])
    for node in world.nodes:
        await _replace_workers(node)
    for agent in agents:
        if 404 in await _ask(world, agent):
            raise Violation("own files", f"{agent.name} is in web and isn't given its file")
    for agent in agents:
        await _go(world, agent, [])
    await trio.sleep(REVOCATION)
    for agent in agents:
        if 200 in await _ask(world, agent):
            raise Violation("own files", f"{agent.name} left web long ago and is given its file")


async def _go(world: World, agent: SimAgent, groups: list[str]) -> None:
    await set_group(world, agent, groups, f"settled{len(groups)}{agent.name}", 600.0)
    with trio.move_on_after(_TAKEN_BOUND):
        while list((await world.stores.groups()).get(agent.uuid, groups)) != groups:  # noqa: ASYNC110
            await trio.sleep(0.5)
        return
    raise Violation("liveness", f"{agent.name} didn't go to {groups} in {_TAKEN_BOUND:.0f} s")


async def _replace_workers(node: Node) -> None:
    with trio.move_on_after(_REPLACED_BOUND):
        while not await node.reload_by_tool():  # noqa: ASYNC110
            await trio.sleep(0.5)
        while any(process.reading != node.reading for process in node.running):  # noqa: ASYNC110
            await trio.sleep(0.5)


async def _ask(world: World, agent: SimAgent) -> set[int]:
    """What each worker, or most of them, answers."""
    statuses = set()
    for _ in range(3 * world.plan.nodes * world.plan.workers):
        try:
            statuses.add((await agent.client.get_file("web.yml")).status)
        except ExchangeFailed:
            continue
    return statuses
