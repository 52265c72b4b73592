"""Plain values that one worker counts. Nothing is locked and nothing formed until somebody asks: counting takes some
hundred nanoseconds."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Final

from wazuh_comms_trio.foundation.log_context import REQUEST
from wazuh_comms_trio.metrics.busiest import BusiestAgents
from wazuh_comms_trio.metrics.families import Family

__all__ = ["Metrics", "Reading"]

#: Combinations of one family's labels; further ones are counted as ``other``. With all families below 1 MB.
MAX_SERIES: Final = 200
OTHER: Final = "other"

#: One gauge's value, or a counter's that is kept elsewhere.
Reading = tuple[Family, tuple[str, ...], float]


class Histogram:
    """How often a value fell into each bucket; ``counts`` has one more than the family's buckets, for what is above.
    ``exemplars``: of each bucket the request that fell into it last, with its value and the moment (epoch seconds)."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: list[tuple[str, float, float] | None] = [None] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        if (request := REQUEST.get()) is not None:
            self.exemplars[bucket] = (request, value, time.time())


class Metrics:
    """What one worker counted since it began. ``read`` adds a function that is called for gauges at each snapshot."""

    def __init__(self) -> None:
        self.agents: BusiestAgents = BusiestAgents()
        self._counters: dict[tuple[str, ...], float] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._series: dict[str, int] = {}
        self._readers: list[Callable[[], Iterable[Reading]]] = []

    def count(self, family: Family, *labels: str, by: float = 1) -> None:
        key = (family.name, *labels)
        counters = self._counters
        if key in counters:
            counters[key] += by
        else:
            key = self._bounded(family, key)
            counters[key] = counters.get(key, 0) + by

    def observe(self, family: Family, value: float, *labels: str) -> None:
        key = (family.name, *labels)
        histogram = self._histograms.get(key)
        if histogram is None:
            histogram = self._histograms.setdefault(self._bounded(family, key), Histogram(family.buckets))
        histogram.observe(value)

    def read(self, reader: Callable[[], Iterable[Reading]]) -> None:
        self._readers.append(reader)

    def value(self, family: Family, *labels: str) -> float:
        """The value of a counter, or how often a histogram was given something."""
        key = (family.name, *labels)
        if family.kind == "histogram":
            histogram = self._histograms.get(key)
            return 0 if histogram is None else sum(histogram.counts)
        return self._counters.get(key, 0)

    def snapshot(self) -> dict[str, Any]:
        """The counts as JSON: what ``snapshots.py`` adds up."""
        values: list[list[Any]] = [[key[0], list(key[1:]), value] for key, value in self._counters.items()]
        for reader in self._readers:
            values += [[family.name, list(labels), value] for family, labels, value in reader()]
        histograms = [
            [key[0], list(key[1:]), histogram.counts.copy(), histogram.total, histogram.exemplars.copy()]
            for key, histogram in self._histograms.items()
        ]
        return {"values": values, "histograms": histograms, "agents": self.agents.told()}

    def _bounded(self, family: Family, key: tuple[str, ...]) -> tuple[str, ...]:
        assert len(key) == 1 + len(family.labels), key
        known = self._series[family.name] = self._series.get(family.name, 0) + 1
        return key if known <= MAX_SERIES else (family.name, *(OTHER for _ in family.labels))
