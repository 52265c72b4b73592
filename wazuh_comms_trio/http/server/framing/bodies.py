"""Where a request's body ends: Content-Length and chunks, sans-IO. Bytes in, the body's bytes out.

h11 has both, but looks at a chunk's size only once its data is there, takes bare line feeds in places, copies every
byte three times and spends 8 µs on each one-byte chunk, all without giving other tasks a turn.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from wazuh_comms_trio.errors import BodyTooLarge, MalformedRequest

__all__ = ["NO_BODY", "BodyDecoder", "ChunkedBody", "LengthBody"]

#: A chunk's size with its extensions.
LINE_LIMIT: Final = 512
#: All trailer lines together; they are read and dropped.
TRAILERS_LIMIT: Final = 8192
#: Chunks that a body may have, and one more for so many of its bytes: each costs a microsecond, so that in chunks of a
#: byte it would take a hundred times what it does otherwise.
MOST_CHUNKS: Final = 4096
BYTES_A_CHUNK: Final = 32

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"
_QUOTED: Final = rb"\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\""
#: RFC 9112, 7.1, without the blanks around an extension that senders mustn't write: other readers refuse them.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED))
_SIZE_LINE_BEGINS: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?")
#: What frames a message mustn't come behind it.
_TRAILER: Final = re.compile(rb"(?!(?i:content-length|transfer-encoding):)" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")


class BodyDecoder(Protocol):
    """Finds a body's end; ``received``: the body's bytes so far. ``excess``: how many bytes came after its end."""

    received: int
    excess: int

    @property
    def complete(self) -> bool: ...

    @property
    def declared(self) -> int | None:
        """The body's size where the head said it."""
        ...

    def feed(self, data: bytes | bytearray) -> bytes | bytearray:
        """The part of ``data`` that belongs to the body. Raises ``MalformedRequest``, ``BodyTooLarge``."""
        ...


class LengthBody:
    """A body of ``length`` bytes."""

    __slots__ = ("declared", "excess", "received")

    def __init__(self, length: int) -> None:
        self.declared: int | None = length
        self.received = 0
        self.excess = 0

    @property
    def complete(self) -> bool:
        return self.received == self.declared

    def feed(self, data: bytes | bytearray) -> bytes | bytearray:
        assert self.declared is not None
        missing = self.declared - self.received
        if len(data) <= missing:
            self.received += len(data)
            return data
        self.received += missing
        self.excess += len(data) - missing
        return data[:missing]


class ChunkedBody:
    """A body in chunks, of at most ``limit`` bytes. Strict: CRLF everywhere, sizes of at most 63 bits."""

    __slots__ = ("_chunks", "_footer", "_left", "_limit", "_rest", "_trailers", "complete", "excess", "received")

    declared: int | None = None

    def __init__(self, limit: int) -> None:
        self.complete = False
        self.received = 0
        self.excess = 0
        self._limit = limit
        self._chunks = 0
        self._left = 0  # of the current chunk's data
        self._footer = False  # the CRLF behind a chunk's data comes next
        self._trailers = -1  # bytes of trailers, -1 before the last chunk
        self._rest = b""  # an unfinished line

    def feed(self, data: bytes | bytearray) -> bytes:
        data = self._rest + data if self._rest else data
        pieces: list[bytes | bytearray] = []
        position = 0
        while not self.complete:
            if self._left:
                piece = data[position : position + self._left]
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                self.received += len(piece)
                self._footer = not self._left
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._check_unfinished(data[position:])
                break
            self._take_line(data[position:end])
            position = end + 2
        if self.complete:
            self.excess += len(data) - position
            self._rest = b""
        else:
            self._rest = bytes(data[position:])
        return b"".join(pieces)

    def _take_line(self, line: bytes | bytearray) -> None:
        if self._footer:
            if line:
                raise MalformedRequest("A chunk is longer than its size")
            self._footer = False
        elif self._trailers >= 0:
            if not line:
                self.complete = True
                return
            self._trailers += len(line) + 2
            if self._trailers > TRAILERS_LIMIT or not _TRAILER.fullmatch(line):
                raise MalformedRequest("Malformed trailers")
        else:
            match = _SIZE_LINE.fullmatch(line) if len(line) <= LINE_LIMIT else None
            if match is None:
                raise MalformedRequest("Malformed chunk size")
            size = int(match[1], 16)
            if size >= 1 << 63:
                raise MalformedRequest("Malformed chunk size")
            if self.received + size > self._limit:
                raise BodyTooLarge
            self._chunks += 1
            if self._chunks > MOST_CHUNKS + self.received // BYTES_A_CHUNK:
                raise MalformedRequest("The chunks are too small")
            self._left = size
            if size == 0:
                self._trailers = 0

    def _check_unfinished(self, rest: bytes | bytearray) -> None:
        """Refuses now what can't become a good line any more, not when its peer has run out of time."""
        if not rest:
            return
        if self._footer:
            good = rest == b"\r"
        elif self._trailers >= 0:
            good = self._trailers + len(rest) <= TRAILERS_LIMIT
        else:
            good = len(rest) <= LINE_LIMIT and _SIZE_LINE_BEGINS.fullmatch(rest) is not None
        if not good:
            raise MalformedRequest("A chunk is longer than its size" if self._footer else "Malformed chunk")


class _NoBody(LengthBody):
    """The decoder that all requests without a body share, so it must not count."""

    __slots__ = ()

    def feed(self, data: bytes | bytearray) -> bytes:
        return b""


NO_BODY: Final = _NoBody(0)
