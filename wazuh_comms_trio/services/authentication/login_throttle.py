"""Guessing made slow: after a wrong password the next try of the same user and address waits, and such tries wait in a
queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from math import ceil
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.errors import TooManyRequests
from wazuh_comms_trio.foundation.backoff import pause_after
from wazuh_comms_trio.foundation.caches.lru_cache import LruCache

__all__ = ["Attempt", "LoginThrottle", "TooManyAttempts"]

#: The pause after the first failure, seconds; it doubles with each further one up to the longest.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
#: Tries of one kind that may wait at a time once one has failed: with the longest pause, half a minute.
WAITING_LIMIT: Final = 4
#: Failures are forgotten after so long without another, seconds.
FORGOTTEN_AFTER: Final = 600.0
# Some 500 bytes each: 5 MB. With more kinds of failures than that the oldest are forgotten.
_REMEMBERED: Final = 10_000


class TooManyAttempts(TooManyRequests, message="Too many attempts"):
    """429: too many log-ins wait already."""


@define
class _Record:
    failures: int = 0
    last: float = 0.0
    not_before: float = 0.0


@define
class Attempt:
    """One log-in; unless ``failed`` is called it was right, and what went before is forgotten."""

    wrong: bool = False

    def failed(self) -> None:
        self.wrong = True


@define
class _Queue:
    lock: trio.Lock = field(factory=trio.Lock)
    waiting: int = 0


class LoginThrottle:
    """Throttles log-ins by kind of try (user, address). Kinds don't delay each other."""

    def __init__(self) -> None:
        self._records: LruCache[Hashable, _Record] = LruCache(_REMEMBERED)
        self._queues: dict[Hashable, _Queue] = {}

    @asynccontextmanager
    async def attempt(self, kind: Hashable) -> AsyncIterator[Attempt]:
        """Waits as long as is due. Raises ``TooManyAttempts`` at once when too many of this kind wait. A try that is
        given up while it is being judged counts as wrong: leaving early must not be faster."""
        queue = self._queues.setdefault(kind, _Queue())
        if queue.waiting >= WAITING_LIMIT and self._records.get(kind) is not None:
            raise TooManyAttempts(ceil(LONGEST_PAUSE))
        queue.waiting += 1
        try:
            async with queue.lock:
                record = self._records.get(kind)
                if record is not None:
                    await trio.sleep_until(record.not_before)
                async with self._recorded(kind) as attempt:
                    yield attempt
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[kind]

    @asynccontextmanager
    async def _recorded(self, kind: Hashable) -> AsyncIterator[Attempt]:
        attempt = Attempt()
        try:
            yield attempt
        except BaseException:
            attempt.failed()
            raise
        finally:
            if attempt.wrong:
                self._note_failure(kind)
            else:
                self._records.drop(kind)

    def _note_failure(self, kind: Hashable) -> None:
        now = trio.current_time()
        record = self._records.get(kind) or _Record()
        if now - record.last > FORGOTTEN_AFTER:
            record.failures = 0
        pause = pause_after(record.failures, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        record.failures += 1
        record.last = now
        record.not_before = now + pause
        self._records.put(kind, record)
