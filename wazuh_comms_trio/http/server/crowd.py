"""Connections that come faster than the event loop serves them: accepted, but nothing of them is begun.

In the kernel's queue all would grow old together, and be served when their agents have given up. Here the oldest goes
first as long as it has waited briefly, then the newest; who has waited for too long is closed before its handshake, and
comes again in 30 s, perhaps elsewhere. Nothing of a request has been sent by then, so that no agent's requests change
places. Checks of balancers and operators go before agents, every second time; a flood that looks
like checks holds up none for longer than others.
"""

from __future__ import annotations

import struct
from collections import deque
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_INFO
from typing import Any, Final

from attrs import define, field, frozen

__all__ = ["NEWEST_FIRST_AFTER", "Crowd", "has_waited"]

#: Seconds that the oldest has waited from which on the newest goes first.
NEWEST_FIRST_AFTER: Final = 1.0
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

    def take_all(self) -> list[Any]:
        """Takes out all connections in the order they came."""
        socks = [one.sock for waiting in (self._checks, self._agents) for one in waiting]
        self._checks.clear()
        self._agents.clear()
        return socks


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
