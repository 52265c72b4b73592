"""What a worker that has ended in order may not have left: places that requests had, room of their bodies, whatever is
noted of what is under way, connections to the stores behind it; and how much room bodies may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from tests.simulation.trace import Violation
from wazuh_comms_trio.api.agent_api.base import AgentApi
from wazuh_comms_trio.http.server.body_budget import BodyBudget

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from wazuh_comms_trio.daemon.worker.tree import Worker

__all__ = ["check_room", "leavings"]


def _budgets(worker: Worker) -> Sequence[BodyBudget]:
    app = cast(AgentApi, worker.contexts[0].app)
    return app.body_budget, app._strangers, app.spill.budget


def check_room(process: Process, worker: Worker) -> None:
    """Bodies have no more room than there is, beside the one that may go beyond it."""
    for budget in _budgets(worker):
        beyond = 0 if budget._senior is None else budget._senior.held_bytes
        if budget.used_bytes - beyond > budget.limit_bytes:
            raise Violation("budgets", f"{process.name}: bodies have {budget.used_bytes} of {budget.limit_bytes} bytes")


def _notes(worker: Worker) -> Mapping[str, object]:
    """What the program notes of what is under way, and of whom: nothing, once nothing is."""
    services = worker.services
    order, commands, hashing = services.stateful._batcher._order, services.commands, services.authentication.hashing
    deliveries = commands._deliveries
    notes: dict[str, object] = {
        "agents whose events are held": [*order._holds, *order._long],
        "events that wait": (order.waiting, len(order.ready), len(services.stateful._batcher._waiting)),
        "polls that are to end": [
            each for of_second in commands._long_polls._ends._by_second.values() for each in of_second
        ],
        "deliveries": [*deliveries.busy, *deliveries._in_delivery],
        "what was found for agents": deliveries._to_hand_out,
        "agents whose commands are being stored": list(commands.lookups._being_stored),
        "posts": list(commands.posts._waiting),
        "turns of log-ins": [*hashing._turns, *hashing._turns_of],
        "keys that are hashed": (hashing._queue._running, len(hashing._queue._waiting)),
        "log-ins that were wrong": hashing._paused,
    }
    for context in worker.contexts:
        notes[f"scopes of {context.name}"] = [*context.idle_scopes, *context.body_scopes, *context.reply_scopes]
        notes[f"checks of {context.name}"] = context.giving_way._checks
    for name, budget in zip(("bodies", "strangers", "files"), _budgets(worker), strict=True):
        notes[f"who waits for room of {name}"] = [*budget._modest, *budget._watched]
        notes[f"what waits for room of {name}"] = len(budget._parking) + len(budget._behind)
    if (enrollment := services.enrollment) is not None:
        notes["turns of passwords"] = [*enrollment._throttle._queues, *enrollment._secrets._turns]
    return {what: any(each) and each if isinstance(each, tuple) else each for what, each in notes.items()}


def leavings(process: Process, worker: Worker) -> Iterator[str]:
    """What each is, and how much."""
    for context in worker.contexts:
        if context.connections:
            yield f"{context.connections} connections"
    if worker.services.commands.parked:
        yield "parked polls"
    for budget in _budgets(worker):
        if budget.used_bytes or budget._used_by or budget._senior:
            yield f"{budget.used_bytes} bytes of a budget of bodies, of {list(budget._used_by)}"
    app = cast(AgentApi, worker.contexts[0].app)
    for name, gate in app._gates.items():
        if gate._in_flight or gate._in_flight_of:
            yield f"{gate._in_flight} requests of {name} in flight, of {list(gate._in_flight_of)}"
    for transfers in (app._uploads, app._downloads):
        if transfers._transfers:
            yield f"transfers of {list(transfers._transfers)}"
    stateful = worker.services.stateful.statistics()
    if stateful.waiting or stateful.batches_in_flight or stateful.pieces_in_flight:
        yield f"events: {stateful}"
    for what, notes in _notes(worker).items():
        if notes:
            yield f"{what}: {notes}"
    if streams := [stream for stream in process.streams if not stream.is_link]:
        yield f"{len(streams)} open streams"
