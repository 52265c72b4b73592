"""What has to hold: while a run goes on, once everything is served, and when all processes have ended."""

from __future__ import annotations

import json
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count
from math import inf
from typing import TYPE_CHECKING

import trio

from tests.simulation.actors.agents import SimAgent
from tests.simulation.actors.client import OpenPoll, is_held_up
from tests.simulation.actors.operators import is_cancelled
from tests.simulation.checks.leavings import check_room
from tests.simulation.checks.peers import LeftPolls, check_silent
from tests.simulation.checks.pruning import check_documents_left
from tests.simulation.determinism import EPOCH
from tests.simulation.loads.at_once import check_one_poll
from tests.simulation.model import CommandLife
from tests.simulation.plans.faults import CLOCKS, HANGS
from tests.simulation.plans.limits import POLL_TIMEOUTS
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import AGENT_SHARE
from wazuh_comms_trio.services.stateful.batcher import MAX_WAITING

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = ["check_claims", "check_end", "check_leaks", "open_ends", "watch", "watch_polls"]

#: Messages that may wait on a link; batches that may be in flight.
LINK_BUDGET = 1000
#: Seconds from a token's end to that of its poll, and for which an agent is parked while there is a command for it.
TOKEN_SLACK = 4.0
#: Seconds from when all workers know that a key is revoked, or an agent's changed, to the end of its polls.
REVOKED_SLACK = 2.0
PARKED_BOUND = 40.0
SOON_PARKED_BOUND = 8.0
#: Seconds from when a worker is told to stop to the end of its polls.
STOPPED_SLACK = 5.0
#: Seconds for which a request waits at most for the registry to say whose it is.
IDENTIFIED_BOUND = 25.0
BATCHES = 8
#: Seconds for which a search may not know a change.
MEMBERS_AGE = 5.0
#: What a command ends with that no agent could take.
TOO_LARGE = "too large for an agent"
#: Seconds within which what was claimed is told to the store, or given back.
CLAIMS_BOUND = 10.0
#: Seconds for which a connection may wait for a worker that serves.
TAKEN_BOUND = 10.0


async def watch(world: World) -> None:
    """Until cancelled."""
    while True:
        await trio.sleep(1)
        documents, commands = await world.stores.documents(), await world.stores.stored_commands()
        _check_documents(world, documents)
        for document_id, life in world.commands.items():
            if (stored := commands.get(document_id)) is not None:
                _check_in_time(world, life, stored)
                life.ended = life.ended or stored.status == "failed"
        world.in_flight.check_sending()
        if world.plan.features.short_waits:
            check_silent(world)
        if world.plan.features.small_shares:
            _check_shares(world)
        if world.plan.features.small_quota:
            world.quota.check()
        if world.plan.features.small_events:
            world.event_quota.check()
        if world.plan.features.prunes:
            world.pruned.look(commands)
            await check_documents_left(world)
        for node in world.nodes:
            for process in node.running:
                worker = process.worker
                if process.link.waiting > LINK_BUDGET:
                    raise Violation("budgets", f"{process.link.waiting} messages wait for {process.name}")
                if worker is None:
                    continue
                check_room(process, worker)
                stateful = worker.services.stateful.statistics()
                if stateful.waiting > MAX_WAITING or stateful.batches_in_flight > BATCHES:
                    raise Violation("budgets", f"{process.name}: {stateful}")


def _check_shares(world: World) -> None:
    if any(used > world.plan.quarantine for used in world.stores.quarantine_used(None)):
        raise Violation("budgets", f"a quarantine of {world.plan.quarantine} bytes has more")
    for agent in world.agents:
        for used in world.stores.quarantine_used(agent.uuid):
            if used > world.plan.quarantine // AGENT_SHARE:
                raise Violation("budgets", f"{agent.name} has {used} bytes of a quarantine")


