"""Log lines of what may be refused a thousand times a second: of each kind the first at once, then how many there were.

So a mistake is seen when it is made, and a flood can't fill the disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define

from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick

__all__ = ["RefusalLog", "tell_refusals"]

#: Seconds after a kind's line in which further ones are counted.
QUIET: Final = 60.0
#: Kinds that are remembered; their names are the program's, so that there are few.
MAX_KINDS: Final = 100


@define
class _Kind:
    since: float
    count: int = 0
    last: str = ""


class RefusalLog:
    """``clock`` gives seconds."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        level: int = logging.WARNING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._level = level
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def refused(self, kind: str, text: str, *values: object) -> None:
        """``kind`` is what is counted, in the plural; ``text`` with ``values`` a line of the log."""
        now = self._clock()
        known = self._kinds.get(kind)
        if known is None or (now - known.since >= QUIET and not known.count):
            if len(self._kinds) < MAX_KINDS or known is not None:
                self._kinds[kind] = _Kind(now)
            self._logger.log(self._level, text, *values)
            return
        known.count += 1
        known.last = text % values
        self._tell(kind, known, now)

    def tell_counts(self) -> None:
        """Lines for what was counted a while ago; to be called now and then."""
        now = self._clock()
        for kind, known in self._kinds.items():
            self._tell(kind, known, now)

    def _tell(self, kind: str, known: _Kind, now: float) -> None:
        if known.count and now - known.since >= QUIET:
            text = "%s: %d more in %.0f s, the last one: %s"
            self._logger.log(self._level, text, kind, known.count, now - known.since, known.last)
            known.since, known.count = now, 0


async def tell_refusals(logs: Sequence[RefusalLog]) -> None:
    """Until cancelled: no count stays untold for longer than two minutes."""
    while True:
        await sleep_until_next_tick(QUIET)
        for log in logs:
            log.tell_counts()
