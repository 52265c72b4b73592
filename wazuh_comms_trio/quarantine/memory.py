"""The quarantine in memory, for tests: the same contract as the store on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import BinaryIO

import trio
from attrs import evolve

from wazuh_comms_trio.backends.memory.faults import Faults
from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.quarantine.interface import AGENT_SHARE, PAYLOAD_CHUNK, Entry, Rejected, Usage, digest, size_of


class MemoryQuarantine:
    """``Quarantine`` in a dictionary, ``stored``; the fake for tests."""

    def __init__(self, *, max_bytes: int = 1024**3, wall_clock: Callable[[], float] = time.time) -> None:
        self.stored: dict[int, tuple[Entry, Rejected]] = {}
        self.faults = Faults()
        self._max_bytes = max_bytes
        self._now = wall_clock
        self._last_id = 0
        self._ids: dict[tuple[str, bytes], int] = {}  # by agent and digest
        self._used: Counter[str] = Counter()  # bytes, by agent
        self._total = 0

    @property
    def rejected(self) -> Sequence[Rejected]:
        """What is in it, in order."""
        return [rejected for _, rejected in self.stored.values()]

    async def add(self, entries: Sequence[Rejected]) -> None:
        await self.faults.strike("add")
        added: list[tuple[int, Entry | None]] = []
        try:
            for rejected in entries:
                added.append(self._add(rejected))
        except StorageFull:
            for entry_id, before in reversed(added):
                if before is None:
                    self._drop(entry_id)
                else:
                    self.stored[entry_id] = before, self.stored[entry_id][1]
            raise

    def _add(self, rejected: Rejected) -> tuple[int, Entry | None]:
        """Its number, and what was there before."""
        now = self._now()
        key = rejected.agent_id, digest(rejected, [rejected.payload])
        if (known := self._ids.get(key)) is not None:
            entry, kept = self.stored[known]
            self.stored[known] = evolve(entry, count=entry.count + 1, last_at=now), kept
            return known, entry
        size = size_of(rejected, len(rejected.payload))
        own = self._used[rejected.agent_id] + size
        if self._total + size > self._max_bytes or own > self._max_bytes // AGENT_SHARE:
            raise StorageFull("The quarantine is full")
        self._last_id += 1
        entry = Entry(
            id=self._last_id,
            agent_id=rejected.agent_id,
            kind=rejected.kind,
            reason=rejected.reason,
            size=size,
            payload_bytes=len(rejected.payload),
            first_at=now,
            last_at=now,
        )
        self.stored[entry.id] = entry, rejected
        self._ids[key] = entry.id
        self._used[rejected.agent_id] = own
        self._total += size
        return entry.id, None

    async def add_file(self, rejected: Rejected, file: BinaryIO, size: int) -> None:
        file.seek(0)
        await self.add([evolve(rejected, payload=file.read(size))])

    async def list(self, *, agent_id: str | None = None, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        await self.faults.strike("list")
        found = (entry for entry, _ in self.stored.values() if agent_id in (None, entry.agent_id) and entry.id > after)
        return sorted(found, key=lambda entry: entry.id)[:limit]

    async def get(self, entry_id: int) -> tuple[Entry, Rejected] | None:
        await self.faults.strike("get")
        return self.stored.get(entry_id)

    async def payload(self, entry_id: int) -> AsyncIterator[bytes]:
        found = self.stored.get(entry_id)
        payload = b"" if found is None else found[1].payload
        for start in range(0, len(payload), PAYLOAD_CHUNK):
            await trio.lowlevel.checkpoint()
            yield payload[start : start + PAYLOAD_CHUNK]

    async def drop(self, entry_ids: Collection[int]) -> int:
        await self.faults.strike("drop")
        return sum(map(self._drop, entry_ids))

    def _drop(self, entry_id: int) -> bool:
        found = self.stored.pop(entry_id, None)
        if found is None:
            return False
        entry, rejected = found
        del self._ids[entry.agent_id, digest(rejected, [rejected.payload])]
        self._used[entry.agent_id] -= entry.size
        self._total -= entry.size
        return True

    async def note_replay(self, entry_id: int, error: str) -> None:
        await self.faults.strike("note_replay")
        if entry_id in self.stored:
            entry, rejected = self.stored[entry_id]
            self.stored[entry_id] = evolve(entry, replayed_at=self._now(), replay_error=error), rejected

    async def usage(self) -> Usage:
        await self.faults.strike("usage")
        return Usage(len(self.stored), self._total, self._max_bytes)
