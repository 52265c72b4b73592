"""Threads that hash keys, of a lower priority than the event loop's: what only waits for the processor, everybody's
requests, goes before what needs it for 12 ms at a time.

On Linux a thread has a nice value of its own, and can't lower it again: so each call has a thread of its own, which
costs some 20 µs.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar, cast

import trio
from outcome import Outcome, capture

from wazuh_comms_trio.foundation.environment import RunBlocking

__all__ = ["hashing_runner"]

T = TypeVar("T")

#: Added to the process's nice value. Where both want a processor the event loop gets three parts of four.
NICER: Final = 5
NICEST: Final = 19


def hashing_runner() -> RunBlocking:
    """As many at once as there are processors. Cancelled: the call is waited for, once it has begun. Where the priority
    can't be changed, by a system call filter for instance, it stays, and where there can't be another thread
    (``TasksMax=``) one does it that is there."""
    limiter = trio.CapacityLimiter(max(1, len(os.sched_getaffinity(0))))

    async def run(fn: Callable[..., T], *args: object) -> T:
        async with limiter:
            call = _Call(partial(fn, *args))
            try:
                _thread.start_new_thread(call.run, (trio.lowlevel.current_trio_token(),))
            except RuntimeError:
                return await trio.to_thread.run_sync(fn, *args)
            with trio.CancelScope(shield=True):  # as long as a hash takes
                await call.done.wait()
            assert call.outcome is not None
            return cast(T, call.outcome.unwrap())

    return run


class _Call:
    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.done = trio.Event()
        self.outcome: Outcome[object] | None = None

    def run(self, token: trio.lowlevel.TrioToken) -> None:
        """In the thread."""
        self.outcome = capture(self._step_back_and_work)
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self.done.set)

    def _step_back_and_work(self) -> object:
        _step_back()
        return self._work()


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere the priority is the whole process's
        with suppress(OSError):
            thread = _thread.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, min(NICEST, os.getpriority(os.PRIO_PROCESS, thread) + NICER))
