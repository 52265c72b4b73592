"""A task sleeps until its request is told of something."""

from __future__ import annotations

import trio

from wazuh_comms_trio.transport.aio.pipeline import Slot


async def sleep(slot: Slot) -> None:
    """Until :func:`wake`. A checkpoint."""

    def abort(raise_cancel: object) -> trio.lowlevel.Abort:
        slot.sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    slot.sleeper = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(abort)


def wake(slot: Slot) -> None:
    """Wake the task that sleeps for this request, if one does."""
    task, slot.sleeper = slot.sleeper, None
    if task is not None:
        trio.lowlevel.reschedule(task)
