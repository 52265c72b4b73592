"""Long polls that are parked: which agents wait, and which of an agent's polls is answered.

What one waiting poll costs here: an object, its event and its places in the dictionaries and scopes, some 2 kB.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Final

import trio

from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery
from wazuh_comms_trio.services.commands.poll_ends import PollEnds

__all__ = ["LongPoll", "LongPolls"]

#: Seconds between two handfuls of polls that are answered when the worker stops.
_ANSWERING_STEP: Final = 0.02
#: Seconds that a poll isn't sent away in by a newer one of its agent's.
_PROTECTED: Final = 5.0
#: Polls of one agent at a time, all the same: with one more the oldest is sent away.
_AT_ONCE: Final = 8


class LongPoll:
    """One parked poll. ``news`` is set once, with a ``delivery``, or ``revoked``, or neither: nothing will come. It is
    waited for in ``scope``, until ``end`` (trio's clock) at the latest.
    """

    __slots__ = ("agent_id", "delivery", "end", "fingerprint", "news", "revoked", "scope", "since")

    def __init__(self, agent_id: str, fingerprint: str, end: float) -> None:
        self.since = trio.current_time()
        self.scope = trio.CancelScope()  # its deadline comes from ``PollEnds``
        self.end = end
        self.agent_id = agent_id
        self.fingerprint = fingerprint
        self.news = trio.Event()
        self.delivery: CommandDelivery | None = None
        self.revoked = False


class LongPolls:
    """All parked polls, by agent. An agent has one; for some seconds more, when a newer one came: that is the likeliest
    to be alive, since a connection may have died and nobody has noticed yet.
    """

    def __init__(self) -> None:
        self._by_agent: dict[str, list[LongPoll]] = {}
        self._fingerprints: dict[str, str] = {}
        self._rekeyed: set[str] = set()
        self._unchecked: set[str] = set()
        self._count = 0
        self._ends = PollEnds()
        self._occupied = trio.Event()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._by_agent

    def add(self, long_poll: LongPoll) -> None:
        if long_poll.agent_id in self._by_agent:
            self.displace(long_poll.agent_id)
            while len(of_agent := self._by_agent.get(long_poll.agent_id, [])) >= _AT_ONCE:
                self.answer(of_agent[0], None)
        self._by_agent.setdefault(long_poll.agent_id, []).append(long_poll)
        self._count += 1
        self._ends.add(long_poll)
        self._occupied.set()
        self._unchecked.add(long_poll.agent_id)
        if self._fingerprints.setdefault(long_poll.agent_id, long_poll.fingerprint) != long_poll.fingerprint:
            self._rekeyed.add(long_poll.agent_id)

    def displace(self, agent_id: str) -> None:
        """A newer poll of this agent is parked, here or at another worker: the older ones here end, each once it is
        ``_PROTECTED`` seconds old, or copies of an agent would send each other away all the time.
        """
        now = trio.current_time()
        for long_poll in list(self._by_agent.get(agent_id, ())):
            end = long_poll.since + _PROTECTED
            if end <= now:
                self.answer(long_poll, None)
            elif end < long_poll.end:
                self._ends.shorten(long_poll, end)

    def remove(self, long_poll: LongPoll) -> None:
        """Removes a poll; nothing happens when it has left already."""
        of_agent = self._by_agent.get(long_poll.agent_id, [])
        if long_poll not in of_agent:
            return
        of_agent.remove(long_poll)
        self._count -= 1
        self._ends.remove(long_poll)
        if not self._count:
            self._occupied = trio.Event()
        if not of_agent:
            del self._by_agent[long_poll.agent_id]
            del self._fingerprints[long_poll.agent_id]
            self._rekeyed.discard(long_poll.agent_id)
            self._unchecked.discard(long_poll.agent_id)

    async def wait_for_any(self) -> None:
        """Returns when somebody waits: at once, with no turn for others, where somebody does."""
        if not self._count:
            await self._occupied.wait()

    def newest(self, agent_id: str) -> LongPoll | None:
        of_agent = self._by_agent.get(agent_id)
        return of_agent[-1] if of_agent else None

    def answer(self, long_poll: LongPoll, delivery: CommandDelivery | None) -> None:
        self.remove(long_poll)
        long_poll.delivery = delivery
        long_poll.news.set()

    async def answer_over(self, seconds: float) -> None:
        """Answers all polls with nothing, evenly over ``seconds``, those first that parked first. Cancelled: the rest
        waits on."""
        end = trio.current_time() + seconds
        while (left := end - trio.current_time()) > _ANSWERING_STEP and self._count:
            pause = max(_ANSWERING_STEP, left / self._count)
            for of_agent in list(islice(self._by_agent.values(), round(self._count * pause / left))):
                self.answer(of_agent[0], None)
            await trio.sleep(min(pause, left))
        self.answer_all()

    def answer_oldest(self, count: int) -> int:
        """Answers the polls of up to ``count`` agents with nothing, those first that parked first. Returns how many."""
        oldest = list(islice(self._by_agent.values(), count))
        for of_agent in oldest:
            self.answer(of_agent[0], None)
        return len(oldest)

    def answer_all(self) -> None:
        """Answers all polls with nothing."""
        for of_agent in list(self._by_agent.values()):
            for long_poll in list(of_agent):
                self.answer(long_poll, None)

    def revoke(self, agent_id: str, valid: str | None) -> None:
        """Ends the agent's polls but those whose token was made for the key with the fingerprint ``valid``."""
        for long_poll in list(self._by_agent.get(agent_id, ())):
            if long_poll.fingerprint != valid:
                long_poll.revoked = True
                self.answer(long_poll, None)
        left = self._by_agent.get(agent_id)
        if left:
            self._fingerprints[agent_id] = left[-1].fingerprint
        self._rekeyed.discard(agent_id)

    def agents(self) -> Collection[str]:
        """All agents with parked polls; a copy."""
        return tuple(self._by_agent)

    def recheck(self, agent_ids: Collection[str] | None) -> None:
        """These agents, or (None) all with parked polls, may have been removed or rekeyed since they were checked.
        An agent that parks is unchecked from the beginning."""
        if agent_ids is None:
            self._unchecked.update(self._fingerprints)
        else:
            self._unchecked.update(agent_id for agent_id in agent_ids if agent_id in self._fingerprints)

    def take_unchecked(self, count: int) -> dict[str, str]:
        """Up to ``count`` unchecked agents, each with the fingerprint of one poll. The caller checks them."""
        taken = [self._unchecked.pop() for _ in range(min(count, len(self._unchecked)))]
        return {agent_id: self._fingerprints[agent_id] for agent_id in taken}

    @property
    def rekeyed(self) -> Collection[str]:
        """Agents whose parked polls have different fingerprints: they were rekeyed in between."""
        return tuple(self._rekeyed)
