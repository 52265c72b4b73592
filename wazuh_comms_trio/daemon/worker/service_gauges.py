"""What the services of a worker's tree say in metrics beside what they count. Doesn't block."""

from __future__ import annotations

from collections.abc import Iterator

from wazuh_comms_trio.api.quart_application import QuartApplication
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Reading
from wazuh_comms_trio.services import Services
from wazuh_comms_trio.services.readiness import READY

__all__ = ["read_service_gauges"]


def read_service_gauges(services: Services, app: QuartApplication) -> Iterator[Reading]:
    """Reads the gauges of the services of a worker's tree."""
    stateful = services.stateful.statistics()
    yield families.POLLS_PARKED, (), services.commands.parked
    yield families.BATCHER_PACKETS, (), stateful.waiting
    yield families.BATCHER_LIMIT, (), stateful.room
    yield families.BATCHES_IN_FLIGHT, (), stateful.batches_in_flight + stateful.pieces_in_flight
    yield families.READY, (), float(services.readiness.state == READY)
    yield families.WARNINGS, ("calls",), float(bool(services.failing.lines()))
    yield families.SHED, (), services.refusals.total
    for what, number in services.refusals.by_cause.items():
        yield families.SHED_BY_CAUSE, (what.replace(" ", "_"),), number
    yield families.BUDGET_USED, ("agents",), app.body_budget.used_bytes
    yield families.BUDGET_LIMIT, ("agents",), app.body_budget.limit_bytes
