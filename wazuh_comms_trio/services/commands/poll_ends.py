"""When parked polls end: of all of them trio knows the deadlines of those that end next.

Trio rebuilds its heap of deadlines within one turn of the event loop whenever half of it is of no use any more, and
each connection leaves something there. With a deadline for each of 10 000 parked polls that took 10 ms, again and
again.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Protocol

import trio

__all__ = ["Ending", "PollEnds"]


class Ending(Protocol):
    """What waits in ``scope``, which has no deadline yet, until ``end`` (trio's clock) at the latest."""

    scope: trio.CancelScope
    end: float


class PollEnds:
    """All that wait, by the second in which they end. Those of the first second have deadlines; when the last of them
    is removed the next second's get theirs. So what ends is cancelled by trio, at its moment, and needs no task. Adding
    and removing costs the same however many wait.
    """

    def __init__(self) -> None:
        self._by_second: dict[int, dict[Ending, None]] = {}
        self._seconds: list[int] = []  # a heap of the keys: those without anybody are there until they are the first
        self._first: float = inf

    def add(self, ending: Ending) -> None:
        """``ending`` begins to wait."""
        second = int(ending.end)
        of_second = self._by_second.get(second)
        if of_second is None:
            of_second = self._by_second[second] = {}
            heappush(self._seconds, second)
        of_second[ending] = None
        if second <= self._first:
            self._first = second
            ending.scope.deadline = ending.end

    def shorten(self, ending: Ending, end: float) -> None:
        """``ending``, which waits, is to end at ``end``, which is earlier than it was."""
        self.remove(ending)
        ending.end = end
        self.add(ending)

    def remove(self, ending: Ending) -> None:
        """``ending`` waits no more."""
        second = int(ending.end)
        of_second = self._by_second[second]
        del of_second[ending]
        if not of_second and second == self._first:
            self._go_on()

    def _go_on(self) -> None:
        while self._seconds:
            of_second = self._by_second[self._seconds[0]]
            if of_second:
                self._first = self._seconds[0]
                for ending in of_second:
                    ending.scope.deadline = ending.end
                return
            del self._by_second[heappop(self._seconds)]
        self._first = inf
