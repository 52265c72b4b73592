"""The quarantine in memory, for tests: the same contract as the store on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import BinaryIO

import trio
from attrs import evolve

from wazuh_comms_trio.backends.memory.faults import Faults
from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.quarantine.interface import (
    AGENT_SHARE,
    PAYLOAD_CHUNK,
    Entry,
    Rejected,
    Remaining,
    Usage,
    describe_full,
    digest,
    size_of,
)


class MemoryQuarantine:
    """``Quarantine`` in a dictionary, ``stored``; the fake for tests."""

    def __init__(self, *, max_bytes: int = 1024**3, wall_clock: Callable[[], float] = time.time) -> None:
        self.stored: dict[int, tuple[Entry, Rejected]] = {}
        self.faults = Faults()
        self._max_bytes = max_bytes
        self._now = wall_clock
        self._last_id = 0
        self._full: set[str | None] = set()
        self._ids: dict[tuple[str, bytes], int] = {}  # by agent and digest
        self._arrivals: dict[int, int] = {}  # by id: a higher one each time it comes
        self._last_arrival = 0

    @property
    def rejected(self) -> Sequence[Rejected]:
        """What was rejected, in order."""
        return [rejected for _, rejected in self.stored.values()]

    async def add(self, entries: Sequence[Rejected]) -> None:
        await self.faults.strike("add")
        before = dict(self.stored), dict(self._ids)
        try:
            for rejected in entries:
                self._add(rejected)
        except StorageFull:
            self.stored, self._ids = before
            self._full.update({rejected.agent_id for rejected in entries})
            raise
        self._full -= {rejected.agent_id for rejected in entries}

    def alarm(self) -> str | None:
        return describe_full(self._full)

    def _add(self, rejected: Rejected, *, limited: bool = True) -> None:
        now = self._now()
        key = rejected.agent_id, digest(rejected, [rejected.payload])
        if rejected.document:
            for entry, kept in list(self.stored.values()):
                if entry.document == rejected.document and (entry.agent_id, digest(kept, [kept.payload])) != key:
                    self._drop(entry.id)
        if (known := self._ids.get(key)) is not None:
            entry, kept = self.stored[known]
            if rejected.document:
                entry = evolve(entry, document=rejected.document, version=rejected.version)
                kept = evolve(kept, document=rejected.document, version=rejected.version)
            self.stored[known] = evolve(entry, count=entry.count + 1, last_at=now, overtaken_at=None), kept
            self._note_arrival(known)
            return
        size = size_of(rejected, len(rejected.payload))
        for entry, _ in list(self.stored.values()) if limited else ():
            if self._bytes() + size <= self._max_bytes:
                break
            if entry.overtaken_at is not None:
                self._drop(entry.id)
        if limited and (
            self._bytes() + size > self._max_bytes
            or self._bytes(rejected.agent_id) + size > self._max_bytes // AGENT_SHARE
        ):
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
            document=rejected.document,
            version=rejected.version,
        )
        self.stored[entry.id] = entry, rejected
        self._ids[key] = entry.id
        self._note_arrival(entry.id)

    def _note_arrival(self, entry_id: int) -> None:
        self._last_arrival += 1
        self._arrivals[entry_id] = self._last_arrival

    def _bytes(self, agent_id: str | None = None) -> int:
        """How many bytes all entries take, or those of an agent's that count in its share."""
        entries = [entry for entry, _ in self.stored.values()]
        if agent_id is not None:
            entries = [entry for entry in entries if entry.agent_id == agent_id and entry.overtaken_at is None]
        return sum(entry.size for entry in entries)

    async def add_file(self, rejected: Rejected, file: BinaryIO, size: int, *, start: int = 0) -> None:
        file.seek(start)
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
        return True

    async def replace(self, entry_id: int, remaining: Sequence[Remaining]) -> None:
        await self.faults.strike("replace")
        if entry_id not in self.stored:
            return
        before = dict(self.stored), dict(self._ids)
        old = self.stored[entry_id][0]
        arrival = self._arrivals[entry_id]
        self._drop(entry_id)
        room = old.size
        for one in remaining:
            rejected, document = one.rejected, one.rejected.document
            others = (entry.id for entry, _ in self.stored.values() if document and entry.document == document)
            newer = any(self._arrivals[other] > arrival for other in others)
            if newer or (rejected.agent_id, digest(rejected, [rejected.payload])) in self._ids:
                continue
            room -= size_of(rejected, len(rejected.payload))
            try:
                self._add(rejected, limited=room < 0)
            except StorageFull:
                self.stored, self._ids = before
                raise
            self._arrivals[self._last_id] = arrival
            entry, kept = self.stored[self._last_id]
            entry = evolve(entry, first_at=old.first_at, last_at=old.last_at)
            self.stored[entry.id] = evolve(entry, replayed_at=self._now(), replay_error=one.error), kept

    async def note_replay(self, entry_id: int, error: str) -> None:
        await self.faults.strike("note_replay")
        if entry_id in self.stored:
            entry, rejected = self.stored[entry_id]
            self.stored[entry_id] = evolve(entry, replayed_at=self._now(), replay_error=error), rejected

    async def mark_overtaken(self, entry_ids: Collection[int]) -> None:
        await self.faults.strike("mark_overtaken")
        for entry_id in entry_ids:
            if entry_id in self.stored:
                entry, rejected = self.stored[entry_id]
                self.stored[entry_id] = evolve(entry, overtaken_at=self._now()), rejected

    async def usage(self) -> Usage:
        await self.faults.strike("usage")
        return Usage(len(self.stored), self._bytes(), self._max_bytes)
