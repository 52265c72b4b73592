"""What a node's metrics say of the node itself, beside what its workers count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from wazuh_comms_trio.foundation.extras import installed_version
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.families import Family

__all__ = ["node_metrics"]

_STATES: Final = ("starting", "serving", "stopping")


def node_metrics(
    states: Sequence[str], *, configured: int, generation: int, started: float, restarts: int, has_leader: bool
) -> dict[str, Any]:
    """A snapshot of the node's own metrics. ``states``: of the workers."""
    counted = Counter(states)
    values: list[tuple[Family, tuple[str, ...], float]] = [
        *((families.WORKERS, (state,), counted[state]) for state in _STATES),
        (families.WORKERS_CONFIGURED, (), configured),
        (families.RESTARTS, (), restarts),
        (families.LEADERS, (), float(has_leader)),
        (families.GENERATION, (), generation),
        (families.STARTED, (), started),
        (families.BUILD, (installed_version("unknown"),), 1),
    ]
    if not counted["serving"]:
        values.append((families.READY, (), 0))
    return {"values": [[family.name, list(labels), value] for family, labels, value in values]}
