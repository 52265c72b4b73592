"""Who holds a token of an agent: until the agent's key changes, or the key that signed it, that is the agent. It gets
no further than the agent itself could."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.client import SimClient
from tests.simulation.actors.keys import KEYS
from tests.simulation.plans.faults import UNSERVED
from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.client import command_report, metadata_line, stateful_event
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.world import World

__all__ = ["run_thief"]


class _Thief(SimClient):
    """Never logs in. ``SimClient`` sees to it that nothing works once the token is worth nothing."""

    def _check(self, place: str, reply: Reply, refusable: bool) -> None:
        if reply.status >= 500 and not self.world.left_unserved(place, 45.0, UNSERVED):
            raise Violation("no 5xx", f"{self.name}: {place} -> {reply.status} {reply.body[:100]!r}")

    def _check_report(self, document_id: str, status: int) -> None:
        """All of its reports are on others' commands."""
        if status == 200:
            raise Violation("hostile", f"{self.name} reported on {document_id}, which isn't its victim's")


async def run_thief(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} thief")
    await trio.sleep(rng.uniform(1.0, until / 2))
    victim = rng.choice(world.agents)
    if (token := victim.client.token) is None:
        return
    thief = _Thief(world, "thief", victim.uuid, KEYS[0], first_token=None, chunked=False)
    thief.token, own = token, victim.client
    thief.keys, thief.token_keys = own.keys, own.token_keys
    thief.rekeyed_at, thief.removed_at, thief.is_being_rekeyed = own.rekeyed_at, own.removed_at, own.is_being_rekeyed
    victim.thieves.append(thief)
    world.trace.strike("stolen", "token", victim.name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_poll, thief, victim, until, rng.uniform(0.5, 10.0))
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(0.5))
            with suppress(ExchangeFailed):
                await _try_something(thief, victim, rng)


async def _poll(thief: SimClient, victim: SimAgent, until: float, pause: float) -> None:
    """Takes the agent's commands from it, each once."""
    while trio.current_time() < until:
        with suppress(ExchangeFailed):
            reply = await thief.poll()
            for command in reply.json()["commands"] if reply.status == 200 else ():
                life = thief.world.commands.get(command["document_id"])
                if life is None or life.agent != victim.uuid:
                    raise Violation("own commands", f"{thief.name} was given {command['document_id']}")
                life.stolen = True
                victim.note_received(life)
        await trio.sleep(pause)


async def _try_something(thief: SimClient, victim: SimAgent, rng: Random) -> None:
    world = thief.world
    other = rng.choice([agent for agent in world.agents if agent is not victim])
    create = stateful_event("d0", "fim", "create", {"n": "stolen"})
    theirs = [life.document_id for life in world.commands.values() if life.agent == other.uuid]
    if theirs and rng.random() < 0.5:
        await thief.post_stateful([command_report(rng.choice(theirs), 0, "stolen")])
        return
    path = rng.choice(["stateful", "stateless"])
    body = metadata_line(other.uuid) + (create if path == "stateful" else b'{"module":"x","collector":"y"}\n{}\n')
    reply = await thief.request("POST", f"/api/v1/events/{path}", body)
    if reply.status < 300:
        raise Violation("hostile", f"{thief.name} sent {path} events of {other.name} and was answered {reply.status}")
