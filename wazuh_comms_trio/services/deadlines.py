"""Until when a backend may take: a request whose backend doesn't answer is settled with 503 before its limit is over.

An agent repeats a 408 after a second, a 503 only after half a minute."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar

import trio

from wazuh_comms_trio.errors import BackendUnavailable

__all__ = ["BACKEND_MARGIN", "BACKEND_MARGIN_SHARE", "backend_in_time", "backend_margin", "give_up_at"]

T = TypeVar("T")

#: How long before a request's deadline a backend is given up: seconds, and at most this share of the time that is left.
BACKEND_MARGIN: Final = 0.5
BACKEND_MARGIN_SHARE: Final = 0.1


def backend_margin(limit: float) -> float:
    """How long before the end of ``limit`` seconds a backend is given up, in seconds."""
    return min(BACKEND_MARGIN, BACKEND_MARGIN_SHARE * max(0.0, limit))


def give_up_at(deadline: float, now: float) -> float:
    """The moment to settle a request with 503 whose backend hasn't answered; both on trio's clock."""
    return deadline - backend_margin(deadline - now)


async def backend_in_time(call: Awaitable[T], *, deadline: float) -> T:
    """For what isn't given the request's deadline (trio's clock) itself: shortly before it, ``BackendUnavailable``."""
    with trio.CancelScope(deadline=give_up_at(deadline, trio.current_time())):
        return await call
    raise BackendUnavailable
