"""So many may do something at a time, first come first served: a semaphore whose uncontended way costs next to nothing,
which ``trio.Semaphore``'s doesn't on a pool that takes tens of microseconds for a request."""

from __future__ import annotations

import trio


class Turns:
    """``free`` turns are left. Whoever waits gets the next one that is given back, in the order of coming."""

    def __init__(self, count: int) -> None:
        self.free: int = count
        self._waiting: dict[trio.lowlevel.Task, None] = {}

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    def take_nowait(self) -> bool:
        """Take a turn if there is one; nobody waits then."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> None:
        """Take a turn, waiting for it. A checkpoint if it waits; cancelled, none was taken."""
        if self.take_nowait():
            return
        task = trio.lowlevel.current_task()
        self._waiting[task] = None

        def abort(raise_cancel: object) -> trio.lowlevel.Abort:
            del self._waiting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def give_back(self) -> None:
        """Hand the turn to whoever waited longest."""
        for task in self._waiting:
            del self._waiting[task]
            trio.lowlevel.reschedule(task)
            return
        self.free += 1
