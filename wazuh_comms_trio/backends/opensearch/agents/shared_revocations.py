"""What one worker of a node read of agents that went or got another key, its other workers know, too: while the
registry can't be read none of them takes such an agent's earlier tokens. A worker that comes asks the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.opensearch.agents.cache import AgentCache

_TOPIC: Final = "revocations"
_ASKED: Final = "asked"
#: Of each agent, the fingerprint whose tokens are good, and how many seconds ago that was read: another process's clock
#: begins elsewhere.
_AGENTS: Final = "agents"
#: Agents in one message.
_AT_ONCE: Final = 500


class SharedRevocations:
    """Between the cache of this worker and those of the others. It doesn't matter which worker is the leader."""

    def __init__(self, cache: AgentCache, leadership: Leadership) -> None:
        self._cache = cache
        self._leadership = leadership
        leadership.register(_TOPIC, on_finding=self._handle, on_change=self._ask)
        self._ask()  # before this worker serves; and again when it is ready, since a message may be lost

    def tell(self, agent_ids: Sequence[str]) -> None:
        """Tells the other workers what the cache has of these, whose earlier tokens were revoked."""
        now = trio.current_time()
        for start in range(0, len(agent_ids), _AT_ONCE):
            part = agent_ids[start : start + _AT_ONCE]
            known = {each: self._cache.entries[each] for each in part if self._cache.is_revoked(each)}
            self._leadership.publish(
                _TOPIC, {_AGENTS: {each: [entry.fingerprint, now - entry.revoked_at] for each, entry in known.items()}}
            )

    def _ask(self) -> None:
        self._leadership.publish(_TOPIC, {_ASKED: True})

    def _handle(self, finding: Finding) -> None:
        if finding.get(_ASKED):
            self.tell(list(self._cache.revoked()))
        now = trio.current_time()
        for agent_id, (fingerprint, seconds_ago) in finding.get(_AGENTS, {}).items():
            self._cache.revoke(agent_id, fingerprint, now - seconds_ago)
