"""What a connection keeps of its file in memory.

SQLite keeps up to ``cache_size`` of the pages it has read: a worker grows with its file for weeks, or by 20 MB in one
burst, and never shrinks again. Every ten seconds a connection begins anew: what it needs it has again from the system's
cache, some 3 us a page of 8 KiB, which is 6 ms for all that fits. All of a worker's together are up to 36 MB after a
flood, which is to be given back within half a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import apsw
import trio

__all__ = ["PageCache", "may_be_kept", "shrink"]

#: Seconds; as often as free memory goes back to the system.
INTERVAL: Final = 10.0
#: Bytes of values.
_KEPT: Final = 1024 * 1024


class PageCache:
    """When the pages of one connection are due to go."""

    def __init__(self) -> None:
        self._next: float | None = None

    def is_due(self) -> bool:
        """Whether the interval is over, which is true once in each. On the event loop."""
        now = trio.current_time()
        if self._next is None:
            self._next = now + INTERVAL
        if now < self._next:
            return False
        self._next = now + INTERVAL
        return True


def may_be_kept(values: Iterable[bytes]) -> bool:
    """Whether a statement that is given these may stay in the connection's cache (``can_cache``): there it has a copy
    of them until it is used again."""
    return sum(map(len, values)) <= _KEPT


def shrink(connection: apsw.Connection) -> None:
    """Frees the pages that no statement uses. In the connection's thread."""
    connection.execute("PRAGMA shrink_memory")
