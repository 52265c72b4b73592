"""How much of collected bodies may be in memory, or in files, at once, and whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from math import inf
from operator import attrgetter
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.http.server.room import QUEUED_BODIES, SLOW_BODIES, SLOW_READERS
from wazuh_comms_trio.http.server.streams.peer_progress import BodyWaiting, PeerProgress

__all__ = ["BodyBudget", "Share"]

#: An agent has no more than one part of so many while others wait that have less.
FAIR_SHARES: Final = 10
#: Seconds that somebody waits for room before what is slow is ended for it; between two looks for that; and for which
#: who has more than its share waits behind those who have waited with less, for their next pieces.
PATIENCE: Final = 0.5
LOOKS_APART: Final = 0.1
PRECEDENCE: Final = 0.5
#: Seconds that a body has been sent for, or a reply read, when it is one of those that are slow; and will be for, if
#: its owner has more than its share.
SPARED: Final = 2.0
#: Seconds that anybody's may take in all: twice what a batch of 1 MB takes at 1 Mbit/s.
HELD_FOR: Final = 16.0


class Share:
    """One body's part of the budget, or its reply's. ``owner``: whose it is; None: nobody's in particular, then there
    is no limit. ``sending``: how fast the body comes; ``held_until``: its size at which the room is given back at the
    latest. ``reading``: how fast the reply is read. ``parked``: of its wait for room; ``queued``: of a whole body's
    wait for others, before anything is begun with it."""

    __slots__ = ("held_bytes", "held_until", "owner", "parked", "queued", "reading", "sending")

    def __init__(self, owner: Hashable = None, sending: BodyWaiting | None = None) -> None:
        self.held_bytes = 0
        self.held_until = inf
        self.owner = owner
        self.sending = sending
        self.reading: PeerProgress | None = None
        self.parked: trio.CancelScope | None = None
        self.queued: trio.CancelScope | None = None

    @property
    def progress(self) -> PeerProgress | None:
        """Its peer's, while we wait for that, or it has to wait for room."""
        if self.reading is not None:
            return self.reading if self.reading.scope is not None else None
        if self.sending is not None and (self.sending.scope is not None or self.parked is not None):
            return self.sending
        return None

    @property
    def is_ended(self) -> bool:
        """Whether it has been ended, and its room is there soon."""
        if (progress := self.progress) is not None:
            return progress.makes_room
        return self.queued is not None and self.queued.cancel_called

    def end(self) -> None:
        """Ends the wait for its peer, for room, or for others."""
        if (progress := self.progress) is not None:
            progress.makes_room = True
            scope = progress.scope or self.parked
            assert scope is not None
            scope.cancel()
        elif self.queued is not None:
            self.queued.cancel()

    def is_long(self, seconds: float) -> bool:
        """Whether the body, as it comes, takes longer than that in all."""
        if self.sending is None:
            return False
        now = trio.current_time()
        waited = self.sending.waited(now)
        return waited >= SPARED and waited + self.sending.needs(self.left, now) > seconds

    @property
    def left(self) -> float:
        """What the peer has still to send, or to read, before the room is given back, bytes."""
        if self.reading is not None:
            return float(self.held_bytes - self.reading.moved)
        if self.sending is None:
            return inf
        declared = inf if self.sending.declared is None else self.sending.declared
        return max(0.0, min(self.held_until, declared) - self.sending.moved)


@frozen
class _Slow:
    """``pace``: seconds for a byte; ``is_long``: it would be there for longer than anybody's may."""

    share: Share
    pace: float
    is_long: bool


