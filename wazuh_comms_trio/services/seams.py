"""What a service takes from outside besides its backends: blocking work, time and chance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Epoch seconds. Durations and deadlines are trio's clock, never this one.
WallClock = Callable[[], float]


class RunBlocking(Protocol):
    """Runs ``fn(*args)`` without holding up the event loop: a thread under a small limiter in production, inline under the mock clock."""

    def __call__(self, fn: Callable[..., T], *args: object) -> Awaitable[T]: ...
