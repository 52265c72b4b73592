"""What came of the requests: counts, latencies and the client's own lateness, by kind and over time. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import define, frozen

__all__ = ["Histogram", "Kind", "Slice", "Tally"]

#: Buckets grow by 2 %, from 10 µs on.
_SMALLEST: Final = 1e-5
_PER_E: Final = 1 / math.log(1.02)
#: Of errors told apart, for a kind; the rest is counted together.
_CAUSES: Final = 20
#: Of time, kept: beyond, two become one.
_SLICES: Final = 1200


class Kind:
    """Names of requests, as reports show them."""

    FIRST_LOG_IN: Final = "log-in, first"
    LOG_IN: Final = "log-in, again"
    STATELESS: Final = "stateless"
    STATEFUL: Final = "stateful"
    POLL: Final = "poll"
    FILE: Final = "file"
    REPORT: Final = "report"


class Histogram:
    """Latencies in seconds, in buckets of 2 %."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self.count += 1
        self.longest = max(self.longest, seconds)
        self._buckets[int(math.log(seconds / _SMALLEST) * _PER_E) + 1 if seconds > _SMALLEST else 0] += 1

    def quantile(self, share: float) -> float | None:
        """A quantile as the upper bound of its bucket, at most the longest; None where there is nothing."""
        wanted, passed = math.ceil(share * self.count), 0
        for bucket in sorted(self._buckets):
            passed += self._buckets[bucket]
            if passed >= wanted > 0:
                return min(self.longest, _SMALLEST * math.exp(bucket / _PER_E))
        return None

    def merge(self, other: Histogram) -> None:
        self.count += other.count
        self.longest = max(self.longest, other.longest)
        self._buckets.update(other._buckets)


@frozen
class Slice:
    """Some seconds of the run: ``start`` and ``length``; requests that ended, errors among them; seconds, None where
    nothing ended; polls parked at its end."""

    start: float
    length: float
    requests: int
    errors: int
    p50: float | None
    p99: float | None
    late: float
    parked: int

    def joined(self, after: Slice) -> Slice:
        """This slice and the next one together: of percentiles, the worse."""

        def worse(one: float | None, other: float | None) -> float | None:
            return max((each for each in (one, other) if each is not None), default=None)

        return Slice(
            self.start,
            self.length + after.length,
            self.requests + after.requests,
            self.errors + after.errors,
            worse(self.p50, after.p50),
            worse(self.p99, after.p99),
            max(self.late, after.late),
            after.parked,
        )


@define
class Outcomes:
    """What came of the requests of one kind. ``latencies`` are from the planned moment to the reply, of what was
    answered well."""

    latencies: Histogram
    errors: Counter[str]

    @property
    def failed(self) -> int:
        return self.errors.total()


class Tally:
    """What came of the requests in one stretch of the run (the start, or the rest)."""

    def __init__(self) -> None:
        self.kinds: defaultdict[str, Outcomes] = defaultdict(lambda: Outcomes(Histogram(), Counter()))
        #: From the moment that a request could have begun to the one that it did.
        self.late = Histogram()
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.commands = 0

    def done(self, kind: str, status: int, seconds: float) -> None:
        self.kinds[kind].latencies.add(seconds)
        self.statuses[kind, status] += 1

    def failed(self, kind: str, cause: str) -> None:
        errors = self.kinds[kind].errors
        errors[cause if cause in errors or len(errors) < _CAUSES else "others"] += 1

    @property
    def requests(self) -> int:
        return sum(outcomes.latencies.count + outcomes.failed for outcomes in self.kinds.values())

    @property
    def errors(self) -> int:
        return sum(outcomes.failed for outcomes in self.kinds.values())

    def latencies(self, kinds: Mapping[str, object] | None = None) -> Histogram:
        """The latencies of all kinds, or of these, together; without polls, which wait, and slow links, which are
        slow."""
        together = Histogram()
        for kind, outcomes in self.kinds.items():
            if (kinds is None and is_quick(kind)) or (kinds is not None and kind in kinds):
                together.merge(outcomes.latencies)
        return together


def over_slow_link(kind: str) -> str:
    return f"{kind}, slow link"


def is_quick(kind: str) -> bool:
    return kind != Kind.POLL and not kind.endswith("slow link")


class Timeline:
    """Slices of a run, of ``length`` seconds at first."""

    def __init__(self, length: float = 1.0) -> None:
        self.slices: list[Slice] = []
        self._length = length
        self._latencies: list[float] = []
        self._requests = self._errors = 0
        self._late = 0.0

    def done(self, seconds: float | None) -> None:
        """Notes a request that ended; None: of a kind whose latency says nothing."""
        self._requests += 1
        if seconds is not None:
            self._latencies.append(seconds)

    def failed(self) -> None:
        self._requests += 1
        self._errors += 1

    def late(self, seconds: float) -> None:
        self._late = max(self._late, seconds)

    def close_slice(self, start: float, length: float, parked: int) -> Slice:
        """The slice of what was noted since the last call."""
        sorted_latencies = sorted(self._latencies)
        p50, p99 = _of(sorted_latencies, 0.5), _of(sorted_latencies, 0.99)
        closed = Slice(start, length, self._requests, self._errors, p50, p99, self._late, parked)
        self._latencies, self._requests, self._errors, self._late = [], 0, 0, 0.0
        last = self.slices[-1] if self.slices else None
        if last is not None and last.length + length <= self._length * 1.01:
            self.slices[-1] = last.joined(closed)
        else:
            self.slices.append(closed)
        if len(self.slices) > _SLICES:
            pairs = zip(self.slices[::2], self.slices[1::2], strict=False)
            odd = self.slices[-1:] if len(self.slices) % 2 else []
            self.slices = [one.joined(other) for one, other in pairs] + odd
            self._length *= 2
        return closed


def _of(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None