async def watch_polls(world: World) -> None:
    """Until cancelled: a poll ends with its token, and with its worker, and an agent that is parked has what there is
    for it."""
    left = LeftPolls(world)
    told: dict[Process, float] = {}  # since when a worker knows that it is to stop
    # A poll's time varies by a tenth; a reload may have changed it.
    longest = 1.1 * (max(POLL_TIMEOUTS) if world.plan.features.limits_change else world.plan.poll_timeout)
    for number in count(1):
        await trio.sleep(1)
        now = trio.current_time()
        for process in [process for node in world.nodes for process in node.running]:
            if process.stop.requested.is_set():
                told.setdefault(process, now)
        _check_taken(world, now)
        left.check()
        for agent in world.agents:
            check_one_poll(world, agent)
            for client, poll in agent.polls:
                # It may have waited for a worker, and what a thief begins is answered in a while.
                taken = None if poll.connection is None else poll.connection.taken
                age = inf if taken is None else now - taken
                late = min(world.agents_clock() - poll.token_ends, age)
                process = None if poll.connection is None else poll.connection.server.process
                stopped = now - told.get(process, inf) if process is not None else -inf
                slack = IDENTIFIED_BOUND if world.registry_hung(poll.since) else STOPPED_SLACK
                slack += 0.0 if process is None else process.stop.spread
                if min(stopped, age) > slack and not _is_held_up(world, poll):
                    raise Violation("polls", f"{agent.name}: a poll goes on at a worker that was told to stop")
                revoked = poll.keys != client.keys and client.is_rekeyed_everywhere(now - REVOKED_SLACK)
                if revoked and age > REVOKED_SLACK and not _is_held_up(world, poll):
                    raise Violation("revoked", f"{agent.name}: a poll goes on with a token of its old key")
                slack = IDENTIFIED_BOUND if world.registry_hung(poll.since) else REVOKED_SLACK
                ended = world.is_revoked_everywhere(poll.signed_by, now - slack)
                if ended and age > slack and not _is_held_up(world, poll):
                    raise Violation("revoked", f"{agent.name}: a poll goes on with a token of a revoked key")
                if age > longest + IDENTIFIED_BOUND and not _is_held_up(world, poll):
                    raise Violation("in time", f"{agent.name}: a poll goes on for {age:.1f} s")
                slack = IDENTIFIED_BOUND if world.registry_hung(poll.since) else TOKEN_SLACK
                if late > slack and not _is_held_up(world, poll):
                    raise Violation("polls", f"{agent.name}: a poll went on for {late:.1f} s after its token's end")
        # What a process had that died is free at once where it is known to be dead, else when its lease is over.
        bound = SOON_PARKED_BOUND if world.plan.stores == "embedded" else PARKED_BOUND
        if number % 5 or world.faults_ended is None or now < world.faults_ended + bound:
            continue
        try:
            commands = await world.stores.commands()
        except BackendUnavailable:
            continue
        waiting = {
            life.agent: life
            for life in world.commands.values()
            if (stored := commands.get(life.document_id)) is not None
            and stored.status == "pending"
            and stored.target.type == "agent"
            and now > life.made + bound
        }
        for agent in world.agents:
            if (life := waiting.get(agent.uuid)) is not None:
                for _, poll in agent.polls:
                    is_silent = poll.connection is not None and poll.connection.silent_since is not None
                    if poll.since < now - bound and not is_silent:
                        raise Violation("parked", f"{agent.name} waits since {poll.since:.1f}, so does {life}")


def _check_taken(world: World, now: float) -> None:
    """No connection waits while a worker is there to take it."""
    for node in world.nodes:
        serving = [process for process in node.running if process.serves_since < now - TAKEN_BOUND]
        waiting = node.listener.waiting
        if serving and waiting and waiting[0].made < now - TAKEN_BOUND:
            raise Violation("untaken", f"{serving[0].name} leaves a connection of {waiting[0].who} waiting")


def _is_held_up(world: World, poll: OpenPoll) -> bool:
    """May the end of a poll's token be seen late, or not at all?"""
    connection = poll.connection
    if connection is None or connection.taken is None or connection.server.process is None:
        return True  # ``_check_taken`` sees to it
    now, node = trio.current_time(), connection.server.process.node
    is_clock_wrong = any(
        fault.kind in CLOCKS and fault.start <= now and fault.node == node for fault in world.plan.faults
    )
    if is_clock_wrong and (world.faults_ended is None or poll.since < world.faults_ended):
        return True
    return is_held_up(world, connection) or world.had_cause(TOKEN_SLACK, HANGS)


def _check_documents(world: World, documents: Mapping[tuple[str, str], bytes]) -> None:
    held = defaultdict[str, dict[tuple[str, str], bytes]](dict)
    for (index, document_id), body in documents.items():
        owner, _, own_id = document_id.partition("_")
        held[owner][index, own_id] = body
    for agent in world.agents:
        if differences := agent.model.differences(held[agent.uuid], agent.uuid):
            raise Violation("index", f"{agent.name}: {'; '.join(sorted(differences)[:3])}")


