"""Who sends commands: an operator with the tool, on the store, and a local program that posts to a node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from math import floor, inf
from random import Random
from typing import TYPE_CHECKING, TypeVar

import trio
from attrs import evolve

from tests.simulation.actors.keys import key_hash
from tests.simulation.forms.commands import make_command
from tests.simulation.model import CommandLife
from tests.simulation.plans.faults import BACKUPS, CALLS, CLOCKS, DISK, POWER, STOPPED, SUDDEN
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Command, Target
from wazuh_comms_trio.daemon.command_socket import HubPoster
from wazuh_comms_trio.errors import AgentExists, BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick

if TYPE_CHECKING:
    from tests.simulation.actors.agents import SimAgent
    from tests.simulation.nodes.node import Node
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = [
    "begin",
    "insist",
    "is_cancelled",
    "run_absences",
    "run_group_cancels",
    "run_last_words",
    "run_operator",
    "run_poster",
]

T = TypeVar("T")

#: Seconds for which an agent isn't there, and twice as long as a command for it waits.
ABSENCE = 9.0
#: A local program offers again what wasn't delivered.
POST_INTERVAL = 10.0
#: The answer to a post is there by then.
POST_BOUND = 2.05
#: Seconds after which a node knows that a worker has come.
HEARD_WITHIN = 1.0
#: By what a post may fail while a worker serves that does nothing else: not by what happens to others, or to agents.
OTHERS_POSTS = (
    *(*(kind for kind in CALLS if kind != "die"), *STOPPED, *DISK, *POWER, *BACKUPS),
    *(kind for kind in SUDDEN if kind not in ("hang worker", "kill worker", "cut link", *CLOCKS)),
)
#: Seconds that a post still has when its worker dies, by which another one can take it.
LEFT_FOR_ANOTHER = 0.5


def begin(world: World, document_id: str, agent: SimAgent, timeout: float, *, posted: bool) -> CommandLife:
    """Enters a command into the world's books, before anybody can know of it."""
    life = CommandLife(document_id, agent.uuid, posted, trio.current_time(), timeout)
    world.commands[document_id] = life
    return life


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """As an operator does while the store is down. What may have been done is done again."""
    while True:
        try:
            return await call()
        except BackendUnavailable:
            await trio.sleep(2)


async def run_operator(world: World, until: float) -> None:
    rng = Random(f"{world.plan.seed} operator")
    number = 0
    while trio.current_time() < until:
        await trio.sleep(rng.expovariate(0.5))
        number += 1
        timeout = rng.choice([5.0, 60.0, 600.0, 600.0])
        what = rng.random()
        amid = world.plan.features.removes_amid_faults and world.store_was_away("agents", 0.0)
        if what > (0.4 if amid else 0.85) and (world.plan.rekeys or world.plan.removals):
            agent = rng.choice(world.agents)
            if any(client.token is None for client in agent.clients):
                continue  # before its first log-in it would exit
            if world.plan.removals and not (world.plan.rekeys and rng.random() < 0.5):
                if rng.random() < 0.5:
                    await _send(world, agent, f"c{number}", timeout)
                await _remove_for_a_while(world, agent, rng.choice([0.0, 1.0, 5.0, 15.0]))
            else:
                await _rekey(world, agent)
        elif what < 0.15 and world.plan.replays:
            await insist(partial(world.stores.replay, world))
        elif what < 0.7:
            agent = rng.choice(world.agents)
            await _send(world, agent, f"c{number}", timeout)
        elif what < 0.85:
            await _send_to_group(world, f"g{number}", timeout)
        elif world.commands:
            await _cancel(world, rng.choice(list(world.commands)))


async def _send(world: World, agent: SimAgent, document_id: str, seconds: float) -> None:
    life = begin(world, document_id, agent, seconds, posted=False)
    await insist(partial(world.stores.tool.add, [make_command(document_id, Target("agent", agent.uuid), seconds)]))
    life.added = trio.current_time()
    world.trace.add("operator", f"sends {document_id} to {agent.name}")

    rng = Random(f"{world.plan.seed} {document_id}")
    if rng.random() < 0.1:  # just when it may be found, and on its way
        await sleep_until_next_tick(1.0)
        await trio.sleep(rng.uniform(0.0, 0.004))
        await _cancel(world, document_id)


async def _cancel(world: World, document_id: str) -> None:
    ended = await insist(partial(world.stores.tool.cancel, document_id))
    world.trace.add("operator", f"cancels {document_id}: {ended and ended.status}")
    if ended is not None and is_cancelled(ended):
        _note_cancelled(world, world.commands[document_id])


