"""Which agents ask this worker, or the node's other workers, for commands."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import trio

#: Seconds for which an agent that asked counts as one of ours: longer than any poll.
_REMEMBERED_FOR: Final = 900.0
#: The most agents that a search names, two spellings each, twice in the query; index.max_terms_count is 65536.
_MOST: Final = 30_000


class Interest:
    """The agents that asked lately, those that asked last at the end."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}
        self._unreported: dict[str, None] = {}

    def note(self, agent_ids: Collection[str], *, report: bool = False) -> None:
        """These agents asked now; ``report``: the leader, which is another worker, has to hear of it."""
        now = trio.current_time()
        for agent_id in agent_ids:
            self._asked_at.pop(agent_id, None)
            self._asked_at[agent_id] = now
        if report:
            self._unreported.update(dict.fromkeys(agent_ids))

    def agents(self) -> list[str]:
        """The agents that asked lately; forgets those that asked too long ago, or are too many."""
        oldest = trio.current_time() - _REMEMBERED_FOR
        while self._asked_at:
            first = next(iter(self._asked_at))
            if self._asked_at[first] >= oldest and len(self._asked_at) <= _MOST:
                break
            del self._asked_at[first]
        return list(self._asked_at)

    def take_unreported(self) -> list[str]:
        """Agents that the leader hasn't heard of yet; from now on it counts as informed."""
        taken, self._unreported = list(self._unreported), {}
        return taken