def _check_in_time(world: World, life: CommandLife, stored: Command) -> None:
    """No command ends for want of time before its time is over, as pending since it was made, then since it came."""
    message = None if stored.result is None else stored.result.message
    if stored.status != "failed" or message not in (rules.NOT_DELIVERED, rules.NO_ANSWER):
        return
    begins = life.made
    if message == rules.NO_ANSWER and stored.sent_at is not None:
        begins = stored.sent_at - EPOCH
    if trio.current_time() < begins + life.timeout - 1 and not world.had_wrong_clock(life.made):
        raise Violation("too early", f"{life.document_id} ended as {message}, begun at {begins:.1f}")


async def check_claims(world: World) -> None:
    """When everything is served nobody has a claim, or a right, that keeps a command from others."""
    with trio.move_on_after(CLAIMS_BOUND):
        while _claims(world):  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.5)
        return
    raise Violation("claims", f"{CLAIMS_BOUND:.0f} s after everything was served: {'; '.join(_claims(world))}")


def _claims(world: World) -> list[str]:
    found = []
    for node in world.nodes:
        for process in node.running:
            if not process.dead and (held := world.stores.held(process)):
                found.append(f"{process.name} has claims on {held}")
        found += [f"{owner.name} has the right to deliver {each}" for each, owner in node.hub._granted.items()]
    return found


async def open_ends(world: World) -> list[str]:
    """What isn't served yet."""
    if found := [f"{agent.name} has events" for agent in world.agents if not agent.is_idle]:
        return found
    if world.crowd.left:
        return [f"{len(world.crowd.left)} of a crowd aren't in"]
    if world.at_once.left:
        return [f"{world.at_once.left} bodies that were sent at once aren't taken"]
    try:
        commands = await world.stores.commands()
    except BackendUnavailable as error:
        return [f"commands can't be read: {error}"]
    for life in world.commands.values():
        stored = commands.get(life.document_id)
        # A node's posts that no store keeps reach those agents alone that park there.
        needed = world.stores.keeps_posted or len(world.nodes) == 1
        needed = needed and (stored is None or stored.status != "failed")
        if life.posted and needed and not (life.listed or life.given_up):
            found.append(f"{life.document_id} isn't listed")
        if life.listed and not life.received:  # its agent may carry out another one before
            found.append(f"{life.document_id} is listed and hasn't come")
        if stored is not None and stored.status not in ("success", "failed") and not life.stolen:
            found.append(f"{life.document_id} is {stored.status}")
        parent = commands.get(life.document_id.partition("_")[0])
        if stored is None and parent is not None and parent.status == "pending":  # whatever became of who began with it
            found.append(f"{life.document_id} isn't there yet")
    return found


async def check_end(world: World) -> None:
    documents, quarantined = await world.stores.documents(), await world.stores.quarantined()
    _check_documents(world, documents)
    world.fillers.check(quarantined)
    world.contested.check(documents, quarantined)
    for agent in world.agents:
        _check_quarantine(world, quarantined, documents, agent)
    taken = world.stores.bodies()
    refused = b"".join([payload for _, payload in quarantined] + world.dropped)  # a body is refused as a whole
    for agent in world.agents:
        for mark in agent.promised:
            text = b'"%b"' % mark.encode()
            if text not in taken and text not in refused and not world.event_quota.was_deleted(text):
                raise Violation("stateless", f"{mark} was acknowledged and isn't with the engine")
    commands = await world.stores.commands()
    if world.plan.features.prunes:
        world.pruned.look(commands, is_on=True)
        commands = {**world.pruned.commands, **commands}
    for life in world.commands.values():
        stored = commands.get(life.document_id)
        if life.listed and not life.received:
            raise Violation("posts", f"{life.document_id} was listed as delivered and never came")
        if stored is None:
            parent = commands.get(life.document_id.partition("_")[0])
            if not life.posted and (parent is None or not _was_no_member(world, life, parent)):
                raise Violation("commands", f"{life.document_id} is gone")
            continue
        parent = commands.get(life.document_id.partition("_")[0], stored)
        if parent is not stored and _was_a_member(world, life, parent) is False:
            raise Violation("own commands", f"{life.document_id} is there, and its agent wasn't in the group")
        if stored.sent_at is not None and not life.received:
            raise Violation("commands", f"{life.document_id} counts as sent and never came")
        _check_in_time(world, life, stored)
        # An agent may have what a group's became, and report on it all the same; what was posted may be so anew.
        is_told = life.cancelled and stored is parent and not life.posted
        if is_told and not is_cancelled(stored) and not world.had_cause(inf, ("restore",)):
            raise Violation("cancelled", f"{life.document_id} was cancelled and is {stored.status}")
        if life.first_final is not None:
            code = None if stored.result is None else stored.result.code
            if code is None and life.document_id in world.pruned.commands:
                continue  # it had ended for want of time, and went
            is_first = code in (life.first_final, *life.begun_finals.values())
            if not is_first or stored.status != ("success" if code == 0 else "failed"):
                raise Violation(
                    "first report",
                    f"{life.document_id} is {stored.status} {code}, and the first was {life.first_final}",
                )
        elif stored.status == "success":
            raise Violation("reports", f"{life.document_id} is a success that nobody reported")
        elif life.stolen and stored.status == "sent":
            continue  # whoever has it won't say
        elif life.too_large and stored.result is not None and (stored.result.message or "").startswith(TOO_LARGE):
            continue
        elif stored.result is None or stored.result.message not in (
            rules.NOT_DELIVERED,
            rules.NO_ANSWER,
            rules.CANCELLED,
            *((rules.AGENT_REMOVED,) if world.plan.removals else ()),
        ):
            raise Violation("commands", f"{life.document_id} ended without a reason: {stored}")


