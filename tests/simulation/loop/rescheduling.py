"""Waking a task costs an outcome for each time, though nearly all of them say nothing; and waking all who wait, of whom
there are none as a rule, some ten calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import trio

__all__ = ["REPLACEMENTS"]

_NO_SEND = trio._core._run._NO_SEND


class _Nothing:
    """``Value(None)``, one for all: it needn't know whether it was used."""

    def unwrap(self) -> None:
        return None


_NOTHING: Final = _Nothing()


def _reschedule(runner: Any, task: Any, next_send: Any = _NO_SEND) -> None:
    """As trio's, in a run that is no guest, and without instruments."""
    assert task._runner is runner
    assert task._next_send_fn is None
    task._next_send_fn = task.coro.send
    task._next_send = _NOTHING if next_send is _NO_SEND else next_send
    task._abort_func = None
    task.custom_sleep_data = None
    runner.runq.append(task)


def _unpark_all(lot: trio.lowlevel.ParkingLot) -> Sequence[trio.lowlevel.Task]:
    return lot.unpark(count=len(lot)) if lot else []


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio._core._run.Runner, "reschedule", _reschedule),
    (trio.lowlevel.ParkingLot, "unpark_all", _unpark_all),
)
