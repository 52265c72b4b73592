"""How much of collected bodies may be in memory, or in files, at once, and whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from math import inf
from operator import itemgetter
from typing import Final

import trio

__all__ = ["BodyBudget", "Share"]

#: An agent has no more than one part of so many while others wait that have less.
FAIR_SHARES: Final = 10
#: Seconds that somebody waits for room before replies that are read slowly are ended for it; and that a reply has been
#: read for, and will be for at least, when it is one of those.
PATIENCE: Final = 0.5
SPARED: Final = 2.0


class Share:
    """One body's part of the budget, or its reply's. ``owner``: whose it is; None: nobody's in particular, then there
    is no limit. ``waited``: seconds that the peer has taken to read ``read_bytes`` of the reply."""

    __slots__ = ("held_bytes", "owner", "read_bytes", "waited")

    def __init__(self, owner: Hashable = None) -> None:
        self.held_bytes = 0
        self.owner = owner
        self.read_bytes = 0
        self.waited = 0.0


class BodyBudget:
    """A limit on the bytes of all collected bodies, which they share.

    Bytes are counted as they arrive, not as they are declared: a client that announces 100 MB and sends nothing takes
    nothing.
    When the budget is used up, the bodies that grow wait, and with them their senders; one of them, the *senior*, may
    go on to its own limit all the same, so that they can't all wait for each other. An agent that has a tenth waits
    for those that have less. For these the replies that are read slowest are ended, as many as make the room.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        no_room: Callable[[], object] = lambda: None,
        ended_reader: Callable[[], object] = lambda: None,
    ) -> None:
        self.limit_bytes = limit_bytes
        #: Called for each body that waited in vain, and each reply that was ended.
        self.no_room = no_room
        self.ended_reader = ended_reader
        self._readers: dict[Share, tuple[trio.CancelScope, float]] = {}
        self.used_bytes = 0
        self._senior: Share | None = None
        self._parking = trio.lowlevel.ParkingLot()
        self._used_by: Counter[Hashable] = Counter()
        self._modest: Counter[Hashable] = Counter()  # owners that wait and would have less than a tenth

    async def take(self, share: Share, size: int) -> None:
        """Waits until there is room. Cancelled: nothing was taken."""
        await self.wait_for_room(share, size)
        self._take(share, size)

    def take_now(self, share: Share, size: int) -> bool:
        """Takes room if there is some; returns whether it did."""
        if not self._may_take(share, size):
            return False
        self._take(share, size)
        return True

    def _take(self, share: Share, size: int) -> None:
        if self.used_bytes + size > self.limit_bytes:
            self._senior = share
        self.used_bytes += size
        share.held_bytes += size
        if share.owner is not None:
            self._used_by[share.owner] += size

    async def wait_for_room(self, share: Share, size: int) -> None:
        """Waits until so much could be taken, and takes nothing."""
        patient_until = trio.current_time() + PATIENCE  # however often it is woken until then
        is_counted = False  # among the modest, while it waits: two that counted anew would wake each other all the time
        try:
            while not self._may_take(share, size):
                modest = not self._is_greedy(share, size)
                if modest != is_counted:
                    is_counted = modest
                    self._count_modest(share.owner, 1 if modest else -1)
                if (now := trio.current_time()) >= patient_until:
                    patient_until = now + PATIENCE
                    if modest:
                        self._end_slow_readers(size)
                with trio.move_on_at(patient_until):
                    await self._parking.park()
        finally:
            if is_counted:
                self._count_modest(share.owner, -1)

    def _count_modest(self, owner: Hashable, more: int) -> None:
        self._modest[owner] += more
        if not self._modest[owner]:
            del self._modest[owner]
            self._parking.unpark_all()  # those that waited for it

    def _may_take(self, share: Share, size: int) -> bool:
        if self._senior is share:
            return True
        if self.used_bytes + size > self.limit_bytes and self._senior is not None:
            return False
        return not self._is_greedy(share, size) or self._modest.keys() <= {share.owner}

    def _is_greedy(self, share: Share, size: int) -> bool:
        owned = self._used_by[share.owner] if share.owner is not None else 0
        return owned > 0 and owned + size > self.limit_bytes // FAIR_SHARES

    @contextmanager
    def for_reader(self, share: Share, size: int) -> Iterator[trio.CancelScope]:
        """In the block ``size`` bytes of the share's reply are sent, as its peer reads them. The scope is cancelled
        when the peer reads slowly and others wait for room."""
        began = trio.current_time()
        with trio.CancelScope() as scope:
            self._readers[share] = scope, began
            try:
                yield scope
                share.read_bytes += size
            finally:
                share.waited += trio.current_time() - began
                del self._readers[share]

    def _end_slow_readers(self, size: int) -> None:
        """Makes room for ``size`` bytes, once those that are ended have left."""
        now = trio.current_time()
        missing = self.used_bytes + size - self.limit_bytes
        slow = []
        for share, (scope, began) in self._readers.items():
            if scope.cancel_called:
                missing -= share.held_bytes
                continue
            waited = share.waited + now - began
            rate = share.read_bytes / waited if waited else inf
            if waited >= SPARED and share.held_bytes - share.read_bytes > rate * SPARED:
                slow.append((rate, share, scope))
        for _, share, scope in sorted(slow, key=itemgetter(0)):
            if missing <= 0:
                return
            missing -= share.held_bytes
            scope.cancel()
            self.ended_reader()

    def give_back(self, share: Share) -> None:
        self.hold(share, 0)

    def hold(self, share: Share, size: int) -> None:
        """So much is in memory for the share now, whether there is room or not: others wait for what is above it, and
        the share is the one that may go beyond the limit, where none is yet."""
        self.used_bytes += size - share.held_bytes
        if share.owner is not None:
            self._used_by[share.owner] += size - share.held_bytes
            if self._used_by[share.owner] <= 0:
                del self._used_by[share.owner]
        share.held_bytes = size
        if size and self.used_bytes > self.limit_bytes:
            self._senior = self._senior or share
        elif self._senior is share:
            self._senior = None
        self._parking.unpark_all()
