"""When the write-ahead log is written back into the database file (a checkpoint), and in which thread.

SQLite by itself lets that commit do it which made the log long: 16 MB and an fsync, 100 ms, for which all other writes
wait. Here a connection of its own does it, in a thread of its own, while small writes go on; big ones, of which the log
would grow as fast as it is written back, are held until it is done. A new log begins only when all of the old one is
written back, so the writer writes back what came meanwhile, before the next transaction: some milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import apsw
import trio

__all__ = ["LogWriteBack", "write_log_back"]

logger = logging.getLogger(__name__)

#: Pages of 8 KiB in the log that make it worth writing back: 16 MB, in which most index pages have changed more than
#: once.
PAGES: Final = 2000
#: Pages that the writer writes back itself: 4 MB at most, which take 30 ms.
REST: Final = 500
#: SQLite syncs the file only when nothing was committed while it wrote back: the first round writes, the second one,
#: which is short, syncs, and the third one takes what came meanwhile.
ROUNDS: Final = 3
#: Other processes may write faster than this one writes back. From 48 MB on everything waits for it.
TOO_MANY: Final = 6000


def write_log_back(connection: apsw.Connection, how: str) -> int:
    """A checkpoint: ``PASSIVE`` as far as no reader or writer is in the way, ``TRUNCATE`` wholly, so that a new log
    begins. Returns how many of the log's pages are written back now."""
    [(_, _, written)] = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchall()
    assert isinstance(written, int)
    return written


class LogWriteBack:
    """``in_background`` does what ``write_log_back`` does, in another thread. ``committed`` and ``finish`` are the
    writer's, in its thread; ``look`` its task's; ``run`` a task. What fails is tried again after a later commit, as
    SQLite does: the log is as good as the file."""

    def __init__(self, in_background: Callable[[], Awaitable[int]], *, name: str) -> None:
        self._in_background = in_background
        self._name = name
        self._pages = 0  # in the log
        self._written = 0  # ... of which so many were written back by the other thread
        self._due = trio.Event()
        self._under_way = False
        self._done: Callable[[], object] = lambda: None

    def committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        """SQLite's hook, in every commit."""
        if pages <= self._pages:  # the log has begun anew
            self._written = 0
        self._pages = pages
        return apsw.SQLITE_OK

    def look(self, done: Callable[[], object]) -> bool:
        """After a commit: has the log written back when it has become long. Returns whether that begins, and is not
        over before ``done`` is called."""
        if self._under_way or not PAGES <= self._pages < TOO_MANY or self._is_little_left:
            return False
        self._under_way = True
        self._done = done
        self._due.set()
        return True

    def finish(self, connection: apsw.Connection) -> None:
        """Before a transaction: writes back what is left, when that is little, or far too much."""
        if self._pages > self._written and (self._pages >= TOO_MANY or (self._pages >= PAGES and self._is_little_left)):
            try:
                self._written = write_log_back(connection, "PASSIVE")
            except apsw.Error as exc:
                self._failed(exc)

    @property
    def _is_little_left(self) -> bool:
        return self._pages - self._written <= REST

    async def run(self) -> None:
        """Never ends."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            try:
                for _ in range(ROUNDS):
                    self._written = await self._in_background()
                    if self._written >= self._pages:
                        break
            except apsw.Error as exc:
                self._failed(exc)
            finally:
                self._under_way = False
                self._done()

    def _failed(self, exc: apsw.Error) -> None:
        logger.debug("%s: the log couldn't be written back: %r", self._name, exc)
