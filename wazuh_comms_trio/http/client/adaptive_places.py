"""How many calls a backend is given at a time: as many as it answers promptly.

AIMD on latency. A call is slow that takes more than three times as long as the quickest of the last minute or two, and
more than a quarter of a second, or that isn't answered. Where all places are taken, each prompt call adds a part of a
place, one in a round of calls; a slow one takes a fifth of them away, once in a round. A backend whose work waits in a
queue of its own is so kept busy with a short one, also after it has become slower, and isn't sent what it would answer
when nobody waits for it any more.

Those for whom there is no place wait here. The oldest goes first while it has waited briefly, then the newest: what has
waited for long would mostly be given up on the way.
"""

from __future__ import annotations

from math import inf
from typing import Final

import trio

__all__ = ["AdaptivePlaces"]

#: Seconds, and multiples of the quickest call, within which a call is prompt.
PROMPT: Final = 0.25
PROMPT_MULTIPLE: Final = 3.0
#: Of the places, after a slow call.
LOWERED: Final = 0.8
#: Seconds; the quickest call is that of one or two such times.
WINDOW: Final = 60.0
#: Seconds that the oldest has waited from which on the newest goes first.
NEWEST_FIRST_AFTER: Final = 1.0


class AdaptivePlaces:
    """Between ``least`` and ``most`` places, ``first`` in the beginning. Each ``acquire`` is followed by one
    ``release``."""

    def __init__(self, *, least: int, first: int, most: int) -> None:
        self.least = least
        self.most = most
        self.limit: float = first
        self.in_use = 0
        self._waiting: dict[trio.lowlevel.Task, float] = {}  # since when, in that order
        self._lowered_at = -inf
        self._quickest = self._quickest_before = inf
        self._window_end = -inf

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def acquire(self) -> float:
        """Waits for a place; the moment it was there, on trio's clock. Cancelled: none is taken."""
        await trio.lowlevel.checkpoint()
        if self._waiting or not self._has_room():
            task = trio.lowlevel.current_task()
            self._waiting[task] = trio.current_time()

            def give_up(_: object) -> trio.lowlevel.Abort:
                del self._waiting[task]
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(give_up)  # whoever let it go on has counted it
        else:
            self.in_use += 1
        return trio.current_time()

    def release(self, began: float, *, answered: bool | None) -> None:
        """Gives a place back; ``began``: what ``acquire`` returned. ``answered``: whether the backend did its work;
        None: the time that it took says nothing of the backend."""
        now = trio.current_time()
        if answered is not None:
            self._judge(began, now, answered=answered)
        self.in_use -= 1
        while self._waiting and self._has_room():
            oldest = next(iter(self._waiting))
            task = next(reversed(self._waiting)) if now - self._waiting[oldest] > NEWEST_FIRST_AFTER else oldest
            del self._waiting[task]
            self.in_use += 1
            trio.lowlevel.reschedule(task)

    def _has_room(self) -> bool:
        return self.in_use < int(self.limit)

    def _judge(self, began: float, now: float, *, answered: bool) -> None:
        took = now - began
        if answered:
            self._note_quickest(took, now)
            if took <= max(PROMPT, PROMPT_MULTIPLE * min(self._quickest, self._quickest_before)):
                if self.in_use >= int(self.limit):
                    step = 1.0 if self._lowered_at == -inf else 1 / self.limit
                    self.limit = min(self.most, self.limit + step)
                return
        if began >= self._lowered_at:  # of those that began before, one has spoken for all
            self.limit = max(self.least, self.limit * LOWERED)
            self._lowered_at = now

    def _note_quickest(self, took: float, now: float) -> None:
        if now >= self._window_end:
            self._quickest_before = self._quickest if now < self._window_end + WINDOW else inf
            self._quickest = inf
            self._window_end = now + WINDOW
        self._quickest = min(self._quickest, took)
