"""Whether the wall clock is set back, also for a moment."""

from __future__ import annotations

from typing import Final

import trio

from wazuh_comms_trio.foundation.environment import WallClock

__all__ = ["ClockSteps"]

#: Seconds that a wall clock is set back by at least; less is its being brought into step.
_CLOCK_STEP: Final = 0.5


class ClockSteps:
    """How far the wall clock is ahead of trio's, by what whoever compares commands' times with it has ``noted``."""

    def __init__(self, wall_clock: WallClock) -> None:
        self._wall_clock = wall_clock
        self._most = self._ahead()

    def note(self) -> None:
        """Commands' times are compared with the clock just now."""
        self._most = max(self._most, self._ahead())

    def was_set_back(self) -> bool:
        """Whether it was ahead, since the last call, by more than it is now."""
        most, self._most = self._most, self._ahead()
        return self._most < most - _CLOCK_STEP

    def _ahead(self) -> float:
        return self._wall_clock() - trio.current_time()
