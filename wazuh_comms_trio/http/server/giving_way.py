"""Bulk work gives way to what is urgent, while more connections come than are served.

What is urgent (a command's delivery, a balancer's check) takes some nine turns of the event loop, each of which is as
long as all that became ready since the last one: tens of milliseconds on a processor that is short. So while
something urgent is under way, requests stand still where their next step is a long one, and one of them goes on in each
turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.http.server.streams.client_hello import is_check

__all__ = ["LONGEST_HOLD", "GivingWay", "Precedence"]

#: Seconds for which what is urgent has precedence, in twice that time.
LONGEST_HOLD: Final = 0.1
#: Seconds within which a check has been answered, or its peer is what is slow; and has begun once it was seen.
CHECKED_WITHIN: Final = 0.25
BEGUN_WITHIN: Final = 0.05
#: Seconds between two looks at who may go on while nothing is begun.
LOOK_PAUSE: Final = 0.002
#: How many go on in a turn when nothing is urgent any more, at least; of many the half.
GO_ON_AT_ONCE: Final = 4


@define
class Precedence:
    """Whether something urgent goes before agents' connections: a command's delivery finds the event loop nearly
    to itself once what is under way has been served. At most half of the time is such."""

    _ends: float = field(default=-inf, init=False)

    def holds(self, urgent: bool, now: float) -> bool:
        if urgent and now >= self._ends + LONGEST_HOLD:
            self._ends = now + LONGEST_HOLD
        return urgent and now < self._ends


@define(eq=False)
class GivingWay:
    """For the connections of one kind of listener. ``urgent``: whether something is under way beside their checks."""

    urgent: Callable[[], bool]
    _precedence: Precedence = field(factory=Precedence, init=False)
    _still: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _crowds: int = field(default=0, init=False)
    _checks: int = field(default=0, init=False)
    _last_check: float = field(default=-inf, init=False)
    _comes_until: float = field(default=-inf, init=False)

    @property
    def waiting(self) -> int:
        """How many requests stand still."""
        return len(self._still)

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """While the block runs a crowd is served, and ``go_on`` called in each turn of the event loop. At its end all
        go on."""
        self._crowds += 1
        try:
            yield
        finally:
            self._crowds -= 1
            if not self._crowds:
                self._still.unpark_all()

    def check_comes(self, now: float) -> None:
        """A check was seen, and is begun soon."""
        self._comes_until = now + BEGUN_WITHIN

    async def before_handshake(self, first: bytes | bytearray) -> bool:
        """As ``before_long_step``, but for a check. Whether it is one, by its ``first`` bytes: then ``end_check``
        follows when it has been answered."""
        if not self._crowds or not is_check(first):
            await self.before_long_step()
            return False
        self._checks += 1
        self._last_check = trio.current_time()
        self._comes_until = -inf
        return True

    def end_check(self) -> None:
        self._checks -= 1

    def holds(self, now: float) -> bool:
        """Whether what is urgent has precedence."""
        checks = now < self._comes_until or (self._checks > 0 and now - self._last_check < CHECKED_WITHIN)
        return self._precedence.holds(checks or self.urgent(), now)

    async def before_long_step(self, *, urgent: bool = False) -> None:
        """Waits, unless it is ``urgent`` itself, while others have precedence: in order, as long as there is a crowd.
        For a handshake, reading a body, a reply."""
        if self._crowds and not urgent and (self._still or self.holds(trio.current_time())):
            await self._still.park()

    async def sleep(self, seconds: float) -> None:
        """Sleeps while nothing can be begun. In a crowd those that stand still go on meanwhile, as in its turns."""
        end = trio.current_time() + seconds
        while self._crowds and (now := trio.current_time()) < end:
            self.go_on(holds=self.holds(now))
            await trio.sleep(min(LOOK_PAUSE, end - now))
        await trio.sleep_until(end)

    def go_on(self, *, holds: bool) -> None:
        """Lets the next go on: while checks have precedence one, and nobody before a delivery, which waits for the
        disk, whose threads need the processor."""
        if not holds:
            self._still.unpark(count=max(GO_ON_AT_ONCE, len(self._still) // 2))
        elif not self.urgent():
            self._still.unpark()
