"""One log line when something stops working or begins to be worth a warning, one when that is over, however many calls
fail in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

__all__ = ["QUIET", "LogInterval", "OutageLog", "WarningLog"]

#: Seconds without a failure after which a store's success ends its outage. On a disk that is nearly full, what is small
#: succeeds between what is large and fails: that is one outage, not hundreds.
QUIET: Final = 5.0


class LogInterval:
    """Lets one log line through in so many ``seconds``; ``clock`` gives seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = -inf

    def is_over(self) -> bool:
        """Whether a line may be logged now; if so the next interval begins."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


class OutageLog:
    """The outages of one thing, ``name`` in the log. A success ends one ``quiet`` seconds after the last failure;
    ``clock`` gives seconds. Callable from any thread, by one at a time."""

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        *,
        quiet: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._name = name
        self._quiet = quiet
        self._clock = clock
        self._kind: str | None = None
        self._level = logging.WARNING
        self._failures = 0
        self._since = 0.0
        self._last = 0.0
        self._back = 0.0
        #: Whether the last attempt failed.
        self.failing = False

    @property
    def kind(self) -> str | None:
        """The fault of the present outage, or of one a moment ago; None outside of an outage."""
        return self._kind

    def failed(self, why: BaseException | str, *, kind: str = "", level: int = logging.WARNING) -> None:
        """An attempt failed. ``kind`` is what went wrong, as one says it, and ``why`` its cause or what to do: a second
        failure of the same kind isn't logged. An error that is in the log already (``reported``) is logged at DEBUG."""
        self._last = self._clock()
        self._failures += 1
        self.failing = True
        if self._kind == kind:
            return
        if self._kind is None:
            self._since = self._last
        self._kind = kind
        self._level = logging.DEBUG if getattr(why, "reported", False) else level
        self._logger.log(self._level, "%s: %s", self._name, f"{kind}: {why}" if kind else why)

    def worked(self) -> None:
        """An attempt succeeded; logged when that ends an outage."""
        if self._kind is None:
            return
        now = self._clock()
        if self.failing:
            self._back = now
        self.failing = False
        if now - self._last >= self._quiet:
            what = self._kind or f"{self._failures} failures"
            level = min(self._level, logging.INFO)
            self._logger.log(level, "%s: works again after %.1f s (%s)", self._name, self._back - self._since, what)
            self._kind = None
            self._failures = 0


class WarningLog:
    """``tell`` is given all that there is, each time: sentences by what they are about."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._there: dict[str, int] = {}  # the most sentences of each kind since it began

    def tell(self, found: Mapping[str, list[str]]) -> None:
        for kind, texts in found.items():
            if len(texts) > self._there.get(kind, 0):  # one more of a kind is news, too
                for text in texts:
                    self._logger.warning("%s", text)
        for kind in self._there.keys() - found.keys():
            self._logger.info("the warning is over: %s", kind)
        self._there = {kind: max(len(texts), self._there.get(kind, 0)) for kind, texts in found.items()}
