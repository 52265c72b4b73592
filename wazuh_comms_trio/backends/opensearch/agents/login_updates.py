"""Log-ins on their way to the registry: many in one call, and no request waits for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.opensearch.client.bulk import QUERY, judge, partial, read_items, update_line
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.foundation.timestamps import to_iso

logger = logging.getLogger(__name__)

#: Updates in one call.
_BATCH: Final = 500
#: At most so many agents' log-ins wait (150 bytes each); those of an outage's first agents are forgotten first.
_MOST_WAITING: Final = 100_000
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0


class LoginRecorder:
    """Writes log-ins: sets ``last_login`` and ``status``. Only the last of each agent counts."""

    def __init__(self, client: OpenSearchClient, index: IndexName) -> None:
        self._client = client
        self._index = index
        self._waiting: dict[str, float | None] = {}
        self._arrived = trio.Event()
        self._as_number = False
        self._lock = trio.Lock()

    def record(self, agent_id: str, when: float | None) -> None:
        """``when`` in epoch seconds; None: it is here, though it didn't log in now."""
        if when is None and agent_id in self._waiting:
            return
        self._waiting.pop(agent_id, None)
        self._waiting[agent_id] = when
        while len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._arrived.set()

    async def run(self) -> None:
        """Writes what waits, until cancelled."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            await self._arrived.wait()
            try:
                await self.flush()
                backoff.reset()
            except Exception as exc:
                if isinstance(exc, BackendUnavailable):
                    logger.info("log-ins of %d agents are recorded later: %s", len(self._waiting), exc)
                else:
                    logger.exception("log-ins can't be recorded: an error of ours")
                await trio.sleep(backoff.next_pause())

    async def flush(self) -> None:
        """Writes until nothing waits. Raises ``BackendUnavailable``; what wasn't written waits on."""
        async with self._lock:
            while self._waiting:
                batch = dict(list(self._waiting.items())[:_BATCH])
                for agent_id in batch:
                    del self._waiting[agent_id]
                written = False
                try:
                    await self._write(batch)
                    written = True
                finally:
                    if not written:
                        self._waiting = batch | self._waiting
            self._arrived = trio.Event()

    async def _write(self, batch: Mapping[str, float | None]) -> None:
        index = await self._index.existing()
        lines = []
        for agent_id, when in batch.items():
            lines += [update_line(index, agent_id), partial({"agent": self._fields(when)})]
        reply = await self._client.request("POST", "/_bulk", b"".join(lines), query=QUERY, content_type=NDJSON)
        refused = 0
        for item in read_items(reply, len(batch)):
            verdict = judge(item)
            refused += verdict == "refused"
            if verdict == "passing" and item.status != 409:  # 409: others are writing; it isn't worth a fight
                reason = item.error.reason if item.error else ""
                raise IndexerUnavailable(f"{index}: {item.status} {reason}")
        if refused and not self._as_number:
            # A dynamic mapping made of other writers' numbers.
            self._as_number = True
            await self._write(batch)
        elif refused:
            text = "indexer: %s takes no log-in: `wazuh-comms indexer check` says more"
            self._client.failures.refused("refusals of log-ins", text, index)

    def _fields(self, when: float | None) -> dict[str, Any]:
        if when is None:
            return {"status": "active"}
        return {"status": "active", "last_login": round(when * 1000) if self._as_number else to_iso(when)}
