"""How a body of events lies in a segment file, as pure functions.

A *record* is one request's body as it came, behind a line that says whose it is and how long:

    {"@received":"2025-03-11T19:12:36.629Z","agent":"<uuid>","bytes":1234,"crc32":"9ae0daaf"}
    <1234 bytes>

and a newline if the body doesn't end in one, so that a segment as a whole is NDJSON. A record counts when all its bytes
are there and their checksum is right: one that a crash cut off is skipped by every reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final
from zlib import crc32

from attrs import frozen

from wazuh_comms_trio.foundation.timestamps import from_iso, to_iso

_START: Final = b'{"@received":'

#: An envelope's usual length, padded with blanks, so that one can be written after its body.
ENVELOPE_BYTES: Final = 192

#: No envelope is longer; a line that is, is something else.
_ENVELOPE_LIMIT: Final = 8192

_CHUNK: Final = 1024 * 1024


@frozen
class Record:
    """Where a record's body lies in its segment. ``received`` in epoch seconds; ``end`` is where the next one
    begins."""

    agent_id: str
    received: float
    body_start: int
    body_bytes: int
    end: int


def envelope_room(agent_id: str) -> int:
    """The length that an envelope of this agent needs whatever its body turns out to be."""
    return max(ENVELOPE_BYTES, len(envelope(agent_id, 0.0, 2**63, 0)))


def envelope(agent_id: str, received: float, body_bytes: int, checksum: int, *, width: int = ENVELOPE_BYTES) -> bytes:
    """The line before a body, ``width`` bytes if it isn't longer by itself."""
    line = b'%s"%s","agent":%s,"bytes":%d,"crc32":"%08x"}' % (
        _START,
        to_iso(received).encode(),
        json.dumps(agent_id).encode(),
        body_bytes,
        checksum,
    )
    return line.ljust(width - 1) + b"\n"


def read_envelope(line: bytes) -> tuple[str, float, int, int] | None:
    """Agent, time, length and checksum; None when this is no envelope."""
    if not line.startswith(_START):
        return None
    try:
        fields: dict[str, Any] = json.loads(line)
        received = from_iso(str(fields["@received"]))
        agent_id, length, checksum = fields["agent"], fields["bytes"], int(fields["crc32"], 16)
    except (ValueError, KeyError, TypeError):
        return None
    if received is None or not isinstance(agent_id, str) or not isinstance(length, int) or length < 0:
        return None
    return agent_id, received, length, checksum


def _body_is_whole(file: BinaryIO, length: int, checksum: int) -> bool:
    """Whether the next ``length`` bytes are what was written. Leaves the file behind them."""
    actual = 0
    while length > 0:
        chunk = file.read(min(_CHUNK, length))
        if not chunk:
            return False
        actual = crc32(chunk, actual)
        length -= len(chunk)
    return actual == checksum


def _newline_at(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    return file.read(1) == b"\n"


def records(file: BinaryIO, size: int, offset: int = 0) -> Iterator[Record]:
    """The whole records of a segment's first ``size`` bytes from ``offset`` on.

    Ends at a record that isn't complete: what is still being written, or what a crash cut off (a process that comes
    after begins a segment of its own). One with a wrong checksum is skipped; where there is no envelope, the next line
    that is one counts. A body isn't searched for envelopes, so an agent can't forge one.
    """
    while offset < size:
        file.seek(offset)
        line = file.readline(_ENVELOPE_LIMIT)
        found = read_envelope(line) if line.endswith(b"\n") else None
        if found is None:
            offset += len(line)
            continue
        agent_id, received, length, checksum = found
        start = offset + len(line)
        end = start + length
        if end > size:
            return
        whole = _body_is_whole(file, length, checksum)
        if not _newline_at(file, end - 1):
            if end == size:
                return
            end += _newline_at(file, end)  # a body's last newline may be what is damaged
        if whole:
            yield Record(agent_id, received, start, length, end)
        offset = end


def whole_end(file: BinaryIO, size: int) -> int:
    """Where the last whole record ends."""
    end = 0
    for record in records(file, size):
        end = record.end
    return end
