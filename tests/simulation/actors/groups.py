"""The groups that agents are in: an operator changes them, and what follows from that, for files and for commands."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.client import UNREAD
from tests.simulation.actors.keys import REVOCATION
from tests.simulation.actors.operators import begin, insist
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.command_rules import SET_GROUP
from wazuh_comms_trio.backends.interfaces import Action, Command, Target

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.world import World

__all__ = ["check_fetched", "check_file", "run_group_changes", "set_group", "watch_groups"]


async def run_group_changes(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} groups")
    number = 0
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(0.25))
        number += 1
        agent, timeout, document_id = rng.choice(world.agents), rng.choice([60.0, 600.0]), f"s{number}"
        groups = rng.choice([[], ["web"], ["web2"], ["web", "web2"]])
        await set_group(world, agent, groups, document_id, timeout)
        if world.plan.features.crossed_notes:
            await trio.sleep(rng.uniform(0.3, 1.5))
            others = rng.choice([each for each in ([], ["web"], ["web2"]) if each != groups])
            await set_group(world, agent, others, f"{document_id}-2", timeout)


async def set_group(world: World, agent: SimAgent, groups: list[str], document_id: str, seconds: float) -> None:
    """``commands send --agent AGENT set-group``. With an indexer the server's own program writes it into the registry
    before."""
    change = agent.groups.begins(groups, document_id)
    if world.plan.stores == "indexer":
        if await insist(partial(world.stores.registry.set_groups, agent.uuid, groups)):
            agent.groups.see(groups)
        agent.groups.settle(change)
    life = begin(world, document_id, agent, seconds, posted=False)
    action, target = Action(SET_GROUP, args={"groups": groups}), Target("agent", agent.uuid)
    command = Command(document_id=document_id, target=target, action=action, timeout=seconds)
    await insist(partial(world.stores.tool.add, [command]))
    life.added = trio.current_time()
    world.trace.strike("set-group", "+".join(groups) or "none", agent.name)


async def watch_groups(world: World) -> None:
    """Until cancelled: what the registry says, and which commands have done what they do."""
    while True:
        await trio.sleep(0.5)
        commands, groups = await world.stores.stored_commands(), await world.stores.groups()
        for agent in world.agents:
            for change in agent.groups.changes:
                if (stored := commands.get(change.document_id)) is not None and stored.status != "pending":
                    agent.groups.settle(change)
            if agent.uuid in groups:
                agent.groups.see(groups[agent.uuid])


def check_file(agent: SimAgent, name: str, status: int, began: float) -> None:
    """An agent has the files of the groups that it is in; soon after it left one, none of that any more."""
    world, group, now = agent.world, name.partition(".")[0], trio.current_time()
    was_in = group == "default" or agent.groups.is_in(group, began, now)
    was_away = any(since <= now and back >= began for since, back in agent.away)
    if status == 404 and was_in and not was_away:
        raise Violation("own files", f"{agent.name}: {name} isn't there for it")
    left = group != "default" and agent.groups.is_in(group, began - REVOCATION, now) is False
    unread = len(agent.groups.changes) > 1 and world.had_cause(30.0, UNREAD)
    if status == 200 and left and not unread:
        raise Violation("own files", f"{agent.name} isn't in {group} and is given {name}")


def check_fetched(agent: SimAgent, document_id: str, message: str) -> None:
    """What a ``set-group`` says is there for its agent at once, also while its delivery isn't noted."""
    world, life = agent.world, agent.world.commands[document_id]
    change = next(each for each in agent.groups.changes if each.document_id == document_id)
    told = world.stores.keeps_posted or world.plan.stores == "indexer"
    is_sure = told and agent.groups.is_alone(change) and not world.had_wrong_clock(life.made)
    if message.endswith(": 404") and is_sure and not (life.ended or life.excused):
        raise Violation("own files", f"{agent.name} is told to go to {sorted(change.groups)}: {message}")
