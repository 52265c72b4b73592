"""The quarantine: an event that can never be taken is kept with its bytes and the reason, so that its agent can go on.

Durable when ``add`` returns, and bounded: an entry that finds no room is ``StorageFull``, a passing failure for its
agent. The operator's tool lists, shows, drops and replays entries, from its own process. One store for every backend;
``store.py`` is it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from hashlib import sha256
from typing import BinaryIO, Final, Literal, Protocol

from attrs import field, frozen

#: One agent may fill this share of the quarantine.
AGENT_SHARE: Final = 10

#: What an entry costs beside its bytes: its row, indexes, an agent's id.
OVERHEAD_BYTES: Final = 512

PAYLOAD_CHUNK: Final = 1024 * 1024

#: Seconds for which a share is believed full after it was met so; an agent comes again every half a minute.
FULL_FOR: Final = 120.0

Kind = Literal["stateful", "stateless"]


@frozen
class Rejected:
    """An event, or a body, that couldn't be taken. ``metadata``: the body's metadata line, empty for stateless, where
    it is in the payload. ``payload``: stateful: header line, ``\\n``, data line, as they came; stateless: the whole
    body. ``document``: of an event on one document its index, ``/``, and its id, else empty. ``version``: what the
    document was when the event was refused, as ``DocumentOperation.expected`` takes it; empty where that isn't
    known."""

    agent_id: str
    kind: Kind
    reason: str
    metadata: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    document: str = ""
    version: str = ""


@frozen
class Entry:
    """One kept entry, without its bytes. ``size``: what it counts against the limits; ``payload_bytes``: of the payload
    alone; ``count``: how often it came; ``replayed_at``: when its replay was last tried without success,
    ``replay_error``: why. ``document``, ``version``: as ``Rejected``. ``overtaken_at``: when it was found that a later
    event has changed the document since."""

    id: int
    agent_id: str
    kind: Kind
    reason: str
    size: int
    payload_bytes: int
    first_at: float
    last_at: float
    count: int = 1
    replayed_at: float | None = None
    replay_error: str | None = None
    document: str = ""
    version: str = ""
    overtaken_at: float | None = None


@frozen
class Remaining:
    """What stays of an entry after a replay; ``error``: why."""

    rejected: Rejected
    error: str


@frozen
class Usage:
    entries: int
    bytes: int
    max_bytes: int


class Quarantine(Protocol):
    async def add(self, entries: Sequence[Rejected]) -> None:
        """Adds entries, durable on return, all of them or none. An equal entry of the same agent (kind, metadata,
        payload) is kept once and counted. Of a document's entries the newest is kept. What is overtaken isn't counted
        in the agent's share, and goes, the oldest first, when room is needed. Raises ``StorageFull`` when its own or
        the agent's share is full, ``BackendUnavailable``."""
        ...

    async def add_file(self, rejected: Rejected, file: BinaryIO, size: int, *, start: int = 0) -> None:
        """As ``add`` for a payload of ``size`` bytes that is read from ``start`` on in ``file``; ``rejected.payload``
        is ignored. The file stays the caller's to close."""
        ...

    async def list(self, *, agent_id: str | None = None, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        """The entries by id, which is the order they came; those with an id greater than ``after``."""
        ...

    async def get(self, entry_id: int) -> tuple[Entry, Rejected] | None:
        """An entry with all bytes, in memory."""
        ...

    def payload(self, entry_id: int) -> AsyncIterator[bytes]:
        """The payload in pieces of at most 1 MiB; nothing for an entry that is gone."""
        ...

    async def drop(self, entry_ids: Collection[int]) -> int:
        """Drops entries; how many were there. What was replayed with success is dropped as well."""
        ...

    async def replace(self, entry_id: int, remaining: Sequence[Remaining]) -> None:
        """An entry for each of these in place of that one, all of them or none, as old as that one: where their
        documents have newer entries, or there are equal ones, those are kept. What needs no more room than the entry
        did finds it always. An entry that is gone stays so. Raises ``StorageFull``, ``BackendUnavailable``."""
        ...

    async def note_replay(self, entry_id: int, error: str) -> None:
        """Notes a replay without success: the entry stays and remembers why."""
        ...

    def alarm(self) -> str | None:
        """A sentence when, of late, something was turned down because an agent's share, or all, is full: such an
        agent's bodies can't pass until an operator makes room."""
        ...

    async def mark_overtaken(self, entry_ids: Collection[int]) -> None:
        """Notes that later events have changed these entries' documents."""
        ...

    async def usage(self) -> Usage: ...


def describe_full(full: Collection[str | None]) -> str | None:
    """As ``Quarantine.alarm`` of these agents; None among them: all of it is full."""
    if None in full:
        return "the quarantine is full: what can't be taken gets 503"
    agents = sorted(whose for whose in full if whose is not None)
    if not agents:
        return None
    others = f" and {len(agents) - 1} more" if len(agents) > 1 else ""
    return f"the quarantine's share of agent {agents[0]}{others} is full: what can't be taken gets 503"


def digest(rejected: Rejected, pieces: Iterable[bytes]) -> bytes:
    """What equal entries have in common: kind, metadata, and the payload, given in ``pieces``."""
    hasher = sha256(b"%s\0%d\0" % (rejected.kind.encode(), len(rejected.metadata)))
    hasher.update(rejected.metadata)
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def size_of(rejected: Rejected, payload_bytes: int) -> int:
    return payload_bytes + len(rejected.metadata) + len(rejected.reason.encode()) + OVERHEAD_BYTES
