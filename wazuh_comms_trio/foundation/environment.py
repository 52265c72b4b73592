"""What a service takes from outside besides its backends: blocking work, time and chance; and how it words outages."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

#: Epoch seconds. Durations and deadlines are trio's clock, never this one.
WallClock = Callable[[], float]

#: How long before a request's deadline a service that waits for a backend gives up, so that the agent sees 503 and not
#: 408: seconds, and as a share of the limit.
BACKEND_MARGIN: Final = 0.5
BACKEND_MARGIN_SHARE: Final = 0.1


class RunBlocking(Protocol):
    """Runs ``fn(*args)`` without holding up the event loop: a thread under a small limiter in production, inline under
    the mock clock."""

    def __call__(self, fn: Callable[..., T], *args: object) -> Awaitable[T]: ...


def give_up_at(deadline: float, now: float) -> float:
    """The moment to settle a request with 503 whose backend hasn't answered; both on trio's clock."""
    return deadline - min(BACKEND_MARGIN, BACKEND_MARGIN_SHARE * max(0.0, deadline - now))


class OutageLog:
    """One line when something stops working and one when it works again, whatever the number of calls between."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._failures = 0
        self._level = logging.WARNING

    def failed(self, error: BaseException) -> None:
        """``what`` doesn't work; says so the first time, aloud unless the store behind it has said why."""
        self._failures += 1
        if self._failures == 1:
            self._level = logging.DEBUG if getattr(error, "reported", False) else logging.WARNING
            self._logger.log(self._level, "%s: %s", self._what, error)

    def worked(self) -> None:
        """``what`` works; says so when it hadn't."""
        if self._failures:
            level = min(self._level, logging.INFO)
            self._logger.log(level, "%s: works again after %d failures", self._what, self._failures)
            self._failures = 0
