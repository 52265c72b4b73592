"""Sleeping without a cancel scope of its own: trio makes one for each sleep, and ends it by an exception."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import trio

__all__ = ["REPLACEMENTS", "sleep_until"]

_trios_sleep_until = trio.sleep_until


class _Sleep:
    """One sleep, among trio's deadlines in the place of a cancel scope."""

    __slots__ = ("_deadlines", "_registered_deadline", "_task")

    def __init__(self, deadline: float) -> None:
        self._registered_deadline = deadline
        self._task = trio.lowlevel.current_task()
        self._deadlines: Any = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines
        self._deadlines.add(deadline, self)

    @property
    def is_cancelled(self) -> bool:
        return self._task._cancel_status.effectively_cancelled

    def abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._leave()
        return trio.lowlevel.Abort.SUCCEEDED

    def _cancel(self, _reason: object) -> None:
        """Its time has come: what trio calls."""
        self._leave()
        trio.lowlevel.reschedule(self._task)

    def _leave(self) -> None:
        self._deadlines.remove(self._registered_deadline, self)
        self._registered_deadline = inf  # what is left of it in the heap is stale by that


async def sleep_until(deadline: float) -> None:
    """As trio's, and as cancellable."""
    if not trio.current_time() < deadline < inf:
        await _trios_sleep_until(deadline)
        return
    sleep = _Sleep(deadline)
    await trio.lowlevel.wait_task_rescheduled(sleep.abort)
    if sleep.is_cancelled:  # since its time came: trio's own scope leaves that to the one around it
        raise trio.Cancelled._create(source="deadline")


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio, "sleep_until", sleep_until),
    (trio._timeouts, "sleep_until", sleep_until),
)
