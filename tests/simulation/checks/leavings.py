"""What a worker that has ended in order may not have left: places that requests had, room of their bodies, connections
to the stores behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from wazuh_comms_trio.api.agent_api.base import AgentApi

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from wazuh_comms_trio.daemon.worker.tree import Worker

__all__ = ["leavings"]


def leavings(process: Process, worker: Worker) -> Iterator[str]:
    """What each is, and how much."""
    for context in worker.contexts:
        if context.connections:
            yield f"{context.connections} connections"
    if worker.services.commands.parked:
        yield "parked polls"
    app = cast(AgentApi, worker.contexts[0].app)
    for budget in (app.body_budget, app._strangers, app.spill.budget):
        if budget.used_bytes or budget._used_by or budget._senior:
            yield f"{budget.used_bytes} bytes of a budget of bodies, of {list(budget._used_by)}"
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
