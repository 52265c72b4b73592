"""Which agents a worker has most to do for: a bounded table of the last minute. They are no labels of metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from heapq import nlargest
from math import inf
from typing import Final, TypeAlias

__all__ = ["BusiestAgents", "Busy", "busiest"]

#: An agent's id, requests a second, bytes of their bodies a second.
Busy: TypeAlias = tuple[str, float, float]
#: Seconds of one of the two windows: what is told is of the last ``WINDOW`` to ``2 * WINDOW``.
WINDOW: Final = 30.0
#: Agents in a window: about 2 MB for both. Of more, the half with less to do is forgotten, and begins anew.
MOST: Final = 5000
#: Seconds between two looks at the table.
FRESH: Final = 5.0
#: Agents that are told.
TOLD: Final = 40


class BusiestAgents:
    """``clock`` gives seconds. Counting takes about a microsecond."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._turned = clock()
        self._now: dict[str, list[float]] = {}
        self._before: dict[str, list[float]] = {}
        self._told: list[Busy] = []
        self._told_at = -inf

    def count(self, agent_id: str, received: int) -> None:
        """Counts a request with a body of so many bytes."""
        self._turn()
        found = self._now.get(agent_id)
        if found is None:
            if len(self._now) >= MOST:
                self._now = dict(_largest(self._now, MOST // 2))
            found = self._now[agent_id] = [0, 0]
        found[0] += 1
        found[1] += received

    def told(self) -> list[Busy]:
        """The busiest first, as of ``FRESH`` seconds ago at most: of thousands, looking takes milliseconds."""
        now = self._clock()
        if now - self._told_at >= FRESH:
            self._told_at, self._told = now, self._look()
        return self._told

    def _look(self) -> list[Busy]:
        self._turn()
        both = {agent_id: list(counts) for agent_id, counts in self._before.items()}
        for agent_id, (requests, received) in self._now.items():
            sofar = both.setdefault(agent_id, [0, 0])
            sofar[0] += requests
            sofar[1] += received
        seconds = max(self._clock() - self._began, 1.0)
        rows = _largest(both, TOLD)
        return [(agent_id, round(counts[0] / seconds, 3), round(counts[1] / seconds, 1)) for agent_id, counts in rows]

    def _turn(self) -> None:
        now = self._clock()
        if now - self._turned >= WINDOW:
            is_old = now - self._turned >= 2 * WINDOW
            self._before, self._now = {} if is_old else self._now, {}
            self._began, self._turned = now - WINDOW if is_old else self._turned, now


def busiest(rows: Iterable[Busy]) -> list[Busy]:
    """The busiest agents of several workers: an agent's counts are added."""
    both: dict[str, list[float]] = {}
    for agent_id, requests, received in rows:
        sofar = both.setdefault(agent_id, [0.0, 0.0])
        sofar[0] += requests
        sofar[1] += received
    return [(agent_id, counts[0], counts[1]) for agent_id, counts in _largest(both, TOLD)]


def _largest(table: dict[str, list[float]], most: int) -> list[tuple[str, list[float]]]:
    """The agents with the largest share of all requests or of all bytes, whichever is larger."""
    requests = sum(counts[0] for counts in table.values()) or 1
    received = sum(counts[1] for counts in table.values()) or 1
    return nlargest(most, table.items(), key=lambda item: max(item[1][0] / requests, item[1][1] / received))
