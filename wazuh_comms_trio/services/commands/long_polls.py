"""Parked polls: who waits, and which of an agent's polls is answered. Synchronous.

What one waiting poll costs here: a waiter, its event and its places in the dictionaries and scopes, some 2 kB.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

import trio

from wazuh_comms_trio.services.commands.deliveries import Offer

__all__ = ["Parking", "Waiter"]


class Waiter:
    """One parked poll. ``news`` is set once, with an ``offer``, or ``revoked``, or neither: nothing will come."""

    __slots__ = ("agent_id", "fingerprint", "news", "offer", "revoked")

    def __init__(self, agent_id: str, fingerprint: str) -> None:
        self.agent_id = agent_id
        self.fingerprint = fingerprint
        self.news = trio.Event()
        self.offer: Offer | None = None
        self.revoked = False


class Parking:
    """All parked polls, by agent. An agent has one, as a rule; more when a connection died and nobody has noticed yet:
    the newest one is the likeliest to be alive."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[Waiter]] = {}
        self._fingerprints: dict[str, str] = {}
        self._mixed: set[str] = set()
        self._count = 0
        self._occupied = trio.Event()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._waiters

    def enter(self, waiter: Waiter) -> None:
        of_agent = self._waiters.setdefault(waiter.agent_id, [])
        of_agent.append(waiter)
        self._count += 1
        self._occupied.set()
        if self._fingerprints.setdefault(waiter.agent_id, waiter.fingerprint) != waiter.fingerprint:
            self._mixed.add(waiter.agent_id)

    def leave(self, waiter: Waiter) -> None:
        """Nothing happens when it has left already."""
        of_agent = self._waiters.get(waiter.agent_id, [])
        if waiter not in of_agent:
            return
        of_agent.remove(waiter)
        self._count -= 1
        if not self._count:
            self._occupied = trio.Event()
        if not of_agent:
            del self._waiters[waiter.agent_id]
            del self._fingerprints[waiter.agent_id]
            self._mixed.discard(waiter.agent_id)

    async def occupied(self) -> None:
        """Returns when somebody waits."""
        await self._occupied.wait()

    def newest(self, agent_id: str) -> Waiter | None:
        of_agent = self._waiters.get(agent_id)
        return of_agent[-1] if of_agent else None

    def answer(self, waiter: Waiter, offer: Offer | None) -> None:
        self.leave(waiter)
        waiter.offer = offer
        waiter.news.set()

    def answer_some(self, number: int) -> None:
        """Of so many, those that parked first: nothing will come."""
        for of_agent in list(islice(self._waiters.values(), number)):
            self.answer(of_agent[0], None)

    def answer_all(self) -> None:
        """Nothing will come."""
        for of_agent in list(self._waiters.values()):
            for waiter in list(of_agent):
                self.answer(waiter, None)

    def revoke(self, agent_id: str, valid: str | None) -> None:
        """Ends the agent's polls but those whose token was made for the key with the fingerprint ``valid``."""
        for waiter in list(self._waiters.get(agent_id, ())):
            if waiter.fingerprint != valid:
                waiter.revoked = True
                self.answer(waiter, None)
        left = self._waiters.get(agent_id)
        if left:
            self._fingerprints[agent_id] = left[-1].fingerprint
        self._mixed.discard(agent_id)

    def fingerprints(self) -> dict[str, str]:
        """Of every agent with parked polls, one; a copy."""
        return self._fingerprints.copy()

    @property
    def mixed(self) -> Collection[str]:
        """Agents whose parked polls have different fingerprints: they were rekeyed in between."""
        return tuple(self._mixed)
