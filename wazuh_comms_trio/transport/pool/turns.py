"""So many may do something at a time, first come first served: a semaphore whose uncontended way costs next to nothing,
which ``trio.Semaphore``'s doesn't on a pool that takes tens of microseconds for a request."""

from __future__ import annotations

import trio

from wazuh_comms_trio.transport.aio.shared_reads import SoleRequest


class Turns:
    """``free`` turns are left. Whoever waits gets the next one that is given back, in the order of coming."""

    def __init__(self, count: int) -> None:
        self.free: int = count
        # Waiting task -> its request, if it waits with one.
        self._waiting: dict[trio.lowlevel.Task, SoleRequest | None] = {}

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
        if not self.take_nowait():
            await self.wait(None)

    async def wait(self, request: SoleRequest | None) -> None:
        """Waits until another task gives its turn back. A checkpoint; cancelled, none was taken, unless
        ``next_request`` has handed ``request`` out: then it was.
        """
        task = trio.lowlevel.current_task()
        waiting = self._waiting
        waiting[task] = request
        if request is not None:
            request.sleeper = task

        def abort(raise_cancel: object) -> trio.lowlevel.Abort:
            waiting.pop(task, None)
            if request is not None:
                request.sleeper = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def next_request(self) -> SoleRequest | None:
        """The request of the task that waited longest, if it waits with one: it has the caller's turn from now on, and
        sleeps until it is woken."""
        for task, request in self._waiting.items():
            if request is not None:
                del self._waiting[task]
            return request
        return None

    def give_back(self) -> None:
        """Hand the turn to whoever waited longest."""
        for task, request in self._waiting.items():
            del self._waiting[task]
            if request is not None:
                request.sleeper = None
            trio.lowlevel.reschedule(task)
            return
        self.free += 1
