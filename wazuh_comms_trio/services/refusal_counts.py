"""What was refused for want of room or beyond a limit: counted, said in the log once a second, named in the status."""

from __future__ import annotations

import logging
from typing import Final

import trio

from wazuh_comms_trio.foundation.outage_log import LogInterval

__all__ = ["RefusalCounts"]

logger = logging.getLogger(__name__)

#: Seconds between two lines in the log.
_SAID_EVERY: Final = 1.0
#: What was refused is in the status for that long, seconds.
_NAMED_FOR: Final = 60.0
#: Agents that are named at most, those of the last refusals.
_AGENTS: Final = 64
_NAMED: Final = 5


class RefusalCounts:
    """The refusals of one worker. ``refused`` is called wherever something is turned away."""

    def __init__(self) -> None:
        self.total: int = 0
        #: By what was refused; the names are the program's, so that there are few.
        self.by_cause: dict[str, int] = {}
        self._unsaid: dict[str, int] = {}
        self._log_interval = LogInterval(_SAID_EVERY, trio.current_time)
        self._what: dict[str, tuple[int, float]] = {}  # of everybody's limits: how often, and when last
        self._agents: dict[tuple[str, str], tuple[int, float]] = {}  # in the order of the last refusals

    def refused(self, what: str, agent_id: str | None = None, *, count: int = 1) -> None:
        """Counts a refusal; ``what``: a route, or another name; ``agent_id``: whose own limit it was, None where it was
        everybody's."""
        now = trio.current_time()
        self.total += count
        self.by_cause[what] = self.by_cause.get(what, 0) + count
        label = what
        if agent_id is None:
            self._what[what] = (_recent(self._what.get(what), now) + count, now)
        else:
            number = _recent(self._agents.pop((agent_id, what), None), now) + count
            self._agents[agent_id, what] = number, now
            if len(self._agents) > _AGENTS:
                del self._agents[next(iter(self._agents))]
            label = f"{what} of agent {agent_id}"
        if len(self._unsaid) < _AGENTS or label in self._unsaid:
            self._unsaid[label] = self._unsaid.get(label, 0) + count
        else:
            self._unsaid[what] = self._unsaid.get(what, 0) + count
        self.say()

    def say(self) -> None:
        """Logs what wasn't said yet, unless the last line is younger than a second."""
        if not self._unsaid or not self._log_interval.is_over():
            return
        ranked = sorted(self._unsaid.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{number} {label}" for label, number in ranked[:_NAMED])
        rest = sum(number for _, number in ranked[_NAMED:])
        logger.warning("refused beyond a limit: %s%s", shown, f" and {rest} more" if rest else "")
        self._unsaid = {}

    def lines(self) -> list[str]:
        """A sentence for each of what was refused within the last minute, agents first."""
        now = trio.current_time()
        found = [
            f"agent {agent_id} sends more {what} than its limit: {number} refused"
            for (agent_id, what), (number, when) in self._agents.items()
            if now - when < _NAMED_FOR
        ]
        found += [
            f"{number} {what} refused: more than all agents' limit"
            for what, (number, when) in self._what.items()
            if now - when < _NAMED_FOR
        ]
        return found


def _recent(seen: tuple[int, float] | None, now: float) -> int:
    return seen[0] if seen is not None and now - seen[1] < _NAMED_FOR else 0
