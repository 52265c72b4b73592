"""What is known of agents: a cache that is kept fresh for those that are here, and that outlives an outage. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf
from typing import Final

from attrs import define

from wazuh_comms_trio.backends.interfaces import Agent

#: Seconds after which an agent that nothing was heard of is forgotten: a token's life, and a little.
FORGET_AFTER: Final = 960.0
#: Entries, whatever their age: some 2 kB each.
LARGEST: Final = 100_000
#: The shares of the window at which what is in use is read again, and for which "there is no such agent" holds.
_RENEW_SHARE: Final = 0.6
_ABSENT_LONGEST: Final = 1.0


@define
class Entry:
    """One cached agent; ``agent`` is None for an id that no agent has. ``revoked_at``: when the agent went, or got
    another key. Moments on trio's clock."""

    agent: Agent | None
    fingerprint: str | None
    read_at: float
    used_at: float
    revoked_at: float = -inf

    @property
    def is_hearsay(self) -> bool:
        """Whether another worker told of it, and nothing was read here."""
        return self.read_at == -inf

    @property
    def needed_at(self) -> float:
        """When it was needed last: a revocation is, for as long as an earlier token may live."""
        return max(self.used_at, self.revoked_at)


class AgentCache:
    """Agents that were read; ``window``: seconds for which what was read may be used (``token.revocation``)."""

    def __init__(self, window: float) -> None:
        self.window = window
        self.entries: dict[str, Entry] = {}

    def put(self, agent_id: str, agent: Agent | None, read_at: float) -> bool:
        """Keeps what was read of an agent. ``read_at``: when the read began. What was read before it doesn't replace
        what was read after it. Returns whether it revokes tokens."""
        entry = self.entries.get(agent_id)
        if entry is None:
            fingerprint = None if agent is None else agent.fingerprint
            self.entries[agent_id] = Entry(agent, fingerprint, read_at, read_at)
        elif entry.read_at <= read_at:
            if entry.agent is None or agent is None or entry.agent.key_hash != agent.key_hash:
                before, entry.fingerprint = entry.fingerprint, None if agent is None else agent.fingerprint
                if entry.fingerprint != before:
                    entry.revoked_at = read_at
            entry.agent = agent
            entry.read_at = read_at
            return entry.revoked_at == read_at
        return False

    def note_gone(self, agent_id: str) -> None:
        """It had a token, and isn't there: so it was removed, before it was first looked for here."""
        entry = self.entries.get(agent_id)
        if entry is not None and entry.agent is None:
            entry.revoked_at = entry.read_at

    def revoke(self, agent_id: str, fingerprint: str | None, revoked_at: float) -> None:
        """Another worker read then that only tokens with this fingerprint are good. What was read here after that
        stays. Whom nobody asked for here wasn't seen here."""
        entry = self.entries.get(agent_id)
        if entry is None or (entry.fingerprint != fingerprint and max(entry.read_at, entry.revoked_at) < revoked_at):
            used_at = -inf if entry is None else entry.used_at
            self.entries[agent_id] = Entry(None, fingerprint, -inf, used_at, revoked_at)

    def is_revoked(self, agent_id: str) -> bool:
        """Whether earlier tokens of it were revoked, as far as that is remembered."""
        entry = self.entries.get(agent_id)
        return entry is not None and entry.revoked_at > -inf

    def revoked(self) -> dict[str, str | None]:
        """The fingerprints of those whose tokens were revoked, as far as that is remembered."""
        return {agent_id: entry.fingerprint for agent_id, entry in self.entries.items() if self.is_revoked(agent_id)}

    def use(self, agent_id: str, now: float) -> Entry | None:
        """The agent's entry, however old; notes that the agent is here."""
        entry = self.entries.get(agent_id)
        if entry is not None:
            entry.used_at = now
        return entry

    def is_fresh(self, entry: Entry, now: float) -> bool:
        limit = self.window if entry.agent is not None else min(self.window, _ABSENT_LONGEST)
        return now - entry.read_at < limit

    def due(self, now: float) -> list[str]:
        """Agents in use that have to be read again, the oldest first; with a window of 0 once a second, for polls."""
        renew = now - max(self.window, 1.0) * _RENEW_SHARE
        in_use = now - 2 * max(self.window, 10.0)
        old = [
            (entry.read_at, agent_id)
            for agent_id, entry in self.entries.items()
            if entry.read_at <= renew and entry.used_at >= in_use and entry.agent is not None
        ]
        old.sort()
        return [agent_id for _, agent_id in old]

    def forget_old(self, now: float) -> None:
        oldest = now - FORGET_AFTER
        stale = [agent_id for agent_id, entry in self.entries.items() if entry.needed_at < oldest]
        excess = len(self.entries) - len(stale) - LARGEST
        if excess > 0:
            by_use = sorted(self.entries, key=lambda agent_id: self.entries[agent_id].needed_at)
            stale = by_use[: len(stale) + excess]
        self._drop(stale)

    def _drop(self, agent_ids: Iterable[str]) -> None:
        for agent_id in agent_ids:
            del self.entries[agent_id]

    def seen_since(self, moment: float) -> Collection[str]:
        return [agent_id for agent_id, entry in self.entries.items() if entry.used_at >= moment]
