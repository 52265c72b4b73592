"""What the embedded engine and index hold, for the operator's eyes: read from the files beside a running daemon."""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import msgspec
import trio
from attrs import define, frozen

from wazuh_comms_trio.backends.embedded.database.faults import fault_of
from wazuh_comms_trio.backends.embedded.database.opening import looking_at
from wazuh_comms_trio.backends.embedded.documents import stored_documents
from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage, Reading, missing_segments, read_segment
from wazuh_comms_trio.backends.embedded.ndjson.ledger import Promise, promises
from wazuh_comms_trio.backends.embedded.ndjson.records import Record
from wazuh_comms_trio.backends.embedded.ndjson.segments import SegmentFile, segment_files
from wazuh_comms_trio.backends.event_lines import lines_of
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS
from wazuh_comms_trio.foundation.timestamps import to_iso

#: Seconds between looks when following.
INTERVAL: Final = 0.25

_encode: Final = msgspec.json.Encoder().encode
#: Of the grammar; it decodes nothing.
_check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


@frozen
class TailedEvent:
    """One event, as ``events tail`` prints it. ``kind``: ``stateless`` (of a segment file: agent, header line, data
    line) or ``stateful`` (of the index: index, document id, version, document). JSON as it was written; ``received`` in
    epoch seconds."""

    kind: Literal["stateless", "stateful"]
    received: float
    agent_id: str | None = None
    metadata: bytes | None = None
    header: bytes | None = None
    data: bytes | None = None
    index: str | None = None
    document_id: str | None = None
    version: int | None = None

    def encode(self) -> bytes:
        """One JSON object on one line, without what is unset: the event's own parts under ``metadata`` and ``event``
        (header) and ``data``, its document under ``data``."""
        fields: dict[str, Any] = {
            "kind": self.kind,
            "received": to_iso(self.received),
            "agent_id": self.agent_id,
            "metadata": _raw(self.metadata),
            "event": _raw(self.header),
            "index": self.index,
            "document_id": self.document_id,
            "version": self.version,
            "data": _raw(self.data),
        }
        return _encode({name: value for name, value in fields.items() if value is not None})


def _raw(line: bytes | None) -> msgspec.Raw | str | None:
    """A line as JSON; one that is no JSON becomes its text: what is printed is JSON whatever a disk made of it."""
    if line is None:
        return None
    if not _is_json(line):
        return line.decode("utf-8", "backslashreplace")
    return msgspec.Raw(line.replace(b"\r", b" ").replace(b"\n", b" "))


def _is_json(line: bytes) -> bool:
    try:
        if not line.isascii():
            line.decode()
        _check_json(line)
    except DECODE_ERRORS:
        try:
            json.loads(line)  # which takes what is JSON and no text: half of a pair
        except (ValueError, RecursionError):
            return False
    return True


def events_of(record: Record, body: bytes) -> Iterator[TailedEvent]:
    """The events of one record's body: metadata line, then header and data lines in turn."""
    metadata: bytes | None = None
    header: bytes | None = None
    for line in lines_of(body):
        if not line.strip():
            continue
        if metadata is None:
            metadata = line
        elif header is None:
            header = line
        else:
            yield TailedEvent("stateless", record.received, record.agent_id, metadata, header, line)
            header = None
    if header is not None:
        yield TailedEvent("stateless", record.received, record.agent_id, metadata, header)


@define
class EventTail:
    """Reads what has come since it was asked last. Blocking calls; nothing stays open between them."""

    folder: Path
    #: By file: what of acknowledged events can't be read, as far as was looked.
    damage: dict[str, Damage]
    _readings: dict[str, Reading]
    _document_no: int = 0

    @classmethod
    def of(cls, folder: Path) -> EventTail:
        """Opens the tail of a state folder; ``folder``: ``embedded.path``."""
        return cls(folder, {}, {})

    def poll(self) -> Iterator[TailedEvent]:
        """The events that came since the last call, in the order of time. Raises ``OSError``, and ``StateUnusable`` for
        a database that can't be read."""
        yield from heapq.merge(self._stateless(), self._stateful(), key=lambda event: event.received)

    def _stateless(self) -> Iterator[TailedEvent]:
        folder = self.folder / "events"
        known = promises(folder)  # before the sizes: a segment only grows
        segments = segment_files(folder)
        parts = [self._segment(segment, known.get(segment.path.name)) for segment in segments]
        yield from heapq.merge(*parts, key=lambda event: event.received)
        self.damage.update((damage.file, damage) for damage in missing_segments(folder))

    def _segment(self, segment: SegmentFile, promise: Promise | None) -> Iterator[TailedEvent]:
        reading = self._readings.setdefault(segment.path.name, Reading(segment.path.name))
        if segment.size <= reading.offset and (promise is None or promise.size <= segment.size):
            return
        for part in read_segment(segment, reading, promise):
            if isinstance(part, Damage):
                self.damage[part.file] = part
                continue
            record, file = part
            file.seek(record.body_start)
            yield from events_of(record, file.read(record.body_bytes))

    def _stateful(self) -> Iterator[TailedEvent]:
        path = self.folder / "state.db"
        if not path.exists():
            return
        try:
            yield from self._documents(path)
        except apsw.Error as exc:
            fault = fault_of(exc)
            raise StateUnusable(f"{path}: {exc if fault is None else f'{fault.kind} ({exc})'}") from exc

    def _documents(self, path: Path) -> Iterator[TailedEvent]:
        with looking_at(path) as connection:
            while True:
                found = stored_documents(connection, self._document_no)
                for document in found:
                    self._document_no = document.no
                    yield TailedEvent(
                        "stateful",
                        document.changed_at,
                        data=document.body,
                        index=document.index,
                        document_id=document.document_id,
                        version=document.version,
                    )
                if not found:
                    return


async def tail_events(
    folder: Path,
    *,
    follow: bool = False,
    interval: float = INTERVAL,
    wanted: Callable[[TailedEvent], bool] = lambda event: True,
    last: int | None = None,
    on_damage: Callable[[Damage], None] = lambda damage: None,
) -> AsyncGenerator[TailedEvent, None]:
    """The ``wanted`` events that are there, in the order of time (only the ``last`` so many); with ``follow`` then
    those that come, until it is cancelled. ``folder``: ``embedded.path``. ``on_damage`` is told of each file that has
    lost acknowledged events, after what could be read. Raises as ``EventTail.poll``."""
    tail = EventTail.of(folder)
    told: dict[str, Damage] = {}
    while True:
        found: Iterable[TailedEvent] = filter(wanted, tail.poll())
        for event in found if last is None else deque(found, maxlen=last):
            yield event
        last = None  # it goes for what was there
        for name, damage in tail.damage.items():
            if told.get(name) != damage:
                told[name] = damage
                on_damage(damage)
        if not follow:
            return
        await trio.sleep(interval)
