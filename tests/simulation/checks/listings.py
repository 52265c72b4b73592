"""What an operator is shown of agents and commands while everything goes on: each that is there, once, in the order
that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.actors.agents import SimAgent
from tests.simulation.forms.foreign import FOREIGN
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.agent_orders import AgentOrder
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.errors import BackendUnavailable

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["run_listings"]

#: Seconds for which a search may not know a change.
_UNSEEN: Final = 5.0


async def run_listings(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} listings")
    agents = list(world.agents)  # those that join are known to a search some time later
    await trio.sleep(_UNSEEN)
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(0.6))
        began = trio.current_time()
        try:
            if (chance := rng.random()) < 0.5:
                await _list_agents(world, agents, rng.choice(["name", "uuid"]), rng.random() < 0.5)
            elif chance < 0.75:
                await _list_members(world, agents, rng.choice(["web", "web2"]))
            else:
                await _list_commands(world, rng.choice(agents))
        except BackendUnavailable:
            if not world.had_cause(trio.current_time() - began + 30.0):
                raise Violation("listings", f"nothing is told at {began:.1f}, without a cause") from None


def _there(agents: Sequence[SimAgent], since: float) -> list[SimAgent]:
    """Those that were there all the time."""
    now = trio.current_time()
    return [agent for agent in agents if not any(gone <= now and back >= since - _UNSEEN for gone, back in agent.away)]


async def _list_agents(world: World, agents: Sequence[SimAgent], order: AgentOrder, reverse: bool) -> None:
    began, found = trio.current_time(), list[Agent]()
    async for page in world.stores.registry.pages(order, reverse=reverse):
        found += page
    world.trace.strike("listed", f"agents by {order}", "operator")
    ids = [agent.id for agent in found]
    if twice := {each for each in ids if ids.count(each) > 1}:
        raise Violation("listings", f"{sorted(twice)} are listed twice by {order}")
    wanted = {agent.uuid: agent.name for agent in _there(agents, began)}
    if missing := wanted.keys() - set(ids):
        raise Violation("listings", f"{sorted(missing)} aren't listed by {order}")
    listed = [agent.id for agent in found if agent.id in wanted]
    right = sorted(wanted, reverse=reverse and order == "uuid")
    if order == "name":
        right.sort(key=wanted.__getitem__, reverse=reverse)
    if listed != right:
        raise Violation("listings", f"by {order}{' reversed' if reverse else ''} {listed} are listed, not {right}")
    known = await world.stores.registry.unique_names(list(wanted))
    later = {agent.uuid: agent.name for agent in _there(agents, began)}
    if wrong := {uuid for uuid, name in later.items() if known.get(uuid) != name}:
        raise Violation("listings", f"{sorted(wrong)} are called {[known.get(each) for each in sorted(wrong)]}")


async def _list_members(world: World, agents: Sequence[SimAgent], group: str) -> None:
    began = trio.current_time()
    found = set(await world.stores.registry.members(group))
    world.trace.strike("listed", "members", "operator")
    for agent in _there(agents, began):
        is_in = agent.groups.is_in(group, began - _UNSEEN, trio.current_time())
        if is_in is not None and is_in is not (agent.uuid in found):
            raise Violation("listings", f"{agent.name} is {'not ' if is_in else ''}listed in {group}")


async def _list_commands(world: World, agent: SimAgent) -> None:
    began, moments, ids = trio.current_time(), list[float](), list[str]()
    async for page in world.stores.tool.pages(agent_id=agent.uuid):
        for command in page:
            if command.document_id.startswith(FOREIGN):
                continue
            if command.target.id != agent.uuid:
                raise Violation("listings", f"{command.document_id} is listed as {agent.name}'s")
            moments.append(command.created_at)
            ids.append(command.document_id)
    world.trace.strike("listed", "commands", "operator")
    if len(set(ids)) < len(ids):
        raise Violation("listings", f"of {agent.name} commands are listed twice: {ids}")
    if moments != sorted(moments, reverse=True):
        raise Violation("listings", f"{agent.name}'s aren't listed with the newest first: {moments}")
    for life in world.commands.values():
        is_old = life.agent == agent.uuid and life.added < began - _UNSEEN and not life.posted
        is_old = is_old and "_" not in life.document_id  # what a group's becomes is there later
        if is_old and life.document_id not in ids and not world.pruned.may_be_gone(life.document_id):
            raise Violation("listings", f"{life.document_id} isn't listed among {agent.name}'s")
