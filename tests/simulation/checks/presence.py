"""Once faults are over: who is there is ``active``, who goes is ``disconnected`` within a bound, and both that and the
return are told to the engine once, whichever of the nodes tells."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import UUID

import trio

from tests.simulation.actors.operators import insist
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.presence import status_of
from wazuh_comms_trio.services.presence.recorder import INTERVAL
from wazuh_comms_trio.services.presence.watch import LOOK, QUIET

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.world import World

__all__ = ["DISCONNECTED_AFTER", "LONGEST_POLL", "check_presence"]

#: Seconds of silence after which an agent is disconnected: what is stored of one that polls is younger.
DISCONNECTED_AFTER: Final = 90.0
LONGEST_POLL: Final = 15.0
#: Seconds until it is told that an agent has gone: the outages of before have to be over for a while; and that it is
#: back.
LOST_BOUND: Final = DISCONNECTED_AFTER + 2 * INTERVAL + QUIET + 2 * LOOK
BACK_BOUND: Final = 30.0 + LONGEST_POLL + 2 * INTERVAL + 2 * LOOK
#: Seconds in which it would be told a second time.
AGAIN: Final = 2 * LOOK + 5.0


async def check_presence(world: World) -> None:
    rng = Random(f"{world.plan.seed} presence")
    candidates = [agent for agent in world.agents if not agent.thieves]
    gone = rng.sample(candidates, min(rng.choice([1, 1, 2]), len(candidates), len(world.agents) - 1))
    stranger = Agent(str(UUID(int=rng.getrandbits(128), version=4)), "never", world.key_hash)
    await insist(partial(world.stores.add_agent, stranger))
    before = _told(world)
    wanted = {agent.uuid: "active" for agent in world.agents} | {stranger.id: "never"}
    for agent in gone:
        world.trace.strike("goes", "agent", agent.name)
        wanted[agent.uuid] = "disconnected"
        agent.go()
    await _within(LOST_BOUND, partial(_differences, world, wanted, before, gone, ["lost"]))
    for agent in gone:
        world.trace.strike("comes back", "agent", agent.name)
        wanted[agent.uuid] = "active"
        agent.come_back()
    await _within(BACK_BOUND, partial(_differences, world, wanted, before, gone, ["lost", "back"]))


async def _within(seconds: float, differences: Callable[[], Awaitable[Sequence[str]]]) -> None:
    """Waits until there are none; there mustn't be any a while later, either."""
    with trio.move_on_after(seconds):
        while await differences():  # noqa: ASYNC110  # nothing tells
            await trio.sleep(5)
        await trio.sleep(AGAIN)
    if found := await differences():
        raise Violation("presence", f"{seconds:.0f} s later: {'; '.join(found)}")


async def _differences(
    world: World,
    wanted: Mapping[str, str],
    before: Mapping[str, Sequence[str]],
    gone: Sequence[SimAgent],
    kinds: Sequence[str],
) -> Sequence[str]:
    """``kinds``: what has to be told of those in ``gone``, and of no other agent."""
    found = []
    seen = await world.stores.presence.last_seen_of(list(wanted))
    for agent_id, status in wanted.items():
        agent = await world.stores.registry.get(agent_id)
        is_now = status_of(agent.last_login, seen.get(agent_id), world.agents_clock(), DISCONNECTED_AFTER)
        if is_now != status:
            found.append(f"{agent.name} is {is_now}, not {status}")
    told = _told(world)
    for agent in world.agents:
        new = told.get(agent.uuid, [])[len(before.get(agent.uuid, ())) :]
        if before.get(agent.uuid, ("",))[-1] == "lost" and new[:1] == ["back"]:
            new = new[1:]  # of what the faults did
        if list(new) != (list(kinds) if agent in gone else []):
            found.append(f"of {agent.name} is told {new}")
    return found


def _told(world: World) -> dict[str, list[str]]:
    """By agent what the engine was told of it, in order of time: each worker has segments of its own."""
    events = []
    lines = world.stores.bodies().split(b"\n")
    for number, line in enumerate(lines):
        if line != b'{"module":"comms","collector":"presence"}':
            continue
        data = json.loads(lines[number + 1])
        one = json.loads(lines[number - 1])["agent"]["id"]
        action = data["event"]["action"].removeprefix("agent-")
        events.append((data["@timestamp"], action, data["presence"].get("agents", [one])))
    found: dict[str, list[str]] = {}
    for _, action, agents in sorted(events, key=itemgetter(0)):
        for agent_id in agents:
            found.setdefault(agent_id, []).append(action)
    return found
