"""Snapshots of several workers become the node's: counters are added, gauges as their family says, and what an ended
worker counted is kept.

A snapshot is JSON: ``{"values": [[name, [labels], value]], "histograms": [[name, [labels], [counts], sum,
[exemplars]]], "agents": [[id, requests a second, bytes a second]]}``; ``agents`` are the busiest alone. A worker of a
later version may count what isn't in our table: that is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from wazuh_comms_trio.metrics.busiest import Busy, busiest
from wazuh_comms_trio.metrics.families import FAMILIES, Family

__all__ = ["NodeMetrics", "Snapshot", "add_up"]

Snapshot: TypeAlias = Mapping[str, Any]
_Key = tuple[str, tuple[str, ...]]


def add_up(snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    """One snapshot of many."""
    values: dict[_Key, float] = {}
    histograms: dict[_Key, list[Any]] = {}
    agents: list[Busy] = []
    for snapshot in snapshots:
        for name, labels, value in snapshot.get("values", ()):
            family = FAMILIES.get(name)
            if family is None or len(labels) != len(family.labels):
                continue
            key = (name, tuple(labels))
            values[key] = _combined(family, values[key], value) if key in values else value
        for name, labels, counts, total, exemplars in snapshot.get("histograms", ()):
            family = FAMILIES.get(name)
            if family is None or len(labels) != len(family.labels) or len(counts) != len(family.buckets) + 1:
                continue
            sofar = histograms.setdefault((name, tuple(labels)), [[0] * len(counts), 0.0, [None] * len(counts)])
            sofar[0] = [a + b for a, b in zip(sofar[0], counts, strict=True)]
            sofar[1] += total
            sofar[2] = [_newer(a, b) for a, b in zip(sofar[2], exemplars, strict=True)]
        agents += snapshot.get("agents", ())
    node: dict[str, Any] = {
        "values": [[name, list(labels), value] for (name, labels), value in values.items()],
        "histograms": [[name, list(labels), *parts] for (name, labels), parts in histograms.items()],
    }
    if agents:
        node["agents"] = [list(row) for row in busiest(agents)]
    return node


def _combined(family: Family, one: float, other: float) -> float:
    if family.kind == "counter" or family.combine == "sum":
        return one + other
    return max(one, other) if family.combine == "max" else min(one, other)


def _newer(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda exemplar: exemplar[2])


class NodeMetrics:
    """The last snapshot of each worker, and what ended ones counted. A worker that is killed takes with it what it
    counted since its last snapshot: a second and a half's."""

    def __init__(self) -> None:
        self._latest: dict[str, Snapshot] = {}
        self._ended: Snapshot = {}

    def note(self, worker: str, snapshot: Snapshot) -> None:
        self._latest[worker] = snapshot

    def ended(self, worker: str) -> None:
        last = self._latest.pop(worker, None)
        if last is not None:
            counters = [each for each in last.get("values", ()) if _is_counter(each[0])]
            self._ended = add_up([self._ended, {**last, "values": counters, "agents": []}])

    def snapshot(self, *more: Snapshot) -> dict[str, Any]:
        """The node's snapshot; ``more``: what the supervisor counts itself."""
        return add_up([self._ended, *self._latest.values(), *more])


def _is_counter(name: str) -> bool:
    family = FAMILIES.get(name)
    return family is not None and family.kind == "counter"