def _was_no_member(world: World, life: CommandLife, parent: Command) -> bool:
    """Whether a group's command may have become none for this agent: it failed itself, or the agent had been removed at
    some moment between its sending and its becoming its members' (by a clock that may have been wrong)."""
    if parent.status == "failed":
        return True
    agent = next(each for each in world.agents if each.uuid == life.agent)
    expanded = _expanded(world, life, parent)
    was_away = any(began <= expanded and ended >= life.made for began, ended in agent.away)
    return was_away or not _was_a_member(world, life, parent)


def _expanded(world: World, life: CommandLife, parent: Command) -> float:
    return inf if parent.sent_at is None or world.had_wrong_clock(life.made) else parent.sent_at - EPOCH


def _was_a_member(world: World, life: CommandLife, parent: Command) -> bool | None:
    """Whether its agent was in the group all the time from a command's sending to its becoming its members'. None: it
    may have been, or for a part of it."""
    agent = next(each for each in world.agents if each.uuid == life.agent)
    searches_stale = any(fault.kind == "indexer stale" for fault in world.plan.faults)
    began = -inf if searches_stale else life.made - MEMBERS_AGE
    return agent.groups.is_in(parent.target.id, began, _expanded(world, life, parent) + 1.0)


def _check_quarantine(
    world: World, quarantined: Sequence[tuple[str, bytes]], documents: Mapping[tuple[str, str], bytes], agent: SimAgent
) -> None:
    """What was refused is there, the newest of a document at least, unless it was taken: at once, since the index has
    healed, or by a replay."""
    kept = [payload for agent_id, payload in quarantined if agent_id == agent.uuid]
    for operation in {operation.key: operation for operation in agent.model.refused}.values():
        name, data = b'%b"' % operation.id.encode(), operation.data or {}  # there may be its agent's before it
        number = b'"n":%d}' % data["n"] if "n" in data else b""
        is_kept = any(name in payload and number in payload for payload in (*kept, *world.dropped))
        document = documents.get((operation.key[0], f"{agent.uuid}_{operation.id}"))
        is_taken = document is not None and b"poison" in document
        is_taken = is_taken and (not number or json.loads(document)["n"] == data["n"])
        # What came after it has replaced what was taken before.
        is_small = world.plan.features.small_shares  # what is overtaken goes when room is needed
        may_be_gone = operation.key in agent.model.documents and (is_small or world.plan.heals < trio.current_time())
        if not is_kept and not is_taken and not may_be_gone:
            raise Violation("quarantine", f"{agent.name}'s {operation.id} was acknowledged and is nowhere")
        if is_kept and is_taken and operation.key not in agent.model.documents and not world.had_cause(inf):
            raise Violation("quarantine", f"{agent.name}'s {operation.id} was taken and is in quarantine")
    for payload in kept:
        of_posters = b'"module":"command"' in payload and not world.stores.keeps_posted  # it keeps them itself
        forged = b'"message":"stolen"' in payload  # a report on another's command
        # What came again, since its answer was lost, meets what it made itself, where that may be another's.
        again = world.plan.features.global_ids and (world.had_cause(inf) or b'"contested"' in payload)
        if b"poison" not in payload and not of_posters and not forged and not again:
            raise Violation("quarantine", f"{agent.name} has {payload!r} in quarantine without a reason")


def check_leaks(world: World) -> None:
    for connection in world.connections:
        if not connection.server._closed:
            raise Violation("leaks", f"a connection of {connection.who} is open after the end")


def last_time(world: World) -> float:
    return float(world.trace.lines[-1].split()[0]) if world.trace.lines else 0.0


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-30:])
