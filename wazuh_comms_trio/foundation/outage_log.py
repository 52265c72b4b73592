"""One log line when a store stops working, one when it works again, however many requests come between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

#: Seconds without a fault after which a success ends an episode. On a disk that is nearly full, what is small succeeds
#: between what is large and fails: that is one episode, not hundreds.
QUIET: Final = 5.0


class Episodes:
    """The faults of one store, ``name`` in the log. Called from the threads that work for it, by one at a time."""

    def __init__(self, logger: logging.Logger, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._name = name
        self._clock = clock
        self._kind: str | None = None
        self._since = 0.0
        self._last = 0.0
        self._back = 0.0
        self.failing = False

    @property
    def kind(self) -> str | None:
        """What is wrong, or was a moment ago. ``failing``: and the last attempt failed."""
        return self._kind

    def fault(self, kind: str, advice: str, *, level: int = logging.ERROR) -> None:
        """``kind`` is what went wrong, as one says it; the same kind again isn't logged."""
        self._last = self._clock()
        self.failing = True
        if self._kind == kind:
            return
        if self._kind is None:
            self._since = self._last
        self._kind = kind
        self._logger.log(level, "%s: %s: %s", self._name, kind, advice)

    def works(self) -> None:
        """It did what it was asked for."""
        if self.failing:
            self._back = self._clock()
        self.failing = False
        if self._kind is not None and self._clock() - self._last >= QUIET:
            self._logger.info("%s: works again after %.1f s (%s)", self._name, self._back - self._since, self._kind)
            self._kind = None