async def _send_to_group(world: World, parent: str, seconds: float) -> None:
    lives = [
        begin(world, f"{parent}_{agent.uuid}", agent, seconds, posted=False)
        for agent in world.agents
        if world.plan.features.set_groups or "web" in agent.record.groups  # who is a member is known afterwards
    ]
    await insist(partial(world.stores.tool.add, [make_command(parent, Target("group", "web"), seconds)]))
    for life in lives:
        life.added = trio.current_time()
    world.trace.add("operator", f"sends {parent} to a group")


async def run_group_cancels(world: World, until: float) -> None:
    """Sends commands to a group and cancels them: before anybody has them, while they come, or when they have."""
    rng = Random(f"{world.plan.seed} group cancels")
    number = 0
    async with trio.open_nursery() as nursery:
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(0.4))
            number += 1
            if rng.random() < 0.3:  # while it becomes its members'
                nursery.start_soon(_cancel_of_group, world, f"gc{number}", 0.0, rng.randrange(40))
            await _send_to_group(world, f"gc{number}", rng.choice([60.0, 600.0]))
            nursery.start_soon(_cancel_of_group, world, f"gc{number}", rng.choice([0.0, rng.uniform(0.0, 1.5), 8.0]))


async def _cancel_of_group(world: World, parent: str, seconds: float, turns: int = 0) -> None:
    """What is pending of it ends; what is being handed over goes its way. ``turns``: of the event loop, before it."""
    await trio.sleep(seconds)
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    claimed = set[str]()

    async def cancel() -> Command | None:
        claimed.update(_claimed(world))
        ended: Command | None = await world.stores.tool.cancel(parent)
        return ended

    ended = await insist(cancel)
    stored = await world.stores.stored_commands()
    claimed.update(_claimed(world))
    if ended is None:
        return
    lives = [life for life in world.commands.values() if life.document_id.startswith(f"{parent}_")]
    for life in lives:
        child = stored.get(life.document_id)
        if is_cancelled(ended if child is None else child):
            _note_cancelled(world, life)
        elif ended.status != "pending":
            life.group_cancelled = trio.current_time()
            left = child is not None and child.status == "pending" and life.document_id not in claimed
            if left and world.plan.stores != "indexer":
                raise Violation("cancelled", f"{parent} was cancelled, and {life.document_id} is pending")
    came = sum(bool(life.received) for life in lives)
    when = "before it came" if not came else "while it came" if came < len(lives) else "when it had come"
    world.trace.strike("cancelled", when, f"{parent}, {ended.status}, {sum(life.cancelled for life in lives)}")


def _claimed(world: World) -> Collection[str]:
    held = [each for node in world.nodes for process in node.running for each in world.stores.held(process)]
    # Where claims end with their lease those of the dead stand until then.
    return held + (world.stores.held(None) if world.plan.stores == "memory" else [])


def is_cancelled(command: Command) -> bool:
    return command.result is not None and command.result.message == rules.CANCELLED


def _note_cancelled(world: World, life: CommandLife) -> None:
    life.cancelled = True
    if life.came_whole and not world.forgot_deliveries():
        raise Violation("cancelled", f"{life.document_id} was cancelled, and its agent has it")


async def _rekey(world: World, agent: SimAgent) -> None:
    new = key_hash(agent.client.keys + 1)
    for client in agent.clients:
        client.is_being_rekeyed = True  # that it isn't known yet doesn't mean that it isn't so
    await insist(partial(world.stores.registry.rekey, agent.uuid, new))
    for client in agent.clients:
        client.rekey()
    world.trace.add("operator", f"gives {agent.name} a new key")


async def _remove_for_a_while(world: World, agent: SimAgent, seconds: float) -> None:
    """Then the uuid is enrolled again, with another key."""
    began = trio.current_time()
    agent.away.append((began, inf))
    for client in agent.clients:
        client.is_being_rekeyed = True
    await insist(partial(world.stores.registry.remove, agent.uuid))
    world.trace.add("operator", f"removes {agent.name}")
    await _check_removed(world, agent, began)
    for client in agent.clients:
        client.removed_at = began
        client.rekey()
        client.is_being_rekeyed = True
    change = agent.groups.begins(agent.record.groups)
    await trio.sleep(seconds)

    async def add() -> None:
        with suppress(AgentExists):  # the answer was lost
            await world.stores.add_agent(evolve(agent.record, key_hash=key_hash(agent.client.keys)))

    await insist(add)
    world.trace.add("operator", f"adds {agent.name} again")
    agent.away[-1] = began, trio.current_time()
    agent.groups.see(agent.record.groups)
    agent.groups.settle(change)
    for client in agent.clients:
        client.rekeyed_at = trio.current_time()
        client.is_being_rekeyed = False


