"""Agents that no node has seen for a while become ``disconnected``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from math import inf
from typing import Final

import trio

from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.opensearch.client.bulk import QUERY, partial, read_items, update_if_line
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.queries import by_time, every, exactly, to_moment
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.timestamps import to_iso

logger = logging.getLogger(__name__)

_PAGE: Final = 500
#: How often is looked: a share of the time that an agent has, in bounds.
_SHARE: Final = 0.1
_SHORTEST: Final = 1.0
_LONGEST: Final = 60.0
#: How long, in multiples of that time, another node is believed that an agent is there.
_TRUST: Final = 5.0
_TOPIC: Final = "presence"


class Presence:
    """``seen_since``: the agents that were here since a moment on trio's clock; they stay ``active`` although their
    last log-in is long ago. ``after`` in seconds."""

    def __init__(
        self,
        client: OpenSearchClient,
        index: IndexName,
        *,
        after: float,
        wall_clock: Callable[[], float],
        seen_since: Callable[[float], Collection[str]],
        leadership: Leadership | None = None,
    ) -> None:
        self._leadership = leadership = leadership or Leadership()
        leadership.register(_TOPIC, on_request=self._note_seen, on_change=self._on_leader_change)
        self._client = client
        self._index = index
        self._after = after
        self._now = wall_clock
        self._seen_since = seen_since
        #: Agent -> the log-in by which it was found to be away here, and until when that isn't repeated.
        self._found: dict[str, tuple[float, float]] = {}
        #: Agents that other workers of this node saw, and when they said so.
        self._seen_elsewhere: dict[str, float] = {}
        self._reported_at = -inf
        self._leader_changed_at = -inf

    async def run(self) -> None:
        """Sweeps now and then, until cancelled. Several nodes that do the same don't disturb each other; of a node's
        workers one does."""
        while True:
            await trio.sleep(min(_LONGEST, max(_SHORTEST, self._after * _SHARE)))
            if not self._leadership.is_leader:
                self._report_seen()
                continue
            if trio.current_time() - self._leader_changed_at < _SHORTEST:
                continue  # the other workers have yet to report which agents they saw
            try:
                await self.sweep()
            except BackendUnavailable as exc:
                logger.debug("agents that are away are found later: %s", exc)
            except Exception:
                logger.exception("agents that are away can't be found: an error of ours")

    def _report_seen(self) -> None:
        now = trio.current_time()
        seen = list(self._seen_since(max(self._reported_at, now - self._after)))
        self._reported_at = now
        if seen:
            self._leadership.ask_leader(_TOPIC, {"agents": seen})

    def _on_leader_change(self) -> None:
        self._leader_changed_at, self._reported_at = trio.current_time(), -inf
        if not self._leadership.is_leader:
            self._report_seen()

    def _note_seen(self, request: Finding) -> None:
        self._seen_elsewhere |= dict.fromkeys(request.get("agents", ()), trio.current_time())

    def _seen_here(self) -> set[str]:
        """The agents that any worker of this node saw lately."""
        oldest = trio.current_time() - self._after
        self._seen_elsewhere = {
            agent_id: moment for agent_id, moment in self._seen_elsewhere.items() if moment >= oldest
        }
        return self._seen_elsewhere.keys() | set(self._seen_since(oldest))

    async def sweep(self) -> int:
        """Marks agents that are away; returns how many are away now. Raises ``BackendUnavailable``."""
        index = await self._index.present()
        if index is None:
            return 0
        now = self._now()
        oldest = now - self._after
        self._found = {agent_id: each for agent_id, each in self._found.items() if each[1] > now}
        here = self._seen_here()
        query = every(exactly("agent.status", ["active"]), {"range": {"agent.last_login": {"lt": to_iso(oldest)}}})
        hits = await search(
            self._client,
            index,
            query,
            sort=[by_time("agent.last_login", "asc")],
            size=_PAGE,
            fields=["agent.last_login"],
        )
        away: dict[str, float] = {}
        lines = []
        for hit in hits.readable:
            agent = hit.source.get("agent") if isinstance(hit.source, dict) else None
            login = to_moment(agent.get("last_login")) if isinstance(agent, dict) else None
            if login is None or login >= oldest or hit.id.lower() in here:
                continue
            if hit.id in self._found and self._found[hit.id][0] == login:
                continue  # active again without a log-in: it is with another node, which knows better
            away[hit.id] = login
            lines += [
                update_if_line(index, hit.id, hit.seq_no, hit.primary_term),
                partial({"agent": {"status": "disconnected"}}),
            ]
        if not lines:
            return 0
        reply = await self._client.request("POST", "/_bulk", b"".join(lines), query=QUERY, content_type=NDJSON)
        items = read_items(reply, len(away))
        # A 409 is an agent that has just come back, or another node that was faster.
        done = [each for each, item in zip(away.items(), items, strict=True) if item.error is None]
        self._found |= {agent_id: (login, now + _TRUST * self._after) for agent_id, login in done}
        return len(done)
