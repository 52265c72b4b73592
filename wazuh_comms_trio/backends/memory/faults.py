"""Things that go wrong on purpose: what tests switch on in the memory backends."""

from __future__ import annotations

from collections import Counter, deque

import trio


class Faults:
    """The faults of one store. All are off at first.

    ``error``: raised by every call while set. ``next_errors``: raised by the next calls, one each (None lets one
    through). ``delay``: seconds, on trio's clock, that every call takes. ``hanging``: calls don't return until
    ``release`` or their cancellation.
    ``probe_error``: raised by ``probe`` alone, which ``next_errors``, ``delay`` and ``hanging`` don't apply to.
    ``calls``: how often each method was called. ``only``: the methods that the faults apply to; None is all.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.probe_error: Exception | None = None
        self.next_errors: deque[Exception | None] = deque()
        self.delay = 0.0
        self.only: frozenset[str] | None = None
        self.calls: Counter[str] = Counter()
        self._hang: trio.Event | None = None

    def hang(self) -> None:
        """From now on calls wait."""
        self._hang = trio.Event()

    def release(self) -> None:
        """Calls that wait go on, and new ones don't wait."""
        if self._hang is not None:
            self._hang.set()
            self._hang = None

    async def probe(self) -> None:
        """What a probe of the store says."""
        await trio.lowlevel.checkpoint()
        if self.probe_error is not None:
            raise self.probe_error
        if self.error is not None and self.only is None:
            raise self.error

    async def strike(self, method: str) -> None:
        """Called at the beginning of every call of the store; a checkpoint in any case."""
        self.calls[method] += 1
        await trio.lowlevel.checkpoint()
        if self.only is not None and method not in self.only:
            return
        if self._hang is not None:
            await self._hang.wait()
        if self.delay:
            await trio.sleep(self.delay)
        if self.next_errors:
            error = self.next_errors.popleft()
            if error is not None:
                raise error
        elif self.error is not None:
            raise self.error
