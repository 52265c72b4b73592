"""What happened between two snapshots of a node's metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

from attrs import frozen

from wazuh_comms_trio.metrics.busiest import Busy
from wazuh_comms_trio.metrics.families import FAMILIES, Family

__all__ = ["Rates", "Timing"]

_Key = tuple[str, tuple[str, ...]]


@frozen
class Timing:
    """How often something happened, and how long it took; ``count`` a second; seconds, None where nothing happened.
    ``p95``: the bound of the bucket that it is in."""

    count: float
    mean: float | None
    p95: float | None


class Rates:
    """Two snapshots of a node; ``seconds`` lie between the two. A counter that went back began anew: a daemon was
    restarted."""

    def __init__(self, before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> None:
        self._before, self._after = _values(before), _values(after)
        self._old, self._new = _histograms(before), _histograms(after)
        #: Of the last minute, the busiest first: id, requests a second, bytes a second.
        self.agents: list[Busy] = [(row[0], row[1], row[2]) for row in after.get("agents", ())]
        self._seconds = max(seconds, 0.001)

    def gauge(self, family: Family, **labels: str) -> float:
        return sum(value for _, value in self._matching(self._after, family, labels))

    def rate(self, family: Family, **labels: str) -> float:
        """How much all counters with these labels grew in a second; a value may end with ``*``."""
        total = 0.0
        for key, value in self._matching(self._after, family, labels):
            before = self._before.get(key, 0.0)
            total += value - before if value >= before else value
        return total / self._seconds

    def timings(self, family: Family) -> dict[tuple[str, ...], Timing]:
        """Timings by labels."""
        found = {}
        for (name, labels), (counts, total) in self._new.items():
            if name != family.name:
                continue
            old_counts, old_total = self._old.get((name, labels), ([0] * len(counts), 0.0))
            if sum(old_counts) > sum(counts):
                old_counts, old_total = [0] * len(counts), 0.0
            grown = [new - old for new, old in zip(counts, old_counts, strict=True)]
            number = sum(grown)
            mean = (total - old_total) / number if number else None
            found[labels] = Timing(number / self._seconds, mean, _quantile(family, grown, 0.95) if number else None)
        return found

    @staticmethod
    def _matching(
        values: Mapping[_Key, float], family: Family, wanted: Mapping[str, str]
    ) -> Iterator[tuple[_Key, float]]:
        for key, value in values.items():
            if key[0] == family.name:
                labels = dict(zip(family.labels, key[1], strict=True))
                if all(_fits(labels[name], pattern) for name, pattern in wanted.items()):
                    yield key, value


def _fits(value: str, pattern: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern


def _values(snapshot: Mapping[str, Any]) -> dict[_Key, float]:
    return {(name, tuple(labels)): value for name, labels, value in snapshot.get("values", ()) if name in FAMILIES}


def _histograms(snapshot: Mapping[str, Any]) -> dict[_Key, tuple[list[int], float]]:
    return {(name, tuple(labels)): (counts, total) for name, labels, counts, total, _ in snapshot.get("histograms", ())}


def _quantile(family: Family, counts: list[int], share: float) -> float:
    wanted, sofar = share * sum(counts), 0
    for bound, count in zip((*family.buckets, inf), counts, strict=True):
        sofar += count
        if sofar >= wanted:
            return bound
    return inf
