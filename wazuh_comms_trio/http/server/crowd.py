"""Connections that come faster than the event loop serves them: accepted, but nothing of them is begun.

In the kernel's queue all would grow old together, and be served when their agents have given up. Here the oldest goes
first as long as it has waited briefly, then the newest; who has waited for too long is closed before its handshake, and
comes again in 30 s, perhaps elsewhere. Nothing of a request has been sent by then, so that no agent's requests change
places. Checks of balancers and operators go before agents, every second time; a flood that looks
like checks holds up none for longer than others.

What a connection asks for is known only after its handshake. When that is mostly what can't be had now, such as a key
to be hashed, all the processor would go into handshakes of requests that are refused: ``Pace``.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_INFO
from typing import Any, Final, Protocol

from attrs import define, field

from wazuh_comms_trio.foundation.backoff import even_share
from wazuh_comms_trio.http.server.streams.client_hello import is_check, peek

__all__ = ["NEWEST_FIRST_AFTER", "Capacity", "Crowd", "Pace", "Turns", "Unlimited", "has_waited"]

#: Seconds that the oldest has waited from which on the newest goes first.
NEWEST_FIRST_AFTER: Final = 1.0
#: Seconds within which a client has sent its first bytes; they mostly come with the connection, or just behind it.
HEARD_WITHIN: Final = 0.2
#: Of what is begun this part may be refused for want of capacity.
REFUSED_SHARE: Final = 1 / 3
#: Connections whose fate is remembered in the balance of that.
BALANCE: Final = 32
#: Connections begun in a turn of the event loop: so many after a turn that took less than half of that of CPU, seconds,
#: one after one that took less, and none after another, for so many turns in a row at most. With half of both ``ready``
#: takes 25 ms instead of 40 on a fifth of a core, and small requests cost a quarter more: groups of what is written to
#: disk are smaller, and caches colder.
BEGUN_AT_ONCE: Final = 4
TURN: Final = 0.002
MOST_PASSED: Final = 3
#: ``struct tcp_info``: milliseconds since the peer's last data, or since the connection was there.
_LAST_DATA: Final = 52


@define(eq=False)
class _Waiting:
    sock: Any
    since: float
    gone: bool = False


@define
class Crowd:
    """Sockets with the moment each came, on one clock, in seconds. ``most`` wait at a time, for ``longest`` seconds, or
    up to a part of that, ``spread``, less, where they wait for what can't be had soon: those that came at one moment
    don't all go, and come again, at one."""

    most: int
    longest: float
    spread: float = 0.0
    _checks: deque[_Waiting] = field(factory=deque, init=False)
    _agents: deque[_Waiting] = field(factory=deque, init=False)  # in the order they came
    _silent: deque[tuple[Any, float]] = field(factory=deque, init=False)
    _mute: deque[_Waiting] = field(factory=deque, init=False)  # agents by what isn't known of them
    _check_was_last: bool = field(default=False, init=False)
    #: Each with the moment it goes at, and its number.
    _ends: list[tuple[float, int, _Waiting]] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)
    _length: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self._length + len(self._silent)

    @property
    def has_checks(self) -> bool:
        """Whether a check waits, as far as they were heard."""
        return _first(self._checks) is not None

    def add_silent(self, sock: Any, since: float) -> None:
        """One that hasn't sent anything yet, so that it isn't known whether it is a check."""
        self._silent.append((sock, since))

    def hear(self, now: float) -> None:
        """Looks at those that were silent; who is still so after a while counts as an agent."""
        for _ in range(len(self._silent)):
            sock, since = self._silent.popleft()
            data = peek(sock)
            if data:
                self.add(sock, since, check=is_check(data))
            elif now - since > HEARD_WITHIN:
                self._mute.append(self.add(sock, since))
            else:
                self._silent.append((sock, since))

    def add(self, sock: Any, since: float, *, check: bool = False) -> _Waiting:
        waiting, number = _Waiting(sock, since), next(self._numbers)
        (self._checks if check else self._agents).append(waiting)
        longest = self.longest * (1 - self.spread * even_share(number))
        heappush(self._ends, (since + longest, number, waiting))
        self._length += 1
        return waiting

    def next(self, now: float) -> Any | None:
        """The connection to begin with; None when there is none."""
        for checks in (False, True) if self._check_was_last else (True, False):
            if (sock := self._next_of(self._checks if checks else self._agents, now)) is not None:
                self._check_was_last = checks
                return sock
        return None

    def take_too_late(self, now: float, *, early: bool = True) -> list[Any]:
        """Takes out the connections that have waited too long, and the oldest of those that are too many, first of
        those who still haven't sent anything: they are to be closed. ``early``: not all after the longest time, see
        ``spread``."""
        late = []
        while self._ends and (self._ends[0][0] <= now or self._ends[0][2].gone):
            _, number, waiting = heappop(self._ends)
            latest = waiting.since + self.longest
            if not waiting.gone and (early or latest <= now):
                late.append(self._take(waiting))
            elif not waiting.gone:
                heappush(self._ends, (latest, number, waiting))
        for queue in (self._mute, self._agents, self._checks):
            while (oldest := _first(queue)) is not None and self._length > self.most:
                if queue is self._mute and peek(oldest.sock):
                    queue.popleft()
                else:
                    late.append(self._take(oldest))
        return late

    def has_ebbed(self, now: float) -> bool:
        """Whether no agent has come for a while."""
        while self._agents and self._agents[-1].gone:
            self._agents.pop()
        return not self._agents or now - self._agents[-1].since > NEWEST_FIRST_AFTER

    def next_check(self, now: float) -> Any | None:
        """As ``next``, without agents."""
        return self._next_of(self._checks, now)

    def take_all(self) -> list[Any]:
        """Takes out all connections in the order they came."""
        socks = [self._take(one) for queue in (self._checks, self._agents) for one in queue if not one.gone]
        self._checks.clear()
        self._agents.clear()
        self._mute.clear()
        self._ends.clear()
        socks += [sock for sock, _ in self._silent]
        self._silent.clear()
        return socks

    def _next_of(self, queue: deque[_Waiting], now: float) -> Any | None:
        if (oldest := _first(queue)) is None:
            return None
        newest_first = now - oldest.since > NEWEST_FIRST_AFTER
        while (waiting := queue.pop() if newest_first else queue.popleft()).gone:
            pass
        return self._take(waiting)

    def _take(self, waiting: _Waiting) -> Any:
        sock, waiting.sock, waiting.gone = waiting.sock, None, True
        self._length -= 1
        return sock


