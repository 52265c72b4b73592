"""trio's loop on the mock clock, for less: nothing that is here changes what a task sees, nor when."""

from __future__ import annotations

from typing import Any, Final

from tests.simulation.loop import limits, rescheduling, scopes, sleeping, traps, turns, whole

__all__ = ["REPLACEMENTS"]

#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = tuple(
    each for part in (turns, whole, sleeping, scopes, limits, traps, rescheduling) for each in part.REPLACEMENTS
)
