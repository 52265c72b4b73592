"""Cancel scopes, of which a request has some twenty, without a dozen calls for each, nor a generator for its
deadline."""

from __future__ import annotations

from math import inf
from types import TracebackType
from typing import Any, Final

import trio

__all__ = ["REPLACEMENTS"]

_run: Any = trio._core._run
_running = _run.GLOBAL_RUN_CONTEXT
_Status = _run.CancelStatus
_trios_enter = trio.CancelScope.__enter__
_trios_exit = trio.CancelScope.__exit__


class _Noting:
    """What ``CancelScope._might_change_registered_deadline`` is, in a run that is no guest."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        _note(scope, inf if scope._cancel_status is None or scope._cancel_called else scope._deadline)


def _might_change_registered_deadline(scope: trio.CancelScope) -> _Noting:
    return _Noting(scope)


def _note(scope: Any, deadline: float) -> None:
    old = scope._registered_deadline
    if old != deadline:
        scope._registered_deadline = deadline
        deadlines = _running.runner.deadlines
        if old != inf:
            deadlines.remove(old, scope)
        if deadline != inf:
            deadlines.add(deadline, scope)


def _enter(scope: Any) -> Any:
    task = trio.lowlevel.current_task()
    parent = task._cancel_status
    if scope._has_been_entered or parent is None:  # an error, or the first scope of a run
        return _trios_enter(scope)
    scope._has_been_entered = True
    now = _running.runner.clock._virtual_base
    if scope._relative_deadline != inf:
        scope._deadline = now + scope._relative_deadline
        scope._relative_deadline = inf
    if now >= scope._deadline:
        scope._cancel(_run.CancelReason(source="deadline"))
    status = scope._cancel_status = _status_below(parent, scope)
    parent._tasks.remove(task)
    task._cancel_status = status
    status._tasks.add(task)  # which runs: it waits for nothing that could be ended
    if not scope._cancel_called and scope._deadline != inf:
        _note(scope, scope._deadline)
    return scope


def _status_below(parent: Any, scope: Any) -> Any:
    """``CancelStatus(scope, parent)``, which looks through what is below it: there is nothing yet."""
    status = _Status.__new__(_Status)
    status._scope = scope
    status._parent = parent
    status._children = set()
    status._tasks = set()
    status.abandoned_by_misnesting = False
    status.effectively_cancelled = False
    parent._children.add(status)
    if scope._cancel_called or parent.effectively_cancelled:
        status.recalculate()
    return status


def _exit(
    scope: Any, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
) -> bool:
    status, task = scope._cancel_status, _running.task
    in_order = error is None and status is not None and task._cancel_status is status
    if not in_order or status._parent is None or len(status._tasks) > 1 or status._children:
        return bool(_trios_exit(scope, kind, error, traceback))
    parent = status._parent
    status._tasks.clear()
    task._cancel_status = parent
    parent._tasks.add(task)
    parent._children.remove(status)
    status._parent = scope._cancel_status = None
    _note(scope, inf)
    return True


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio.CancelScope, "_might_change_registered_deadline", _might_change_registered_deadline),
    (trio.CancelScope, "__enter__", _enter),
    (trio.CancelScope, "__exit__", _exit),
)
