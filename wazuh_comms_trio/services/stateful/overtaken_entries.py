"""Entries of the quarantine whose documents later events have changed: nobody needs them any more, so they make room
when there is none."""

from __future__ import annotations

import logging
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import EventIndex
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.caches.bounded_cache import AGENTS_REMEMBERED, BoundedCache
from wazuh_comms_trio.quarantine.interface import Entry, Quarantine

__all__ = ["OvertakenEntries", "document_of"]

_log = logging.getLogger(__name__)

#: Seconds until the entries of an agent, or all, are looked through again.
_PAUSE: Final = 300.0
_PAGE: Final = 100


def document_of(entry: Entry) -> tuple[str, str]:
    """Index and id of the document that an entry is about."""
    index, _, document_id = entry.document.partition("/")
    return index, document_id


class OvertakenEntries:
    """``find`` when the quarantine has no room."""

    def __init__(self, quarantine: Quarantine, events: EventIndex) -> None:
        self._quarantine = quarantine
        self._events = events
        self._looked_at: BoundedCache[str, float] = BoundedCache(AGENTS_REMEMBERED)

    async def find(self, agent_id: str) -> int:
        """Marks those of this agent, and if there are none, of all; returns how many it found. At most once in a while,
        then none. Raises ``BackendUnavailable``."""
        return await self._look(agent_id) or await self._look(None)

    async def _look(self, agent_id: str | None) -> int:
        name = agent_id or ""
        now = trio.current_time()
        before = self._looked_at.get(name)
        if before is not None and now - before < _PAUSE:
            return 0
        self._looked_at.put(name, now)
        found = after = 0
        while page := await self._quarantine.list(agent_id=agent_id, after=after, limit=_PAGE):
            after = page[-1].id
            known = [entry for entry in page if entry.version and entry.overtaken_at is None]
            if not known:
                continue
            try:
                versions = await self._events.versions([document_of(entry) for entry in known])
            except BackendUnavailable:
                self._looked_at.put(name, now - _PAUSE)
                raise
            pairs = zip(known, versions, strict=True)
            overtaken = [entry.id for entry, version in pairs if version and version != entry.version]
            if overtaken:
                await self._quarantine.mark_overtaken(overtaken)
                found += len(overtaken)
        if found:
            _log.info("quarantine: later events have overtaken %d entries, which make room", found)
        return found
