"""What a worker that has ended in order may not have left: places that requests had, room of their bodies, connections
to the stores behind it; and how much room bodies may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    if turns := worker.services.authentication.hashing._turns:
        yield f"turns of {list(turns)}"
    if streams := [stream for stream in process.streams if not stream.is_link]:
        yield f"{len(streams)} open streams"
