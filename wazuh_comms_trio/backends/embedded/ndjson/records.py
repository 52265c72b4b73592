"""How a body of events lies in a segment file, as pure functions.

A *record* is one request's body as it came, behind a line that says whose it is and how long:

    {"@received":"2025-03-11T19:12:36.629Z","agent":"<uuid>","bytes":1234,"crc32":"9ae0daaf","head":"0f3c77b1"}
    <1234 bytes>

and a newline if the body doesn't end in one, so that a segment as a whole is NDJSON. ``crc32`` is the body's, ``head``
that of the line before it (earlier versions wrote none). A record counts when all its bytes are there and their
checksums are right; what can't be read is a ``Gap``, and the next record is found again behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final
from zlib import crc32

from attrs import frozen

from wazuh_comms_trio.backends.embedded.ndjson.range_checksums import RangeChecksums
from wazuh_comms_trio.foundation.timestamps import from_iso, to_iso

_START: Final = b'{"@received":'
_SEAL: Final = b',"head":'

#: How an envelope begins; there can't be many in few bytes.
_ENVELOPE: Final = re.compile(re.escape(_START) + rb'"[-+.:0-9TZ]{10,40}","agent":"')

#: An envelope's usual length, padded with blanks, so that one can be written after its body.
ENVELOPE_BYTES: Final = 192

#: No envelope is longer; a line that is, is something else.
_ENVELOPE_LIMIT: Final = 8192

_CHUNK: Final = 1024 * 1024


@frozen
class Record:
    """Where a record's body lies in its segment. ``received`` in epoch seconds; ``end`` is where the next one begins;
    ``checksum``: the body's."""

    agent_id: str
    received: float
    body_start: int
    body_bytes: int
    end: int
    checksum: int


@frozen
class Gap:
    """Bytes between two records, or before the end, that are no record. ``tail``: none follows, so that it may be what
    a crash cut off."""

    start: int
    end: int
    tail: bool = False


def envelope_room(agent_id: str) -> int:
    """The length that an envelope of this agent needs whatever its body turns out to be."""
    return max(ENVELOPE_BYTES, _ROOM_WITHOUT_AGENT + len(json.dumps(agent_id)))


def envelope(agent_id: str, received: float, body_bytes: int, checksum: int, *, width: int = ENVELOPE_BYTES) -> bytes:
    """The line before a body, ``width`` bytes if it isn't longer by itself."""
    line = b'%s"%s","agent":%s,"bytes":%d,"crc32":"%08x"' % (
        _START,
        to_iso(received).encode(),
        json.dumps(agent_id).encode(),
        body_bytes,
        checksum,
    )
    return (b'%s%s"%08x"}' % (line, _SEAL, crc32(line))).ljust(width - 1) + b"\n"


_ROOM_WITHOUT_AGENT: Final = len(envelope("", 0.0, 2**63, 0, width=0)) - len(json.dumps(""))


def read_envelope(line: bytes) -> tuple[str, float, int, int] | None:
    """Agent, time, length and checksum; None when this is no envelope, or a damaged one."""
    if not line.startswith(_START):
        return None
    try:
        fields: dict[str, Any] = json.loads(line)
        received = from_iso(str(fields["@received"]))
        agent_id, length, checksum = fields["agent"], fields["bytes"], int(fields["crc32"], 16)
        seal = fields.get("head")
        if seal is not None and int(seal, 16) != crc32(line.partition(_SEAL)[0]):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if received is None or not isinstance(agent_id, str) or not isinstance(length, int) or length < 0:
        return None
    return agent_id, received, length, checksum


def _envelope_at(file: BinaryIO, offset: int) -> tuple[str, float, int, int, int, bool] | None:
    """An envelope's fields, where its body begins, and whether it has a checksum of its own."""
    file.seek(offset)
    line = file.readline(_ENVELOPE_LIMIT)
    fields = read_envelope(line) if line.endswith(b"\n") else None
    return None if fields is None else (*fields, offset + len(line), _SEAL in line)


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


def scan(file: BinaryIO, size: int, offset: int = 0) -> Iterator[Record | Gap]:
    """The whole records of a segment's first ``size`` bytes from ``offset`` on, and what is between them, in a time
    that is linear in ``size``.

    A body isn't searched for envelopes, so an agent can't forge one, unless the envelope before it is damaged: then the
    next record is the first that has a right checksum. What follows it may be forged, too: from there on no envelope
    says how long a damaged record is.
    """
    search: _Search | None = None  # from the first damage on
    while offset < size:
        found = _envelope_at(file, offset)
        if found is None:
            search = search or _Search(file, size)
            following = search.next(offset + 1)
            yield Gap(offset, following, following == size)
            offset = following
            continue
        agent_id, received, length, checksum, start, sealed = found
        end = start + length
        if end > size and search is None:
            yield Gap(offset, size, True)
            return
        if search is not None:
            whole = search.is_whole(start, length, checksum)
        else:
            file.seek(start)
            whole = _body_is_whole(file, length, checksum)
        if search is not None and not whole:
            end = search.next(start)
        elif not _newline_at(file, end - 1):
            if end == size:
                yield Gap(offset, size, True)
                return
            end += _newline_at(file, end)  # a body's last newline may be what is damaged
        if whole:
            yield Record(agent_id, received, start, length, end, checksum)
        else:
            if search is None and not sealed and end < size and _envelope_at(file, end) is None:
                search = _Search(file, size)
                end = search.next(start)  # its length may be what is damaged
            yield Gap(offset, end, end >= size)
        offset = end


def records(file: BinaryIO, size: int, offset: int = 0) -> Iterator[Record]:
    """The whole records of a segment: ``scan`` without what is between them."""
    return (found for found in scan(file, size, offset) if isinstance(found, Record))


class _Search:
    """Looks for whole records behind damage, from the front to the back of a file's first ``size`` bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._checksums = RangeChecksums(file)
        self._block = b""
        self._block_at = 0

    def is_whole(self, start: int, length: int, checksum: int) -> bool:
        return start + length <= self._size and self._checksums.match(start, length, checksum)

    def next(self, offset: int) -> int:
        """Where the first whole record from ``offset`` on begins; ``size`` when there is none."""
        while offset < self._size:
            self._read_block(offset)
            block, at = self._block, self._block_at
            last = at + len(block)
            if last < self._size:
                last -= _ENVELOPE_LIMIT  # an envelope that begins later isn't all there
            for match in _ENVELOPE.finditer(block, offset - at):
                if at + match.start() >= last:
                    break
                stop = block.find(b"\n", match.start(), match.start() + _ENVELOPE_LIMIT) + 1
                fields = read_envelope(block[match.start() : stop]) if stop else None
                if fields is not None and self.is_whole(at + stop, *fields[2:]):
                    return at + match.start()
            offset = last
        return self._size

    def _read_block(self, offset: int) -> None:
        """Reads a block that has all of an envelope that begins at ``offset``."""
        end = self._block_at + len(self._block)
        if self._block_at <= offset < end and (end == self._size or end - offset > _ENVELOPE_LIMIT):
            return
        self._file.seek(offset)
        wanted = min(_CHUNK + _ENVELOPE_LIMIT, self._size - offset)
        self._block = self._file.read(wanted).ljust(wanted, b"\0")  # the file may have been cut off meanwhile
        self._block_at = offset
