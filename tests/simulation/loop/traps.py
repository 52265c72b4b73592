"""The traps by which a task gives its turn away, without a coroutine around each. In a run whose process has a handler
of its own for SIGINT: no KeyboardInterrupt of trio's is looked for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from math import inf
from types import coroutine
from typing import Any, Final

import trio

__all__ = ["REPLACEMENTS"]

_run: Any = trio._core._run
_running = _run.GLOBAL_RUN_CONTEXT
_Checkpoint = _run.CancelShieldedCheckpoint
_Wait = _run.WaitTaskRescheduled
#: Where trio's own code and others' find them.
_MODULES: Final = (trio.lowlevel, trio._core, trio._core._run)


@coroutine
def _wait_task_rescheduled(abort_func: Callable[[Any], trio.lowlevel.Abort]) -> Generator[Any, Any, Any]:
    message = _Wait.__new__(_Wait)
    message.__dict__["abort_func"] = abort_func
    return (yield message).unwrap()


@coroutine
def _cancel_shielded_checkpoint() -> Generator[Any, Any, None]:
    (yield _Checkpoint).unwrap()


@coroutine
def _checkpoint() -> Generator[Any, Any, None]:
    (yield _Checkpoint).unwrap()
    task = _running.task
    task._cancel_points += 1
    if task._cancel_status.effectively_cancelled:
        yield from _be_cancelled(task).__await__()


async def _be_cancelled(task: Any) -> None:
    scope = trio.CancelScope(deadline=-inf)
    scope._cancel_reason = task._cancel_status._scope._cancel_reason
    with scope:
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    *((module, "wait_task_rescheduled", _wait_task_rescheduled) for module in _MODULES),
    *((module, "cancel_shielded_checkpoint", _cancel_shielded_checkpoint) for module in _MODULES),
    *((module, "checkpoint", _checkpoint) for module in _MODULES),
)
