"""Whose bytes are read next, where several have much to send: one of them in a turn of the event loop, one piece.

Every step of every request waits for a turn, and connections are begun by the turn (``crowd.Turns``). Fifty bodies of
95 MiB, each read whenever there was something of it, made turns of 17 to 30 ms, in which fewer connections were begun
than came: honest agents waited for up to ten seconds.

Long ones go in the order in which they came, two at a time (one is called when the other has its piece), so that the
first are whole early: read in turn, all of them would be half there when there is no more room. Others go in turn, and
have every second piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

import trio

from wazuh_comms_trio.errors import Overloaded

__all__ = ["LONGEST_WAIT", "LONG_BYTES", "PIECE_BYTES", "Place", "ReadingTurns"]

#: What is read between two turns of the same sender, and before its first: half a millisecond of the event loop.
PIECE_BYTES: Final = 256 * 1024
#: From this size on what is sent is long.
LONG_BYTES: Final = 8 * 1024 * 1024
#: Seconds that a sender waits for its turns in all, a third of those that an agent waits for its answer: the rest is
#: for what comes after. Waiting costs nothing but a connection.
LONGEST_WAIT: Final = 20.0


class ReadingTurns:
    """Those of one listener's connections. ``refused`` is told how many waited for too long."""

    def __init__(self, refused: Callable[[int], object] = lambda count: None) -> None:
        self.refused = refused
        self.numbers = count()
        self._last: Place | None = None  # who had the last piece
        self._called = False  # somebody has the next turn of the event loop; only then do others wait
        self._long: list[_Waiting] = []  # a heap
        self._others: deque[_Waiting] = deque()
        self._long_was_last = False

    async def next(self, place: Place, *, is_long: bool) -> None:
        """Waits for the place's turn; returns at once while nobody else is read. Raises ``Overloaded`` when it has
        waited for too long in all."""
        if self._called:
            await self._wait(place, is_long=is_long)
        elif self._last is not place:
            self._called = True
            try:
                await trio.lowlevel.checkpoint()
            finally:
                self._call_next()
        self._last = place

    async def _wait(self, place: Place, *, is_long: bool) -> None:
        waiting = _Waiting(place)
        if is_long:
            heappush(self._long, waiting)
        else:
            self._others.append(waiting)
        began = trio.current_time()
        has_turn = False
        try:
            with trio.move_on_after(max(0.0, LONGEST_WAIT - place.waited)):
                await waiting.called.wait()
                has_turn = True
        finally:
            place.waited += trio.current_time() - began
            waiting.gone = True
            if waiting.called.is_set():  # also when it was cancelled in the moment in which it was called
                self._call_next()
        if not has_turn:
            self.refused(1)
            raise Overloaded

    def _call_next(self) -> None:
        following = self._take(is_long=not self._long_was_last) or self._take(is_long=self._long_was_last)
        self._called = following is not None
        if following is not None:
            following.called.set()

    def _take(self, *, is_long: bool) -> _Waiting | None:
        while self._long if is_long else self._others:
            first = heappop(self._long) if is_long else self._others.popleft()
            if not first.gone:
                self._long_was_last = is_long
                return first
        return None


class Place:
    """One sender's place among those that are read, in the order in which they are made. ``read_to``: where its next
    piece begins, before which ``next_piece`` is called."""

    __slots__ = ("_number", "_turns", "read_to", "waited")

    def __init__(self, turns: ReadingTurns) -> None:
        self._turns = turns
        self._number = next(turns.numbers)
        self.read_to = PIECE_BYTES
        self.waited = 0.0

    async def next_piece(self, received: int, declared: int | None) -> None:
        """Waits for its turn, after so many bytes of the ``declared``. Raises ``Overloaded``."""
        await self._turns.next(self, is_long=max(received, declared or 0) > LONG_BYTES)
        self.read_to = received + PIECE_BYTES

    def __lt__(self, other: Place) -> bool:
        return self._number < other._number


class _Waiting:
    __slots__ = ("called", "gone", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.called = trio.Event()
        self.gone = False

    def __lt__(self, other: _Waiting) -> bool:
        return self.place < other.place
