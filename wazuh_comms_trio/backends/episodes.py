"""One log line when a store stops working, one when it works again, however many requests come between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class Episodes:
    """The faults of one store, ``name`` in the log. Called from any thread that works for the store, by one at a
    time."""

    def __init__(self, logger: logging.Logger, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._name = name
        self._clock = clock
        self._kind: str | None = None
        self._since = 0.0

    @property
    def kind(self) -> str | None:
        """What is wrong now."""
        return self._kind

    def fault(self, kind: str, advice: str, *, level: int = logging.ERROR) -> None:
        """``kind`` is what went wrong, as one says it; the same kind again isn't logged."""
        if self._kind == kind:
            return
        if self._kind is None:
            self._since = self._clock()
        self._kind = kind
        self._logger.log(level, "%s: %s: %s", self._name, kind, advice)

    def works(self) -> None:
        if self._kind is not None:
            self._logger.info("%s: works again after %.1f s (%s)", self._name, self._clock() - self._since, self._kind)
            self._kind = None