class BodyBudget:
    """A limit on the bytes of all collected bodies, which they share.

    Bytes are counted as they arrive, not as they are declared: a client that announces 100 MB and sends nothing takes
    nothing.
    When the budget is used up, the bodies that grow wait, and with them their senders; one of them, the *senior*, may
    go on to its own limit all the same, so that they can't all wait for each other. An agent that has a tenth waits
    for those that have less. For these the bodies and replies that are sent, or read, slowest are ended, as many as
    make room for a tenth: first those of agents that have more, with their whole bodies that nothing is begun with yet,
    the newest first; then those that would take longer than ``held_for`` seconds in all.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        no_room: Callable[[], object] = lambda: None,
        ended: Callable[[str], object] = lambda what: None,
        held_for: float = HELD_FOR,
    ) -> None:
        self.limit_bytes = limit_bytes
        #: Called for each body that waited in vain; ``ended`` for what was, with its kind.
        self.no_room = no_room
        self.ended = ended
        self._held_for = held_for
        self._watched: dict[Share, None] = {}  # whose peers may be slow
        self._next_look = -inf
        self._precedence_until = -inf  # of those that have less than a tenth
        self.used_bytes = 0
        self._senior: Share | None = None
        self._parking = trio.lowlevel.ParkingLot()
        self._behind = trio.lowlevel.ParkingLot()  # those that give way to these
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
        if share.sending is not None:
            self._watched[share] = None
        if share.owner is not None:
            self._used_by[share.owner] += size

    async def wait_for_room(self, share: Share, size: int) -> None:
        """Waits until so much could be taken, and takes nothing. Raises ``Overloaded`` when it was ended since its body
        comes slowly."""
        patient_until = trio.current_time() + PATIENCE  # however often it is woken until then
        is_counted = False  # among the modest, while it waits: two that counted anew would wake each other all the time
        try:
            while not self._may_take(share, size):
                modest = not self._gives_way(share, size)
                if modest != is_counted:
                    is_counted = modest
                    self._count_modest(share.owner, 1 if modest else -1)
                if (now := trio.current_time()) >= patient_until:
                    patient_until = now + PATIENCE
                    if modest and now >= self._next_look:
                        await self._look(share, size)
                        continue
                with trio.move_on_at(patient_until) as share.parked:
                    await (self._parking if modest else self._behind).park()
                if share.sending is not None and share.sending.makes_room:
                    raise Overloaded
        finally:
            share.parked = None
            if is_counted:
                self._precedence_until = trio.current_time() + PRECEDENCE
                self._count_modest(share.owner, -1)

    async def _look(self, share: Share, size: int) -> None:
        """Ends what is slow. What has come while the event loop stood still is read first: who sent it isn't."""
        self._next_look = trio.current_time() + LOOKS_APART
        await trio.lowlevel.checkpoint()
        if not self._may_take(share, size):
            self._end_slow(size)

    def _count_modest(self, owner: Hashable, more: int) -> None:
        self._modest[owner] += more
        if not self._modest[owner]:
            del self._modest[owner]
            self._behind.unpark_all()  # those that waited for it

    def _may_take(self, share: Share, size: int) -> bool:
        if self._senior is share:
            return True
        if self.used_bytes + size > self.limit_bytes and self._senior is not None:
            return False
        if not self._gives_way(share, size):
            return True
        if not self._has_room_for_more(size) and trio.current_time() < self._precedence_until:
            return False
        return self._modest.keys() <= {share.owner}

    def _gives_way(self, share: Share, size: int) -> bool:
        """Whether the share goes behind others: its owner has more than a tenth, or there is little room, and it will
        be there for long."""
        return self.is_greedy(share, size) or (not self._has_room_for_more(size) and share.is_long(self._held_for))

    def _has_room_for_more(self, size: int) -> bool:
        """Whether there is an agent's share beside so many bytes."""
        return self.used_bytes + size <= self.limit_bytes - self._fair_share

    def is_greedy(self, share: Share, size: int) -> bool:
        """Whether its owner would have more than a tenth with so many bytes beside what it has."""
        owned = self._used_by[share.owner] if share.owner is not None else 0
        return owned > 0 and owned + size > self._fair_share

    @property
    def _fair_share(self) -> int:
        return self.limit_bytes // FAIR_SHARES

    @contextmanager
    def for_reader(self, share: Share, size: int) -> Iterator[trio.CancelScope]:
        """In the block ``size`` bytes of the share's reply are sent, as its peer reads them. The scope is cancelled
        when the peer reads slowly and others wait for room."""
        self._watched[share] = None
        share.reading = reading = share.reading or PeerProgress()
        read = 0
        with trio.CancelScope() as scope:
            reading.begin(scope)
            try:
                yield scope
                read = size
            finally:
                reading.end(read)

    def _end_slow(self, size: int) -> None:
        """Makes room for ``size`` bytes, or for an agent's share, once those that are ended have left."""
        now = trio.current_time()
        missing = self.used_bytes + max(size, self._fair_share) - self.limit_bytes
        used_by, slow, queued = Counter(self._used_by), list[_Slow](), list[Share]()
        for share in self._watched:
            if share.is_ended:
                missing -= share.held_bytes
                used_by[share.owner] -= share.held_bytes
            elif share.queued is not None:
                queued.append(share)
            elif (
                (progress := share.progress) is not None
                and (waited := progress.waited(now)) >= SPARED
                and (needs := progress.needs(share.left, now)) > SPARED
            ):
                slow.append(_Slow(share, progress.needs(1, now), waited + needs > self._held_for))
        slow.sort(key=attrgetter("pace"), reverse=True)
        for share in [*(one.share for one in slow if one.share.owner is not None), *reversed(queued)]:
            if missing > 0 and used_by[share.owner] > self._fair_share:
                used_by[share.owner] -= share.held_bytes
                missing -= self._end(share)
        for one in slow:
            if missing > 0 and one.is_long:
                missing -= self._end(one.share)

    def _end(self, share: Share) -> int:
        """Returns the room that there will be, bytes."""
        if share.is_ended:
            return 0
        slow = SLOW_READERS if share.reading is not None else SLOW_BODIES
        share.end()
        self.ended(slow if share.queued is None else QUEUED_BODIES)
        return share.held_bytes

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
        if not size:
            self._watched.pop(share, None)
        if size and self.used_bytes > self.limit_bytes:
            self._senior = self._senior or share
        elif self._senior is share:
            self._senior = None
        self._parking.unpark_all()
        self._behind.unpark_all()
