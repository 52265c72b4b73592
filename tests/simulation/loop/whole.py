"""The loop around all turns. trio's own asks, in each, for instruments that a run hasn't got, for the real clock, and
sorts tasks of which there is one as a rule."""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop
from math import inf
from operator import attrgetter
from typing import Any, Final

import outcome
import trio
import trio.testing

from tests.simulation.loop.turns import wakings

__all__ = ["REPLACEMENTS"]

_run: Any = trio._core._run
_running = _run.GLOBAL_RUN_CONTEXT
_number: Final = attrgetter("_counter")
#: Why what has a deadline is cancelled.
_OVER: Final = _run.CancelReason(source="deadline")


def _unrolled_run(
    runner: Any, async_fn: Callable[..., Any], args: tuple[Any, ...], host_uses_signal_set_wakeup_fd: bool = False
) -> Generator[float, Any, None]:
    """As trio's, in a run on the mock clock that is no guest."""
    clock, runq, deadlines, waits_for_idle = runner.clock, runner.runq, runner.deadlines, runner.waiting_for_idle
    assert type(clock) is trio.testing.MockClock
    assert not host_uses_signal_set_wakeup_fd
    try:
        runner.entry_queue.wakeup.wakeup_on_signals()
        clock.start_clock()
        assert runner.clock_autojump_threshold == 0
        runner.init_task = runner.spawn_impl(runner.init, (async_fn, args), None, "<init>", system_task=True)
        while runner.tasks:
            is_idle = not runq and deadlines.next_deadline() > clock._virtual_base
            waits = waits_for_idle.keys()[0][0] if is_idle and waits_for_idle else 0.0
            events = ()
            if waits or wakings.may_come(runner.io_manager):
                events = yield waits
                runner.io_manager.process_events(events)
            if not _expire(deadlines, clock._virtual_base) and is_idle and not runq and not events:
                if waits_for_idle:
                    _wake_those_who_wait_for_idle(runner)
                else:
                    _jump(clock, deadlines)
            if len(runq) == 1:
                _step(runner, runq.popleft())
                continue
            batch = list(runq)
            runq.clear()
            batch.sort(key=_number)
            _run._r.shuffle(batch)
            while batch:
                _step(runner, batch.pop())
    except trio.TrioInternalError:
        raise
    except Exception as exc:
        raise trio.TrioInternalError("internal error in Trio") from exc
    finally:
        runner.close()
        _running.__dict__.clear()


def _jump(clock: Any, deadlines: Any) -> None:
    """As ``MockClock._autojump``, which makes all of trio's statistics for one number, and looks a turn later for whose
    time has come."""
    jump = deadlines.next_deadline() - clock._virtual_base
    if 0 < jump < inf:
        clock._virtual_base += jump
        _expire(deadlines, clock._virtual_base)


def _expire(deadlines: Any, now: float) -> bool:
    """As ``Deadlines.expire``, with one reason for all."""
    heap = deadlines._heap
    if not heap or heap[0][0] > now:
        return False
    found = False
    while heap and heap[0][0] <= now:
        deadline, _, scope = heappop(heap)
        if deadline == scope._registered_deadline:
            found = True
            scope._cancel(_OVER)
    if len(heap) > deadlines._active * 2 + _run.DEADLINE_HEAP_MIN_PRUNE_THRESHOLD:
        deadlines._prune()
    return found


def _step(runner: Any, task: Any) -> None:
    """From one trap of a task to the next one."""
    _running.task = task
    send, value = task._next_send_fn, task._next_send
    task._next_send_fn = task._next_send = None
    final: outcome.Outcome[object]
    try:
        message = task.context.run(send, value)
    except StopIteration as stop:
        final = outcome.Value(stop.value)
    except BaseException as error:
        traceback = error.__traceback__
        final = outcome.Error(error.with_traceback(None if traceback is None else traceback.tb_next))
        del traceback
    else:
        task._schedule_points += 1
        if message is _run.CancelShieldedCheckpoint:
            runner.reschedule(task)
        elif type(message) is _run.WaitTaskRescheduled:
            task._cancel_points += 1
            task._abort_func = message.abort_func
            if task._cancel_status.effectively_cancelled:
                task._attempt_delivery_of_any_pending_cancel()
        elif type(message) is _run.PermanentlyDetachCoroutineObject:
            runner.task_exited(task, message.final_outcome)
        else:
            runner.reschedule(task, TypeError(f"trio.run received unrecognized yield message {message!r}"))
            task._next_send_fn = task.coro.throw
        del _running.task
        return
    runner.task_exited(task, final)
    del _running.task


def _wake_those_who_wait_for_idle(runner: Any) -> None:
    cushion, _ = runner.waiting_for_idle.keys()[0]
    while runner.waiting_for_idle:
        key, task = runner.waiting_for_idle.peekitem(0)
        if key[0] != cushion:
            break
        del runner.waiting_for_idle[key]
        runner.reschedule(task)


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = ((_run, "unrolled_run", _unrolled_run),)
