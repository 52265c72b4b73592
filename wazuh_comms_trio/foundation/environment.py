"""What a component takes from outside, so that tests can choose it: the wall clock, and blocking work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["RunBlocking", "WallClock"]

T = TypeVar("T")

#: Epoch seconds. Durations and deadlines are trio's clock, never this one.
WallClock = Callable[[], float]


class RunBlocking(Protocol):
    """Runs ``fn(*args)`` without holding up the event loop: a thread under a small limiter in production, inline under
    the mock clock."""

    def __call__(self, fn: Callable[..., T], *args: object) -> Awaitable[T]: ...
