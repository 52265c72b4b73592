"""When agents were heard last, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.memory.faults import Faults
from wazuh_comms_trio.backends.presence import (
    STATUSES,
    Heard,
    LastSeen,
    NodeNews,
    PresenceStore,
    Status,
    is_believed,
    status_of,
)
from wazuh_comms_trio.foundation.environment import WallClock

__all__ = ["MemoryPresence"]


class MemoryPresence(PresenceStore):
    """``registry``: id -> agent; who isn't in it is not recorded."""

    keeps_news = False

    def __init__(self, registry: Mapping[str, Agent], wall_clock: WallClock) -> None:
        self._now = wall_clock
        self.faults = Faults()
        self._registry = registry
        self._seen: dict[str, LastSeen] = {}
        self._watch = ("", 0.0, "")

    async def record(self, heard: Sequence[Heard]) -> None:
        await self.faults.strike("record")
        for each in heard:
            agent_id = each.agent_id.lower()
            if each.seen is None:
                continue
            known = self._known().get(agent_id, LastSeen(each.seen))
            seen = self._later(known.seen, each.seen)
            if agent_id in self._registry and seen is not None:
                self._seen[agent_id] = LastSeen(seen, self._later(known.sent, each.sent))

    def _later(self, stored: float | None, said: float | None) -> float | None:
        if stored is None or said is None:
            return said if stored is None else stored
        return max(stored, said) if is_believed(stored, self._now()) else said

    def _known(self) -> dict[str, LastSeen]:
        """What is known of agents, without those that were removed."""
        self._seen = {agent_id: seen for agent_id, seen in self._seen.items() if agent_id in self._registry}
        return self._seen

    async def last_seen(
        self, since: float | None = None, *, before: float | None = None, sent_before: float | None = None
    ) -> Mapping[str, LastSeen]:
        await self.faults.strike("last_seen")
        return {
            agent_id: seen
            for agent_id, seen in self._known().items()
            if (since is None or seen.seen >= since)
            and (before is None or seen.seen < before)
            and (sent_before is None or (seen.sent is not None and seen.sent < sent_before))
        }

    async def last_seen_of(self, agent_ids: Sequence[str]) -> Mapping[str, LastSeen]:
        await self.faults.strike("last_seen_of")
        known = self._known()
        wanted = [agent_id.lower() for agent_id in agent_ids]
        return {agent_id: known[agent_id] for agent_id in wanted if agent_id in known}

    async def take_watch(self, holder: str, now: float, seconds: float) -> str | None:
        await self.faults.strike("take_watch")
        other, until, state = self._watch
        if other != holder and until > now:
            return None
        self._watch = holder, now + seconds, state
        return state

    async def keep_watch(self, holder: str, state: str) -> bool:
        await self.faults.strike("keep_watch")
        if self._watch[0] != holder:
            return False
        self._watch = holder, self._watch[1], state
        return True

    async def about(self, agent_id: str) -> Sequence[NodeNews]:
        await self.faults.strike("about")
        seen = self._known().get(agent_id.lower())
        return () if seen is None else (NodeNews("", "", seen.seen, seen.sent),)

    async def counts(self, since: float) -> Mapping[Status, int]:
        await self.faults.strike("counts")
        known, now = self._known(), self._now()
        found = Counter(
            status_of(agent.last_login, known.get(agent_id), now, now - since)
            for agent_id, agent in self._registry.items()
        )
        return {status: found[status] for status in STATUSES}
