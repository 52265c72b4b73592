"""Whether what is refused is refused for itself. Some refusals may as well be about everything that is sent (a wrong
path, a limit of something in between): then nothing else is taken either."""

from __future__ import annotations

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
        self._refused_at: BoundedCache[str, float] = BoundedCache(_REMEMBERED)

    def taken(self) -> None:
        """Something was taken."""
        self._taken_at = trio.current_time()

    def is_its_own(self, key: str) -> bool:
        """Whether this refusal is about what ``key`` sent: it was refused before, and others' was taken since then. If
        so its next refusal counts as a first one."""
        first = self._refused_at.get(key)
        if first is None or self._taken_at < first:
            self._refused_at.put(key, trio.current_time())
            return False
        if self._taken_at < first + _LATER:
            return False
        self._refused_at.drop(key)
        return True
