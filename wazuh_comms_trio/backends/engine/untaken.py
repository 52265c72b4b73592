"""Bodies of events that the engine doesn't take, while it may do everything else."""

from __future__ import annotations

from math import inf
from typing import Final

import trio

__all__ = ["UntakenBodies"]

#: One agent's alone may be what the engine hangs or fails at.
_AGENTS: Final = 2
#: Seconds for which it fails all before that is held against it: one that starts is soon done, and who has too much to
#: do takes some of them.
_LASTING: Final = 5.0
#: Seconds for which it is held against the engine when nobody sends anything: agents come again after 30.
_HELD_FOR: Final = 60.0


class UntakenBodies:
    """Those since the engine took one last, or refused one for what it is."""

    def __init__(self) -> None:
        self._agents: set[str] = set()
        self._first = self._last = -inf
        self._silent = False

    def taken(self) -> None:
        self._agents.clear()

    def given_up(self, agent_id: str) -> None:
        """The engine had its time for a body of this agent, and didn't answer."""
        self._note(agent_id)
        self._first = -inf
        self._silent = True

    def failed(self, agent_id: str) -> None:
        """The engine answered that it can't take this agent's body now, or closed the connection."""
        self._note(agent_id)
        self._silent = False

    def reason(self) -> str | None:
        """What is to be said of an engine that left several agents' bodies of late, and took none."""
        now = trio.current_time()
        is_few = len(self._agents) < _AGENTS
        if is_few or now - self._last > _HELD_FOR or self._last - self._first < _LASTING:
            return None
        return "it leaves events unanswered" if self._silent else "it takes no events"

    def _note(self, agent_id: str) -> None:
        now = trio.current_time()
        if now - self._last > _HELD_FOR:
            self._agents.clear()
        if not self._agents:
            self._first = now
        if len(self._agents) < _AGENTS:
            self._agents.add(agent_id)
        self._last = now
