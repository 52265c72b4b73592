"""How fast a peer sends, or reads, in the time in which it is what we wait for: whoever is slow makes room for those
who wait."""

from __future__ import annotations

from math import inf
from typing import Final

import trio

__all__ = ["RATE_SECONDS", "WAITING", "BodyWaiting", "PeerProgress"]

#: In messages with a part of a body that goes on: its ``BodyWaiting``.
WAITING: Final = "wazuh_comms.waiting"

#: The rate is that of at least so many seconds, and of twice as many at most. Who moves nothing for so long has none.
RATE_SECONDS: Final = 2.0


class PeerProgress:
    """``moved``: bytes that the peer has sent, or read. ``scope``: of the wait for it that is under way.
    ``makes_room``: that was ended, since others wait for what it holds."""

    __slots__ = ("_began", "_earlier", "_later", "_moved_last", "_waited", "makes_room", "moved", "scope")

    def __init__(self) -> None:
        self.moved = 0
        self.scope: trio.CancelScope | None = None
        self.makes_room = False
        self._waited = 0.0
        self._began = 0.0
        self._moved_last = 0.0
        self._earlier = self._later = (0.0, 0)  # seconds of waiting, and what had been moved by then

    def begin(self, scope: trio.CancelScope) -> None:
        """From now on we wait for the peer, and may cease to by cancelling ``scope``."""
        self.scope = scope
        self._began = trio.current_time()

    def end(self, size: int) -> float:
        """The peer has moved so many bytes more. Returns how long that took, seconds."""
        seconds = trio.current_time() - self._began
        self.scope = None
        self.moved += size
        self._waited += seconds
        if size:
            self._moved_last = self._waited
        if self._waited - self._later[0] >= RATE_SECONDS:
            self._earlier, self._later = self._later, (self._waited, self.moved)
        return seconds

    def waited(self, now: float) -> float:
        """For how long we have waited for the peer in all, seconds."""
        return self._waited + (now - self._began if self.scope is not None else 0.0)

    def needs(self, size: float, now: float) -> float:
        """How long it takes to move ``size`` bytes more as it did lately, seconds."""
        waited = self.waited(now)
        if waited - self._moved_last >= RATE_SECONDS:
            return inf
        since, moved = self._earlier
        return size * (waited - since) / (self.moved - moved) if self.moved > moved else inf


class BodyWaiting(PeerProgress):
    """How long one connection's body may keep us waiting: ``timeout`` seconds. Bytes that come give time back, by
    ``rate``, up to that again: so the rate holds in any such time. ``scopes``: of all waits, with when their time is
    over. ``declared``: its size, where the head said it.
    """

    __slots__ = ("_allowance", "_rate", "_scopes", "_stall", "_timeout", "declared")

    def __init__(
        self, timeout: float, rate: float, stall: float, scopes: dict[trio.CancelScope, float], declared: int | None
    ) -> None:
        super().__init__()
        self._timeout = self._allowance = timeout
        self._rate = rate
        self._stall = stall
        self._scopes = scopes
        self.declared = declared

    def begun(self) -> trio.CancelScope:
        """The scope in which the next bytes are to come."""
        now = trio.current_time()
        scope = trio.CancelScope(deadline=now + min(self._allowance, self._stall))
        self._scopes[scope] = now + self._allowance
        self.begin(scope)
        return scope

    def over(self, scope: trio.CancelScope, size: int) -> None:
        """So many have come in ``scope``, or none. By what its time was made longer, since we stood still, the peer
        wasn't waited for."""
        self._began += self._scopes.pop(scope) - (self._began + self._allowance)
        self._allowance = min(self._timeout, max(0.0, self._allowance - self.end(size)) + size / self._rate)
