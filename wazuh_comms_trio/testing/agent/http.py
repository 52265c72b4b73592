"""One HTTP exchange as a real agent makes it: what it writes, what it reads, and what its HTTP library would refuse.

The decoder is pure (bytes in, a reply out); ``exchange`` is the I/O around it, over any trio stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import trio
from attrs import frozen

__all__ = ["ExchangeFailed", "Reply", "ReplyDecoder", "ReplyRefused", "exchange", "request_head"]

#: Replies with more than this are refused by agents.
REPLY_LIMIT: Final = 8 * 1024 * 1024
HEAD_LIMIT: Final = 8192
CHUNK_BYTES: Final = 16384
_RECEIVE_BYTES: Final = 65536


class ExchangeFailed(Exception):
    """No reply: the connection was refused, reset, closed early, or took too long. An agent sends the request again
    later.
    """


class ReplyRefused(ExchangeFailed):
    """There was a reply, but not one that an agent's HTTP library takes."""


@frozen
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        """Raises ``ValueError`` when the body isn't JSON."""
        return json.loads(self.body)


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n]*)?\Z")


class ReplyDecoder:
    """Bytes in, at most one reply out. Interim replies (1xx) are skipped."""

    def __init__(self, *, head_only: bool = False) -> None:
        self.reply: Reply | None = None
        self._head_only = head_only  # the reply to a HEAD has no body
        self._buffer = bytearray()
        self._head: tuple[int, tuple[tuple[str, str], ...]] | None = None
        self._length: int | None = None  # None once the head is there: chunked
        self._body = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """``b""`` is the end of the connection. Raises ``ReplyRefused``, or ``ExchangeFailed`` for an end that is too
        early.
        """
        if self.reply is not None:
            return
        if not data:
            raise ExchangeFailed("the server closed the connection before its reply was complete")
        self._buffer += data
        while self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > HEAD_LIMIT:
                    raise ReplyRefused("the reply's head is too long")
                return
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            self._take_head(head)
        if self._length is None:
            self._take_chunks()
        elif len(self._buffer) >= self._length:
            self._body += self._buffer[: self._length]
            self._finish()

    def _take_head(self, head: bytes) -> None:
        first, *rest = head.split(b"\r\n")
        if not (match := _STATUS_LINE.match(first)):
            raise ReplyRefused(f"not a status line: {first[:60]!r}")
        status = int(match.group(1))
        headers = []
        for line in rest:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise ReplyRefused(f"not a header: {line[:60]!r}")
            headers.append((name.decode("latin-1"), value.strip().decode("latin-1")))
        if status < 200:
            return
        self._head = status, tuple(headers)
        named = {name.lower(): value for name, value in headers}
        if self._head_only or status in (204, 304):
            self._length = 0
        elif "chunked" in named.get("transfer-encoding", "").lower():
            self._length = None
        elif named.get("content-length", "").isdigit():
            self._length = int(named["content-length"])
            if self._length > REPLY_LIMIT:
                raise ReplyRefused(f"a reply of {self._length} bytes; agents take {REPLY_LIMIT}")
        else:
            raise ReplyRefused("a reply with neither Content-Length nor chunks")

    def _take_chunks(self) -> None:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            try:
                size = int(bytes(self._buffer[:end]).split(b";")[0], 16)
            except ValueError:
                raise ReplyRefused("a chunk without a size") from None
            if len(self._buffer) < end + 2 + size + 2:
                return
            self._body += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 2 + size + 2]
            if size == 0:
                self._finish()
                return
            if len(self._body) > REPLY_LIMIT:
                raise ReplyRefused(f"a reply of more than {REPLY_LIMIT} bytes")

    def _finish(self) -> None:
        assert self._head is not None
        status, headers = self._head
        self.reply = Reply(status, headers, bytes(self._body))


def request_head(method: str, target: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """The request line and the headers, as they go over the wire. ``target`` isn't encoded: agents don't."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def in_chunks(body: bytes, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The body in HTTP chunks, the last one included. Lines are cut wherever a chunk ends."""
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


async def exchange(
    stream: trio.abc.Stream,
    head: bytes,
    body: Iterable[bytes] = (),
    *,
    write_timeout: float = 60.0,
    read_timeout: float = 60.0,
) -> Reply:
    """Writes the head, then each piece of the body by itself, then reads the reply.

    Leaves the stream open. Raises ``ExchangeFailed``. Cancelled: the request may have been served.
    """
    decoder = ReplyDecoder(head_only=head.startswith(b"HEAD "))
    try:
        with trio.fail_after(write_timeout):
            await stream.send_all(head)
            for piece in body:
                await stream.send_all(piece)
        with trio.fail_after(read_timeout):
            while decoder.reply is None:
                decoder.feed(await stream.receive_some(_RECEIVE_BYTES))
    except trio.TooSlowError:
        raise ExchangeFailed("no reply in time") from None
    except (trio.BrokenResourceError, OSError) as exc:
        raise ExchangeFailed(f"the connection broke: {exc.__cause__ or exc}") from exc
    return decoder.reply
