"""Whether what is refused is refused for itself. Some refusals may as well be about everything that is sent (a wrong
path, a limit of something in between): then nothing else is taken either."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from math import inf
from typing import Final

import trio

from wazuh_comms_trio.foundation.caches.bounded_cache import BoundedCache

__all__ = ["RefusalCause"]

#: Seconds between a refusal and what is taken after it: what was on its way when all began to be refused was sent
#: before.
_LATER: Final = 10.0
_REMEMBERED: Final = 1000


class RefusalCause:
    """Of one receiver; keys say whose or which the refused are."""

    def __init__(self) -> None:
        self._taken_at = -inf
        self._refused_at: BoundedCache[Hashable, float] = BoundedCache(_REMEMBERED)
        self._since: set[Hashable] = set()  # two of those that were refused since something was taken, at most

    def taken(self, keys: Iterable[Hashable]) -> None:
        """What is of these was taken: a refusal of it before wasn't for itself."""
        self._taken_at = trio.current_time()
        self._since.clear()
        if self._refused_at:
            for key in keys:
                self._refused_at.drop(key)

    def is_its_own(self, key: Hashable) -> bool:
        """Whether this refusal is about what ``key`` sent: it was refused before, others' was taken since then, and
        since that no others' refused, or all may be again. If so its next refusal counts as a first one."""
        now, first = trio.current_time(), self._refused_at.get(key)
        are_others = bool(self._since - {key})
        if len(self._since) < 2:
            self._since.add(key)
        if first is None or self._taken_at < first or are_others:
            self._refused_at.put(key, now)
            return False
        if self._taken_at < first + _LATER:
            return False
        self._refused_at.drop(key)
        return True
