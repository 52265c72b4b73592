"""Bodies of events that the engine leaves unanswered, while it may answer everything else."""

from __future__ import annotations

from math import inf
from typing import Final

import trio

__all__ = ["UnansweredBodies"]

#: One agent's alone may be what the engine hangs at.
_AGENTS: Final = 2
#: Seconds for which it is held against the engine when nobody sends anything: agents come again after 30.
_HELD_FOR: Final = 60.0


class UnansweredBodies:
    """Those since a body was answered last."""

    def __init__(self) -> None:
        self._agents: set[str] = set()
        self._last = -inf

    def answered(self) -> None:
        self._agents.clear()

    def given_up(self, agent_id: str) -> None:
        """The engine had its time for a body of this agent."""
        now = trio.current_time()
        if now - self._last > _HELD_FOR:
            self._agents.clear()
        if len(self._agents) < _AGENTS:
            self._agents.add(agent_id)
        self._last = now

    def are_all(self) -> bool:
        """Whether several agents' bodies were left unanswered of late, and none was answered."""
        return len(self._agents) >= _AGENTS and trio.current_time() - self._last <= _HELD_FOR
