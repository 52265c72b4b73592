"""Cancel scopes, of which a request has some twenty, note their deadlines without a generator for each time."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import trio

__all__ = ["REPLACEMENTS"]


class _Noting:
    """What ``CancelScope._might_change_registered_deadline`` is, in a run that is no guest."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            scope._registered_deadline = new
            deadlines = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines
            if old != inf:
                deadlines.remove(old, scope)
            if new != inf:
                deadlines.add(new, scope)


def _might_change_registered_deadline(scope: trio.CancelScope) -> _Noting:
    return _Noting(scope)


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio.CancelScope, "_might_change_registered_deadline", _might_change_registered_deadline),
)
