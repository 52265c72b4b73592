"""One log line when something stops working or begins to be worth a warning, one when that is over, however many calls
fail in between."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

__all__ = ["QUIET", "LogInterval", "OutageLog", "WarningLog"]

#: Seconds without a failure after which a store's success ends its outage. On a disk that is nearly full, what is small
#: succeeds between what is large and fails: that is one outage, not hundreds.
QUIET: Final = 5.0
#: Of what comes and goes all the time so many outages (and other kinds of one) are told in a while, seconds.
TOLD_AT_ONCE: Final = 5
A_WHILE: Final = 60.0
#: A kind that wasn't told in a while is told all the same, unless so many others were.
MOST_KINDS: Final = 20


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
    ``clock`` gives seconds. Callable from any thread, by one at a time. However often it fails and works in turns,
    there are ``TOLD_AT_ONCE`` outages in the log in ``A_WHILE``, and the first of each other kind: one that isn't told
    when it begins is if it lasts.
    """

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
        self._told: str | None = None  # the kind that the log knows of the present outage
        self._told_at: deque[float] = deque(maxlen=TOLD_AT_ONCE)
        self._kinds_told: dict[str | None, float] = {}  # and when, in the last while
        self._untold = 0  # outages since the last one that the log knows
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
        if self._kind is None:
            self._since = self._last
        self._kind = kind
        if self._told != kind:
            is_known = getattr(why, "reported", False)
            self._tell(f"{kind}: {why}" if kind else str(why), logging.DEBUG if is_known else level)

    def _tell(self, what: str, level: int) -> None:
        if level > logging.DEBUG and not self._may_tell():
            return
        before = f" ({self._untold} more before, in a short time)" if self._untold else ""
        self._logger.log(level, "%s: %s%s", self._name, what, before)
        self._told, self._level, self._untold = self._kind, level, 0

    def _may_tell(self) -> bool:
        now = self._last
        self._kinds_told = {kind: at for kind, at in self._kinds_told.items() if now - at < A_WHILE}
        is_news = self._kind not in self._kinds_told and len(self._kinds_told) < MOST_KINDS
        if not is_news and len(self._told_at) == TOLD_AT_ONCE and now - self._told_at[0] < A_WHILE:
            return False
        self._told_at.append(now)
        self._kinds_told[self._kind] = now
        return True

    def worked(self) -> None:
        """An attempt succeeded; logged when that ends an outage."""
        if self._kind is None:
            return
        now = self._clock()
        if self.failing:
            self._back = now
        self.failing = False
        if now - self._last >= self._quiet:
            if self._told is None:
                self._untold += 1
            else:
                what = self._kind or f"{self._failures} failures"
                level = min(self._level, logging.INFO)
                self._logger.log(level, "%s: works again after %.1f s (%s)", self._name, self._back - self._since, what)
            self._kind = self._told = None
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
