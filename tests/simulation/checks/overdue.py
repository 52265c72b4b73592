"""What is overdue ends soon, also what an agent has and doesn't report: one that takes its commands and is silent, or
says no more than that it has begun, and whoever isn't honest."""

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
from tests.simulation.model import IN_PROGRESS
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.command_rules import is_overdue
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target
from wazuh_comms_trio.errors import AgentExists
from wazuh_comms_trio.testing.agent.client import command_report
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["check_overdue", "run_silent_agent"]

#: Seconds after faults in which it is seen that a command's time is over.
_ENDED_WITHIN: Final = 20.0
#: Of the silent agent's commands, seconds.
_TIMEOUTS: Final = (1.0, 3.0)


async def run_silent_agent(world: World) -> None:
    """Until cancelled: also once faults are over, when clocks have been set right."""
    rng = Random(f"{world.plan.seed} silent")
    agent = Agent(str(UUID(int=rng.getrandbits(128), version=4)), "silent", world.key_hash)
    await insist(partial(_add, world, agent))
    client = SimClient(world, agent.name, agent.id, KEYS[0], first_token=None, chunked=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_poll, world, client)
        number = 0
        while True:
            await trio.sleep(rng.uniform(0.5, 3.0))
            number += 1
            command = Command(f"silent{number}", Target("agent", agent.id), Action("restart"), rng.choice(_TIMEOUTS))
            await insist(partial(world.stores.tool.add, [command]))


async def _add(world: World, agent: Agent) -> None:
    with suppress(AgentExists):  # the answer was lost
        await world.stores.add_agent(agent)


async def _poll(world: World, client: SimClient) -> None:
    while True:
        with suppress(ExchangeFailed):
            if client.token is None or (reply := await client.poll()).status in (401, 403):
                await client.authenticate()
            elif reply.status == 200:
                world.trace.strike("silent", "report", client.name)
                if world.plan.features.reports_begun:  # at once: its delivery may not be noted yet
                    await client.post_stateful(
                        [command_report(each["document_id"], IN_PROGRESS) for each in reply.json()["commands"]]
                    )
        await trio.sleep(1.0)


async def check_overdue(world: World) -> None:
    """Once everything is served: what is overdue by then ends soon."""
    began, now = trio.current_time(), world.agents_clock()
    while overdue := await _overdue(world, now):
        if trio.current_time() > began + _ENDED_WITHIN:
            raise Violation("too late", f"{', '.join(overdue)}: the time is over, and nobody ends it")
        await trio.sleep(0.5)


async def _overdue(world: World, now: float) -> list[str]:
    commands = (await world.stores.stored_commands()).items()
    return [each for each, command in commands if is_overdue(command, now) or _is_endless(command)]


def _is_endless(command: Command) -> bool:
    """Whether an agent has it, and nobody knows since when: its time would never be over."""
    return command.status == "sent" and command.target.type == "agent" and command.sent_at is None
