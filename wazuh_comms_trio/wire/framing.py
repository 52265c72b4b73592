"""Frames on a stream: a little-endian ``uint32`` length, then that many bytes of payload.

Pure code. :func:`encode_frame` writes one frame, :class:`FrameDecoder` takes bytes however they were cut and hands
out payloads. The daemons read at most 65536 bytes of payload and treat more, or a length of 0, badly, so neither is
ever written. They may *answer* with more than they read.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from struct import Struct, error
from typing import Final, NoReturn

from wazuh_comms_trio.errors import (
    EmptyFrame,
    FrameTooLarge,
    PayloadTooLarge,
    PeerClosed,
    TruncatedFrame,
    WazuhError,
    WazuhException,
)

#: The most payload bytes that a classic daemon reads.
MAX_SEND_BYTES: Final[int] = 65536
#: The most payload bytes taken from a daemon, unless told otherwise.
MAX_RECEIVE_BYTES: Final[int] = 64 * 1024 * 1024
HEADER_FORMAT: Final[str] = "<I"
HEADER: Final[Struct] = Struct(HEADER_FORMAT)

# What the beginning of an HTTP answer would announce: newer servers have HTTP where older ones have frames.
_HTTP: Final = int.from_bytes(b"HTTP", "little")

# Shorter chunks than this are merged, so that a peer that sends byte by byte costs its bytes and not an object for
# each of them.
_SMALL: Final = 2048

#: What is asked for in one read, as a rule and while a long frame is under way: more would be allocated by mapping
#: fresh pages each time.
READ_BYTES: Final[int] = 65536
LONG_READ_BYTES: Final[int] = 122880
# From here on copying a payload costs more than a second read.
_LONG: Final = 24576


@lru_cache(maxsize=32)
def header_struct(header_format: str, header_size: int | None = None) -> Struct:
    """The compiled form of a header: one unsigned number, such as ``"<I"``.

    ``header_size``, when given, must be its length in bytes. 1014 for anything else.
    """
    try:
        header = Struct(header_format)
        header.pack(*header.unpack(bytes(header.size)))
        (zero,) = header.unpack(bytes(header.size))
    except (error, ValueError, TypeError):
        raise WazuhError(1014, f"{header_format!r} is no header: it must describe one unsigned number") from None
    if type(zero) is not int:
        raise WazuhError(1014, f"{header_format!r} is no header: it must describe one unsigned number")
    if header_size is not None and header.size != header_size:
        raise WazuhError(1014, f"a header {header_format!r} has {header.size} bytes, not {header_size}")
    return header


def check_payload(payload: bytes, limit: int = MAX_SEND_BYTES) -> None:
    """Refuse what must not be sent: 1105 for what isn't ``bytes``, 1014 for an empty payload, 1012 above ``limit``
    bytes.
    """
    if not isinstance(payload, bytes):
        raise WazuhException(1105)
    if not payload:
        raise WazuhError(1014, "the message is empty, and daemons take an empty frame for a disconnect")
    if len(payload) > limit:
        raise PayloadTooLarge(1012, f"{len(payload)} bytes, at most {limit} can be sent")


def encode_frame(payload: bytes, header_format: str = HEADER_FORMAT, limit: int = MAX_SEND_BYTES) -> bytes:
    """One frame: header and payload. Errors as in :func:`check_payload`; 1012 too for a length that doesn't fit the
    header.
    """
    check_payload(payload, limit)
    if header_format == HEADER_FORMAT:
        return HEADER.pack(len(payload)) + payload
    try:
        return header_struct(header_format).pack(len(payload)) + payload
    except error:
        raise PayloadTooLarge(1012, f"{len(payload)} bytes, more than a header {header_format!r} can tell") from None


def encode_payload(payload: bytes, header_format: str | None = HEADER_FORMAT, limit: int = MAX_SEND_BYTES) -> bytes:
    """As :func:`encode_frame`, or with ``header_format`` None the payload itself, with no header and no upper limit."""
    if header_format is None:
        check_payload(payload, len(payload) if isinstance(payload, bytes) else 0)
        return payload
    return encode_frame(payload, header_format, limit)


class FrameDecoder:
    """Takes bytes in any cut, gives payloads in order.

    :meth:`feed` it what came, ``b""`` for the end of the stream, and ask :meth:`next_frame` until it returns None.
    Memory grows with the bytes that were fed, never with a length that was only announced. After an error the place
    of the next frame is unknown: every later call raises the same error.
    """

    __slots__ = ("_after_long", "_chunks", "_failure", "_first", "_start", "at_eof", "buffered", "limit")

    def __init__(self, limit: int = MAX_RECEIVE_BYTES) -> None:
        self.limit: int = limit
        #: bytes that were fed and not yet handed out
        self.buffered: int = 0
        #: the end of the stream was fed
        self.at_eof: bool = False
        # All of them together are the unread bytes, beginning at _start of the first.
        self._first: bytes | bytearray = b""
        self._start: int = 0
        self._chunks: deque[bytes | bytearray] = deque()
        self._after_long = False
        self._failure: tuple[type[WazuhError], str] | None = None

    def __repr__(self) -> str:
        end = ", at EOF" if self.at_eof else ""
        return f"<FrameDecoder: {self.buffered} bytes buffered{end}>"

    def feed(self, data: bytes) -> None:
        """Add what came; ``b""`` says that nothing will follow."""
        size = len(data)
        if not size:
            self.at_eof = True
            return
        if not self.buffered:
            self._first = data
            self._start = 0
        elif size >= _SMALL:
            self._chunks.append(data)
        elif self._chunks and isinstance(last := self._chunks[-1], bytearray):
            last += data
        else:
            self._chunks.append(bytearray(data))
        self.buffered += size

    @property
    def finished(self) -> bool:
        """The stream ended in an orderly way, and every frame was handed out."""
        return self.at_eof and not self.buffered and self._failure is None

    def next_frame(self, header: Struct = HEADER) -> bytes | None:
        """The next payload as it came, or None when more bytes are needed.

        Raises :class:`EmptyFrame` and :class:`FrameTooLarge` as soon as the header is there; at the end of the stream
        :class:`TruncatedFrame` inside a frame and :class:`PeerClosed` between two.
        """
        if self._failure is not None:
            self._fail(*self._failure)
        start = header.size
        if self.buffered < start:
            self._need_more(start)
            return None
        while len(self._first) - self._start < start:
            self._merge()
        (size,) = header.unpack_from(self._first, self._start)
        if not 0 < size <= self.limit:
            self._refuse(size)
        end = start + size
        if self.buffered < end:
            self._need_more(end)
            return None
        return self._take(start, end)

    def read_size(self, header: Struct = HEADER) -> int:
        """How many bytes to ask the stream for. A hint: any other cut gives the same frames.

        A long frame is read in two, its header and then exactly its payload: what was read is then what is handed out,
        and nothing is copied. Short ones are read many at a time.
        """
        if not self.buffered:
            return header.size if self.after_long else READ_BYTES
        missing = self.missing(header)
        return min(missing, LONG_READ_BYTES) if missing >= _LONG else READ_BYTES

    @property
    def after_long(self) -> bool:
        """The frame before was a long one and nothing of the next is buffered."""
        return self._after_long and not self.buffered

    def long_size(self, header: Struct, head: bytes) -> int:
        """The payload's size in bytes that ``head`` announces, if it is one to read by itself; else 0."""
        if len(head) < header.size:
            return 0
        (size,) = header.unpack(head)
        return size if _LONG <= size <= min(self.limit, LONG_READ_BYTES) else 0

    def missing(self, header: Struct = HEADER) -> int:
        """How many bytes the frame that has begun still lacks, as far as its header tells; 0 when unknown. A hint for
        reading.
        """
        if self.buffered < header.size or len(self._first) - self._start < header.size:
            return 0
        (size,) = header.unpack_from(self._first, self._start)
        return int(max(0, header.size + size - self.buffered))

    def take_raw(self) -> bytes:
        """Everything that is buffered, without looking for frames: for conversations that have none."""
        return self._take(0, self.buffered) if self.buffered else b""

    def _merge(self) -> None:
        """Join the first chunk's rest, at most a few bytes of a header that was cut, with the second chunk."""
        rest = self._first[self._start :]
        chunk = self._chunks.popleft()
        self._first = bytes(rest) + chunk if rest else chunk
        self._start = 0

    def _take(self, start: int, end: int) -> bytes:
        """Cut ``[start:end]`` of the unread bytes out and drop what is before it."""
        self._after_long = end >= _LONG
        first, offset = self._first, self._start
        self.buffered -= end
        if len(first) - offset >= end:
            self._start = offset + end
            data = first[offset + start : offset + end]
            if not self.buffered:
                self._first = b""
                self._start = 0
            return bytes(data)  # no copy when it is bytes already
        if len(first) - offset == start and len(self._chunks[0]) == end - start:
            # The header and the payload came in reads of their own: nothing to join.
            payload = self._chunks.popleft()
            self._first, self._start = (self._chunks.popleft() if self._chunks else b""), 0
            return bytes(payload)
        parts: list[bytes | bytearray | memoryview] = [memoryview(first)[offset + start :]]
        end -= len(first) - offset
        while True:
            first = self._chunks.popleft()
            if len(first) > end:
                parts.append(memoryview(first)[:end])
                self._first, self._start = first, end
                break
            parts.append(first)
            end -= len(first)
            if not end:
                self._first, self._start = (self._chunks.popleft() if self._chunks else b""), 0
                break
        return b"".join(parts)

    def _need_more(self, wanted: int) -> None:
        if not self.at_eof:
            return
        if self.buffered:
            self._fail(
                TruncatedFrame, f"the peer closed the connection inside a frame: {self.buffered} of {wanted} bytes came"
            )
        self._fail(PeerClosed, "the peer closed the connection")

    def _refuse(self, size: int) -> None:
        if size <= 0:
            self._fail(EmptyFrame, "the peer sent a frame of length 0")
        hint = ": it speaks HTTP" if size == _HTTP else ""
        self._fail(FrameTooLarge, f"the peer announced a frame of {size} bytes, at most {self.limit} are taken{hint}")

    def _fail(self, kind: type[WazuhError], reason: str) -> NoReturn:
        self._failure = kind, reason
        self._after_long = False
        raise kind(1014, reason)
