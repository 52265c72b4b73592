"""Secrets that wait for a processor to hash on: the oldest is next, and those whose turn can't come in time are refused
one after the other, long before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import define, field

__all__ = ["HashingQueue"]

#: How much the last hashing's time counts in the mean of them.
_NEWEST_COUNTS: Final = 0.1
#: ... and as how many times the mean at most: of a process that was stopped for seconds it says nothing.
_LONGEST: Final = 4.0


@define(eq=False)
class _Waiting:
    """``latest``: when its turn may come at the latest, trio's clock. ``decided`` is set with ``begins``, or without:
    its turn won't come in time."""

    latest: float
    begins: bool = False
    decided: trio.Event = field(factory=trio.Event)


class HashingQueue:
    """``at_once`` are hashed at a time. ``seconds``: what one takes, as of late; 0 before the first."""

    def __init__(self, at_once: int) -> None:
        self.at_once: int = at_once
        self.seconds: float = 0.0
        self._running = 0
        self._waiting: dict[_Waiting, None] = {}  # in the order they came
        self._to_refuse = 0.0

    async def hashed(self, check: Callable[[], Awaitable[bool]], latest: float) -> bool | None:
        """What ``check`` says. None, and it isn't called, when that could begin only after ``latest`` (trio's clock):
        at that moment or before it."""
        if not await self._begins(latest):
            return None
        began = trio.current_time()
        try:
            return await check()
        finally:
            self._note(trio.current_time() - began)
            self._pass_on()

    def _note(self, took: float) -> None:
        """Notes what one hashing took."""
        if self.seconds:
            self.seconds += (min(took, _LONGEST * self.seconds) - self.seconds) * _NEWEST_COUNTS
        else:
            self.seconds = took

    async def _begins(self, latest: float) -> bool:
        if trio.current_time() > latest:
            return False
        if self._running < self.at_once:
            self._running += 1
            return True
        waiting = _Waiting(latest)
        self._waiting[waiting] = None
        try:
            with trio.move_on_at(latest):
                await waiting.decided.wait()
        except BaseException:
            if waiting.begins:
                self._pass_on()
            raise
        finally:
            self._waiting.pop(waiting, None)
        return waiting.begins

    def _pass_on(self) -> None:
        self._running -= 1
        now = trio.current_time()
        while self._waiting and self._running < self.at_once:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.begins = oldest.latest >= now
            oldest.decided.set()
            self._running += oldest.begins
        self._refuse_some(now)

    def _refuse_some(self, now: float) -> None:
        """Hashing has become slower than it was when they were let in: the newest are refused, so many at a time that
        those for whom there is no time are refused evenly until then. All at their last moment would be one wave, which
        comes back half a minute later."""
        if not self._waiting or not self.seconds:
            self._to_refuse = 0.0
            return
        left, each = next(reversed(self._waiting)).latest - now, self.seconds / self.at_once
        too_many = len(self._waiting) - left / each
        if too_many <= 0:
            self._to_refuse = 0.0
            return
        self._to_refuse += too_many * each / max(left, each)
        while self._waiting and self._to_refuse >= 1:
            self._to_refuse -= 1
            self._waiting.popitem()[0].decided.set()
