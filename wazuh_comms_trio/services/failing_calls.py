"""Calls of the stores that fail each time: a worker's status says so while it lasts, also where a store is well enough
to be ready."""

from __future__ import annotations

from typing import Final

import trio
from attrs import define

__all__ = ["FailingCalls"]

#: Seconds of failures before they are told of.
_TOLD_AFTER: Final = 5.0
#: Seconds after the last failure for which they are: agents come back after 30.
_TOLD_FOR: Final = 60.0
#: Characters of what a store says.
_LONGEST: Final = 300


@define
class _Failures:
    """Of one call, since it worked last; moments are trio's clock."""

    since: float
    last: float
    why: str
    count: int = 1


class FailingCalls:
    def __init__(self) -> None:
        self._failing: dict[str, _Failures] = {}

    def worked(self, call: str) -> None:
        if self._failing:
            self._failing.pop(call, None)

    def failed(self, call: str, why: str) -> None:
        """``call``: the store and what it was asked for, of which there are few."""
        now, why = trio.current_time(), why[:_LONGEST]
        failures = self._failing.get(call)
        if failures is None:
            self._failing[call] = _Failures(now, now, why)
        else:
            failures.last, failures.why = now, why
            failures.count += 1

    def lines(self) -> list[str]:
        """A sentence for each call that goes on failing."""
        now = trio.current_time()
        return [
            f"{call} has failed {each.count} times in {each.last - each.since:.0f} s: {each.why}"
            for call, each in self._failing.items()
            if each.last - each.since >= _TOLD_AFTER and now - each.last <= _TOLD_FOR
        ]
