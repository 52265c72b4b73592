"""The lookup queue: agents for which the store is to be asked for commands. Synchronous but for ``take``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

import trio

__all__ = ["LookupQueue"]

#: Agents that one call of the store asks for.
_AGENTS_PER_LOOKUP: Final = 500
#: Commands for more agents than that take turns with requests.
_FEW: Final = 16


class LookupQueue:
    """Agents that may have commands waiting. Only those in ``parked`` are noted; a poll that parks later brings its
    agent itself."""

    def __init__(self, parked: Container[str]) -> None:
        self._parked = parked
        self._agents: set[str] = set()
        self._left_out: set[str] = set()  # while something of theirs was on its way
        self._expected: set[str] = set()
        self._being_stored: Counter[str] = Counter()  # posts that have something for each agent
        self._wake = trio.Event()

    @property
    def is_urgent(self) -> bool:
        """Whether commands for few agents, with parked polls, are on their way to them."""
        if not 0 < max(len(self._expected), len(self._being_stored)) <= _FEW:
            return False
        return len(self._expected.union(self._being_stored)) <= _FEW

    @contextmanager
    def expecting(self, agent_ids: Collection[str], *, kept: bool = False) -> Iterator[None]:
        """While the block runs commands for these agents are being stored. ``kept``: the store that is asked for them
        is told at once, so that it can hand them out as it stores them."""
        expected = Counter({agent_id for agent_id in agent_ids if agent_id in self._parked})
        self._being_stored += expected
        if kept:
            self.schedule(expected)
        try:
            yield
        finally:
            self._being_stored -= expected

    def delivery_decided(self, agent_id: str) -> None:
        """The agent's delivery is decided: what came during it may go now."""
        self._left_out.discard(agent_id)
        self.schedule((agent_id,))

    def handed_out(self, agent_ids: Collection[str]) -> None:
        """What was found for these agents has become deliveries. Those that were left out meanwhile, and have none, may
        have something now."""
        self._expected.difference_update(agent_ids)
        left_out = self._left_out.intersection(agent_ids)
        self._left_out -= left_out
        self.schedule(left_out)

    def schedule(self, agent_ids: Collection[str], *, new: bool = False) -> None:
        """For whoever learns that these agents may have commands: a poll has parked, the store or a post has new ones
        (``new``), some can be claimed again, a lookup failed, or the clock was set back and what looked overdue isn't.
        """
        parked = [agent_id for agent_id in agent_ids if agent_id in self._parked]
        self._agents.update(parked)
        if new:
            self._expected.update(parked)
        if self._agents:
            self._wake.set()

    async def take(self, busy: Container[str]) -> set[str]:
        """The next agents to look up, as soon as there are any. Agents that are ``busy`` are left out: they come again
        when their delivery is decided, or what was found for them was handed out; those without a parked poll, when one
        parks. Cancelled: nothing is taken."""
        while True:
            await self._wake.wait()
            # What is stored for few is found by a claim in the same transaction, which is to be a short one.
            few = self._being_stored if len(self._being_stored) <= _FEW else ()
            taken = self._may_be_taken(self._agents.intersection(few), busy)
            most = _FEW if taken else _AGENTS_PER_LOOKUP
            while self._agents and len(taken) < most:
                taken |= self._may_be_taken(set(islice(self._agents, most - len(taken))), busy)
            if not self._agents:
                self._wake = trio.Event()
            if taken:
                return taken

    def _may_be_taken(self, agent_ids: set[str], busy: Container[str]) -> set[str]:
        """Of scheduled agents, which aren't any more, those that can be looked up."""
        self._agents -= agent_ids
        self._left_out.update(agent_id for agent_id in agent_ids if agent_id in busy)
        may = {agent_id for agent_id in agent_ids if agent_id not in busy and agent_id in self._parked}
        self._expected -= agent_ids - may
        return may