class Capacity(Protocol):
    """What the application can do of something that takes long. ``refused``: requests that were refused for want of it,
    ever."""

    @property
    def refused(self) -> int: ...

    def room(self, *, late: bool = False) -> float:
        """How many more could be taken now; ``late``: so that they wait for it, as long as is sensible."""
        ...


class Unlimited:
    refused: Final = 0

    def room(self, *, late: bool = False) -> float:
        return inf


@define
class Pace:
    """Whether another agent's connection is worth beginning: while there is room for what it may ask for, and as long
    as most of what was begun wasn't refused for want of that."""

    capacity: Capacity
    _balance: float = field(default=0.0, init=False)
    _refused: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._refused = self.capacity.refused

    def may_begin(self, begun: int, undecided: Callable[[], int]) -> bool:
        """``begun`` just now; ``undecided``: how many others there are whose request isn't known yet."""
        refused = self.capacity.refused
        self._balance = max(-BALANCE, self._balance - (refused - self._refused))
        self._refused = refused
        return self._balance > 0 or self.capacity.room() > begun + undecided()

    def may_begin_late(self, begun: int, undecided: Callable[[], int]) -> bool:
        """As ``may_begin``, instead of closing one when no others come: what it asks for would have its turn before it
        has come again."""
        return self.capacity.room() < inf and self.capacity.room(late=True) > begun + undecided()

    def begun(self) -> None:
        self._balance = min(BALANCE, self._balance + REFUSED_SHARE)


@define
class Turns:
    """How many connections the next turn of the event loop begins. What is under way waits for a whole turn at each of
    its steps, a command's delivery for nine; and what is begun makes turns longer, as long as it is under way."""

    _passed: int = field(default=0, init=False)

    def begins(self, cpu: float, *, holds: bool = False) -> int:
        """``cpu``: what the last turn took of the processor, seconds. ``holds``: something else has precedence, and one
        is begun only where there was hardly anything to do."""
        if holds:
            return int(cpu < TURN / 4)
        if cpu >= TURN and self._passed < MOST_PASSED:
            self._passed += 1
            return 0
        self._passed = 0
        return BEGUN_AT_ONCE if cpu < TURN / 2 else 1


def _first(queue: deque[_Waiting]) -> _Waiting | None:
    """The oldest of those that are still there."""
    while queue and queue[0].gone:
        queue.popleft()
    return queue[0] if queue else None


def has_waited(sock: Any) -> float:
    """How many seconds an accepted connection was in the kernel's queue with what its peer has sent."""
    if sock.family not in (AF_INET, AF_INET6):
        return 0.0
    try:
        (milliseconds,) = struct.unpack_from("=I", sock.getsockopt(IPPROTO_TCP, TCP_INFO, _LAST_DATA + 4), _LAST_DATA)
    except (OSError, struct.error):
        return 0.0
    return float(milliseconds) / 1000
