"""Pauses in a thread that makes many short calls of SQLite, for the event loop beside it.

Each call gives up Python's lock (the GIL) and takes it again some microseconds later, before a thread that waits for it
has woken up; that thread's wait begins anew each time, so that ``sys.setswitchinterval`` changes nothing. The event
loop waited for all of 500 rows, 8 ms, at the end of any of its system calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

__all__ = ["ROWS_AT_ONCE", "with_pauses"]

T = TypeVar("T")

#: Rows between two pauses: some 0.1 ms.
ROWS_AT_ONCE: Final = 5
#: Seconds; with the kernel's own slack twice as much. A waiting thread takes half of that to wake up.
_PAUSE: Final = 50e-6


def with_pauses(items: Iterable[T]) -> Iterator[T]:
    """The items, with a pause in which another thread gets Python's lock after each ``ROWS_AT_ONCE`` of them. To be
    used in threads, or for few items."""
    left = iter(items)
    while some := list(islice(left, ROWS_AT_ONCE)):
        yield from some
        if len(some) == ROWS_AT_ONCE:
            time.sleep(_PAUSE)