async def _check_removed(world: World, agent: SimAgent, began: float) -> None:
    """What had been sent to an agent before it was removed has ended by then."""
    stored = await world.stores.stored_commands()
    for life in world.commands.values():
        command = stored.get(life.document_id)
        earlier = life.agent == agent.uuid and life.added < began and not life.posted
        if earlier and command is not None and command.target.type == "agent" and command.status == "pending":
            raise Violation("removed", f"{agent.name} is removed, and {life.document_id} is pending")


async def run_absences(world: World, until: float) -> None:
    """Sends short commands to agents that aren't there until their time is over."""
    rng = Random(f"{world.plan.seed} absences")
    number, kept_out = 0, world.balancer.kept_out
    while trio.current_time() < until - ABSENCE:
        number += 1
        agent = rng.choice(world.agents)
        kept_out.add(agent.name)
        for connection in [each for each in world.connections if each.who == agent.name]:
            connection.cut()
        await _send(world, agent, f"a{number}", ABSENCE / 2)
        await trio.sleep_until(world.commands[f"a{number}"].added + ABSENCE)
        kept_out.discard(agent.name)
        await trio.sleep(rng.uniform(0.0, 3.0))


async def run_last_words(world: World, until: float) -> None:
    """Sends a command to every agent just before faults end, and nothing after it."""
    rng = Random(f"{world.plan.seed} last words")
    features = world.plan.features
    until_tick = features.set_back or features.dies_with_claims  # which is for these the last one
    await trio.sleep_until(floor(until) - rng.uniform(0.55, 0.9) if until_tick else until - rng.uniform(0.0, 1.0))
    for number, agent in enumerate(world.agents):
        await _send(world, agent, f"last{number}", 600.0)


async def run_poster(world: World, until: float) -> None:
    """Posts each command until it is listed as delivered or its time is over, which some have but once."""
    rng = Random(f"{world.plan.seed} poster")
    number = 0
    rate, timeouts = (2.0, [1.0, 1.0, 1.0, 30.0]) if world.plan.features.many_posts else (0.35, [1.0, 30.0, 300.0])
    async with trio.open_nursery() as nursery:
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(rate))
            number += 1
            agent, timeout = rng.choice(world.agents), rng.choice(timeouts)
            document_id = f"p{number}"
            begin(world, document_id, agent, timeout, posted=True)
            nursery.start_soon(_post, world, document_id, agent, timeout, rng.randrange(len(world.nodes)))


def _serving_since(node: Node, moment: float) -> set[Process]:
    return {process for process in node.running if process.serves_since <= moment}


async def _post(world: World, document_id: str, agent: SimAgent, seconds: float, number: int) -> None:
    life = world.commands[document_id]
    node, command = world.nodes[number], make_command(document_id, Target("agent", agent.uuid), seconds)
    while trio.current_time() < life.made + seconds:
        hub = node.hub
        if node.is_up:
            world.trace.add(node.name, f"is posted {document_id}")
            began = trio.current_time()
            serving = _serving_since(node, began - HEARD_WITHIN)
            answer: Sequence[Command] = ()
            life.posted_until = inf
            try:
                with trio.move_on_after(POST_BOUND) as scope:
                    answer = await HubPoster(hub.post).post([command])
            except BackendUnavailable:
                # Whoever hangs, another worker takes it, unless it had been taken just before.
                waits_for_nobody = serving & _serving_since(node, began) and not world.began_to_hang(began - 0.1)
                # Nor does it end with a worker that dies early enough.
                waits_for_nobody = waits_for_nobody and node.last_death < began + POST_BOUND - LEFT_FOR_ANOTHER
                causes = OTHERS_POSTS if waits_for_nobody else None
                if not world.had_cause(10.0, causes) and not world.gave_more(10.0):  # by a reload
                    raise Violation("posts", f"{document_id} got an error at {began}, without a cause") from None
            finally:
                life.posted_until = trio.current_time()
            if scope.cancelled_caught and node.hub is hub and node.is_up:
                raise Violation("posts", f"{document_id} wasn't answered in {POST_BOUND} s")
            if answer:
                life.listed = True
                world.trace.add(node.name, f"says that {document_id} is delivered")
                return
        await trio.sleep(POST_INTERVAL)
        # What a node remembers of posts goes with its processes.
        life.excused = life.excused or node.hub is not hub or world.had_cause(trio.current_time() - life.made)
    life.given_up = True
