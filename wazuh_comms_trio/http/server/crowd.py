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
from collections.abc import Callable
from math import inf
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_INFO
from typing import Any, Final, Protocol

from attrs import define, field, frozen

__all__ = ["NEWEST_FIRST_AFTER", "Capacity", "Crowd", "Pace", "Unlimited", "has_waited"]

#: Seconds that the oldest has waited from which on the newest goes first.
NEWEST_FIRST_AFTER: Final = 1.0
#: Of what is begun this part may be refused for want of capacity.
REFUSED_SHARE: Final = 1 / 3
#: Connections whose fate is remembered in the balance of that.
BALANCE: Final = 32
#: ``struct tcp_info``: milliseconds since the peer's last data, or since the connection was there.
_LAST_DATA: Final = 52


@frozen
class _Waiting:
    sock: Any
    since: float


@define
class Crowd:
    """Sockets with the moment each came, on one clock, in seconds. ``most`` wait at a time, for ``longest`` seconds."""

    most: int
    longest: float
    _checks: deque[_Waiting] = field(factory=deque, init=False)
    _agents: deque[_Waiting] = field(factory=deque, init=False)  # in the order they came
    _check_was_last: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._checks) + len(self._agents)

    def add(self, sock: Any, since: float, *, check: bool = False) -> None:
        (self._checks if check else self._agents).append(_Waiting(sock, since))

    def next(self, now: float) -> Any | None:
        """The connection to begin with; None when there is none."""
        if self._checks and not (self._check_was_last and self._agents):
            self._check_was_last = True
            return _next_of(self._checks, now)
        self._check_was_last = False
        return _next_of(self._agents, now) if self._agents else None

    def take_too_late(self, now: float) -> list[Any]:
        """Takes out the connections that have waited too long, and the oldest of those that are too many: they are to
        be closed."""
        late = []
        for waiting in (self._agents, self._checks):
            while waiting and (now - waiting[0].since >= self.longest or len(self) > self.most):
                late.append(waiting.popleft().sock)
        return late

    def next_check(self, now: float) -> Any | None:
        """As ``next``, without agents."""
        return _next_of(self._checks, now) if self._checks else None

    def take_all(self) -> list[Any]:
        """Takes out all connections in the order they came."""
        socks = [one.sock for waiting in (self._checks, self._agents) for one in waiting]
        self._checks.clear()
        self._agents.clear()
        return socks


class Capacity(Protocol):
    """What the application can do of something that takes long. ``refused``: requests that were refused for want of it,
    ever."""

    @property
    def refused(self) -> int: ...

    def room(self) -> float:
        """How many more could be taken now."""
        ...


class Unlimited:
    refused: Final = 0

    def room(self) -> float:
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

    def begun(self) -> None:
        self._balance = min(BALANCE, self._balance + REFUSED_SHARE)


def _next_of(waiting: deque[_Waiting], now: float) -> Any:
    newest_first = now - waiting[0].since > NEWEST_FIRST_AFTER
    return (waiting.pop() if newest_first else waiting.popleft()).sock


def has_waited(sock: Any) -> float:
    """How many seconds an accepted connection was in the kernel's queue with what its peer has sent."""
    if sock.family not in (AF_INET, AF_INET6):
        return 0.0
    try:
        (milliseconds,) = struct.unpack_from("=I", sock.getsockopt(IPPROTO_TCP, TCP_INFO, _LAST_DATA + 4), _LAST_DATA)
    except (OSError, struct.error):
        return 0.0
    return float(milliseconds) / 1000
