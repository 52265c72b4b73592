"""How much of a route one agent, and all agents together, may have: rates with bursts, and requests in flight.

A rate is kept by the time at which the next request would be due if all came evenly (GCRA), for each agent: a whole
number of nanoseconds, since sums of floats drift, the more the longer the clock has run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import trio

from wazuh_comms_trio.config.limits.models import RouteLimit
from wazuh_comms_trio.errors import TooManyRequests
from wazuh_comms_trio.foundation.caches.lru_cache import LruCache
from wazuh_comms_trio.services.refusal_counts import RefusalCounts

__all__ = ["RouteGate", "TransferGate"]

#: Agents whose rate is remembered, some 150 bytes each. One that is forgotten was silent for long.
_REMEMBERED: Final = 32768
#: A refused agent's other requests are in flight for about so long, seconds.
_RETRY_IN_FLIGHT: Final = 2
_SECOND: Final = 1_000_000_000
#: The clock's rounding isn't to make a request early: at 97 days a step of it is 2 ns, at 100 years 500.
_ROUNDING: Final = 1000

_NOTHING: Final[AbstractContextManager[None]] = nullcontext()


class RouteGate:
    """The limits of one route: an agent's rate, everybody's rate, and requests in flight. ``limit``'s zeros limit
    nothing."""

    def __init__(self, route: str, limit: RouteLimit, counts: RefusalCounts) -> None:
        self._route = route
        self._limit = limit
        self._counts = counts
        self._in_flight = 0
        self._in_flight_of: dict[str, int] = {}
        self._due: LruCache[str, int] = LruCache(_REMEMBERED)
        self._all_due = 0
        self._limits = limit != RouteLimit()

    def admitted(self, agent_id: str) -> AbstractContextManager[None]:
        """A request is counted against the route's limits while the block runs. Raises ``TooManyRequests`` on entering;
        then it counts for nothing."""
        return self._admitted(agent_id) if self._limits else _NOTHING

    @contextmanager
    def _admitted(self, agent_id: str) -> Iterator[None]:
        limit, in_flight = self._limit, self._in_flight_of.get(agent_id, 0)
        if limit.agent_requests and in_flight >= limit.agent_requests:
            raise self._refused(agent_id, _RETRY_IN_FLIGHT)
        now = int(trio.current_time() * _SECOND)
        due = max(self._due.get(agent_id) or now, now)
        if limit.agent_rate and (early := due - now - _ahead(limit.agent_burst, limit.agent_rate)) > _ROUNDING:
            raise self._refused(agent_id, _in_seconds(early))
        if limit.requests and self._in_flight >= limit.requests:
            raise self._refused(None, _RETRY_IN_FLIGHT)
        all_due = max(self._all_due, now)
        if limit.rate:
            if (early := all_due - now - _ahead(limit.burst, limit.rate)) > _ROUNDING:
                raise self._refused(None, _in_seconds(early))
            self._all_due = all_due + _interval(limit.rate)
        if limit.agent_rate:
            self._due.put(agent_id, due + _interval(limit.agent_rate))
        self._in_flight += 1
        self._in_flight_of[agent_id] = in_flight + 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if (left := self._in_flight_of[agent_id] - 1) > 0:
                self._in_flight_of[agent_id] = left
            else:
                del self._in_flight_of[agent_id]

    def _refused(self, agent_id: str | None, retry_after: int) -> TooManyRequests:
        self._counts.refused(self._route, agent_id)
        return TooManyRequests(max(1, retry_after))


def _interval(rate: float) -> int:
    """Between two requests, rounded down: whoever keeps to the rate is never early."""
    return int(_SECOND / rate)


def _ahead(burst: int, rate: float) -> int:
    """How long before it is due a request may come: so many of them may come at once."""
    return (max(1, burst) - 1) * _interval(rate)


def _in_seconds(early: int) -> int:
    return -(-early // _SECOND)


class TransferGate:
    """Large bodies that one agent may be sending, or reading, at a time: ``uploads``, or ``downloads``."""

    def __init__(self, name: str, at_once: int, counts: RefusalCounts) -> None:
        self._name = name
        self._at_once = at_once
        self._counts = counts
        self._transfers: dict[str, int] = {}

    @contextmanager
    def admitted(self, agent_id: str) -> Iterator[None]:
        """A large body is counted against its agent's limit while the block runs. Raises ``TooManyRequests``."""
        count = self._transfers.get(agent_id, 0)
        if count >= self._at_once:
            self._counts.refused(self._name, agent_id)
            raise TooManyRequests(_RETRY_IN_FLIGHT)
        self._transfers[agent_id] = count + 1
        try:
            yield
        finally:
            if (left := self._transfers[agent_id] - 1) > 0:
                self._transfers[agent_id] = left
            else:
                del self._transfers[agent_id]
