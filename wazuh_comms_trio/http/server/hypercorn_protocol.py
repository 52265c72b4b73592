"""hypercorn's and h11's side of a connection: one request's head in, ASGI messages to bytes out.

``framing/heads.py`` reads a plain head, and h11 any other. Hypercorn's ``HTTPStream`` makes the ASGI scope of it and
checks the application's messages; its replies are written here. ``HTTPStream`` is undocumented: so this is the only
file that touches it, and tests/http/server/test_hypercorn_contract.py fails when an upgrade changes what is used.
Hypercorn's ``H11Protocol`` has no hook for what agents need: one request a connection, deadlines, bounded sends,
refusals in our shape.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any, Final, NoReturn, cast

import h11
from hypercorn.config import Config
from hypercorn.protocol.events import Body, EndBody, Event, Request, Response
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio import tcp_server
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import suppress_body

from wazuh_comms_trio.errors import BodyTooLarge, MalformedRequest
from wazuh_comms_trio.http.server.framing.bodies import NO_BODY, BodyDecoder, ChunkedBody, LengthBody
from wazuh_comms_trio.http.server.framing.heads import (
    HEAD_END,
    RequestHead,
    check_characters,
    check_head,
    check_lines,
    read_plain_head,
)
from wazuh_comms_trio.http.server.refusals import HeadTooLarge

__all__ = ["Config", "Http11", "Message", "Scope", "hypercorn_config", "read_at_most", "reply_head"]

Headers = Iterable[tuple[bytes, bytes]]
Scope = dict[str, Any]
Message = dict[str, Any]

REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
#: Hypercorn numbers a connection's streams; HTTP/1.1 has one.
STREAM_ID: Final = 1
_CONTEXT: Final = WorkerContext(None)
#: Lines of a head: each costs 2.4 µs, and four bytes of a client's.
MOST_LINES: Final = 256


def hypercorn_config(head_bytes: int) -> Config:
    """Hypercorn's settings: what of them still has a meaning here."""
    config = Config()
    config.h11_max_incomplete_size = head_bytes
    config.include_server_header = False
    config.keep_alive_max_requests = 0  # every reply says "Connection: close"
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def read_at_most(size: int) -> None:
    """Sets how many bytes hypercorn's public server reads at a time, in this process. Its ``h11_max_incomplete_size``
    bounds heads that aren't complete: one that comes whole in a single read isn't measured against it, and h11 looks at
    64 KiB of blanks before a control character for seven seconds. A head has that limit and one read at most then."""
    tcp_server.MAX_RECV = size


class Http11:
    """One request of one connection.

    ``feed`` takes bytes until the head is complete; then ``asgi_scope`` and ``body`` are there, and ``first_body`` is
    what came behind the head. ``write`` takes ASGI messages; what is to be sent collects in ``outgoing``.
    """

    asgi_scope: Scope
    body: BodyDecoder
    stream: HTTPStream

    def __init__(self, config: Config, body_limit: int, *, secure: bool, client: tuple[str, int] | None) -> None:
        self.config = config
        self.body_limit = body_limit
        self.secure = secure
        self.client = client
        self.connection: h11.Connection | None = None  # it is only needed for what is no plain head
        self.outgoing: list[bytes] = []
        self.head_size = 0
        self._head: bytes = b""  # as it came so far, and perhaps some of the body
        self._blank: bytes = b""  # an empty line before it, or half of one
        self.first_body: bytes = b""
        self.wants_100 = False
        self.finished = False  # the reply has ended
        self._left: int | None = None  # of the reply's body, where its length is known
        self._chunked = False  # the reply's body

    # --- what comes in

    async def feed(self, data: bytes | bytearray) -> bool:
        """Takes bytes of the head; true once the request's head is complete. Raises ``MalformedRequest``,
        ``HeadTooLarge``, ``BodyTooLarge``."""
        if self.head_size == 0 and data and (data[0] in b"\r\n" or self._blank):
            data = self._blank + data
            if b"\r\n".startswith(data):
                self._blank = bytes(data)
                return False
            data = data.removeprefix(b"\r\n")  # RFC 9112, 2.2: an empty line before the request is ignored
        data = bytes(data)
        is_first = not self.head_size
        self.head_size += len(data)
        request = self._read_plain(data) if is_first else None
        if request is None and (request := self._read_any(data)) is None:
            return False
        check_head(request)
        await self._open_stream(request)
        self.body = body_decoder(request, self.body_limit)
        if self.body.declared is not None and self.body.declared > self.body_limit:
            raise BodyTooLarge
        if self.first_body and self.body is NO_BODY:
            self.body = LengthBody(0)  # one that counts what comes too much
        return True

    def _read_plain(self, data: bytes) -> RequestHead | None:
        """A head that is there as a whole, and is like nearly all."""
        end = data.find(b"\r\n\r\n") + 4
        if end > 3:
            check_count(data[:end])
        request = read_plain_head(data[:end]) if end > 3 else None
        if request is not None:
            self._split_off(data[end:])
        return request

    def _read_any(self, data: bytes) -> RequestHead | None:
        """None: more of it is to come. Raises as ``feed`` does."""
        if self.connection is None:
            self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        connection = self.connection
        self._head = self._head + data if self._head else data
        end = HEAD_END.search(self._head)
        if end is not None:
            self._split_off(self._head[end.end() :])
            check_count(self._head[: end.end()])
            check_characters(self._head[: end.end()])
        connection.receive_data(data)
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise HeadTooLarge from None
            raise MalformedRequest from None
        if not isinstance(request, h11.Request):
            if request is h11.NEED_DATA and data:
                return None
            raise MalformedRequest  # an end in mid-head
        self._split_off(connection.trailing_data[0])
        check_lines(self._head[: self.head_size - len(self.first_body)], len(request.headers))
        self._head = b""
        self.wants_100 = connection.they_are_waiting_for_100_continue
        return RequestHead(request.method, request.target, request.http_version, list(request.headers))

    def _split_off(self, first_body: bytes) -> None:
        self.first_body = first_body
        if self.head_size - len(first_body) > self.config.h11_max_incomplete_size:
            raise HeadTooLarge

    async def _open_stream(self, request: RequestHead) -> None:
        self.stream = HTTPStream(
            _never_called, self.config, _CONTEXT, _TASKS, self.secure, self.client, None, self._write_event, STREAM_ID
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=ConnectionState({}),
            )
        )
        self.asgi_scope = cast(Scope, self.stream.scope)

    # --- what goes out

    async def write(self, message: Message) -> None:
        """Takes one ASGI message of the reply; its bytes are in ``outgoing`` afterwards. Raises what hypercorn raises
        for a message out of turn, and ``ValueError`` for a body that isn't as long as its head said.
        """
        await self.stream.app_send(cast(Any, message))
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True

    async def _write_event(self, event: Event) -> None:
        """Takes an event by which hypercorn's stream says what goes out. Written here in a quarter of the time that h11
        takes."""
        if isinstance(event, Response):
            self._write_head(event)
        elif isinstance(event, Body):
            if self._left is not None:
                self._left -= len(event.data)
                if self._left < 0:
                    raise ValueError(f"the reply's body is {-self._left} bytes too long")
            self.outgoing.append(b"%x\r\n%b\r\n" % (len(event.data), event.data) if self._chunked else event.data)
        elif isinstance(event, EndBody):
            if self._left:
                raise ValueError(f"the reply's body is {self._left} bytes too short")
            if self._chunked:
                self.outgoing.append(b"0\r\n\r\n")

    def _write_head(self, reply: Response) -> None:
        """Writes the reply's head; a body whose length isn't known goes in chunks, or, to a client of HTTP/1.0, until
        the connection closes."""
        headers = reply.headers
        if suppress_body(self.asgi_scope["method"], reply.status_code):
            self._left = 0
        else:
            lengths = (int(value) for name, value in headers if name.lower() == b"content-length")
            self._left = next(lengths, None)
            if self._left is None and self.asgi_scope["http_version"] == "1.1":
                self._chunked = True
                headers = [(name, value) for name, value in headers if name.lower() != b"transfer-encoding"]
                headers.append((b"transfer-encoding", b"chunked"))
        self.outgoing.append(reply_head(reply.status_code, headers, self.config))


def check_count(head: bytes) -> None:
    """Raises ``HeadTooLarge`` for a head of too many lines."""
    if head.count(b"\n") > MOST_LINES:
        raise HeadTooLarge


class _Tasks:
    """Stands in the place of hypercorn's task group, in which the stream would start the application: here the
    connection calls it.
    """

    async def spawn_app(
        self, app: object, config: object, scope: object, send: object
    ) -> Callable[..., Awaitable[None]]:
        return _drop

    def spawn(self, func: Callable[..., Any], *args: Any) -> NoReturn:
        raise AssertionError("nothing is spawned")

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass


_TASKS: Final = _Tasks()


@lru_cache(maxsize=8)
def server_header_lines(config: Config, second: int) -> list[bytes]:
    """Hypercorn's own headers: the date, which is formatted once a second."""
    return [name + b": " + value for name, value in config.response_headers("h11")]


async def _drop(message: object) -> None:
    """Stands in the place of hypercorn's queue towards the application; the body goes there by another way."""


async def _never_called(scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
    """Stands in the place of the application: the connection has it."""


def reply_head(status: int, headers: Headers, config: Config) -> bytes:
    """The bytes of a reply's head; every reply ends its connection. Raises ``ValueError`` for what would be two
    headers, or none."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}".encode("ascii")]
    lines += [name + b": " + value for name, value in headers if name.lower() != b"connection"]
    lines += server_header_lines(config, int(time()))
    lines += [b"connection: close", b"", b""]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise ValueError("a header's value has a control character in it")
    return head


def body_decoder(request: RequestHead, limit: int) -> BodyDecoder:
    """The decoder for a request's body; ``limit`` is for chunks; a declared length is the caller's to check."""
    for name, value in request.headers:
        if name == b"transfer-encoding":
            return ChunkedBody(limit)
        if name == b"content-length":
            length = int(value)
            return LengthBody(length) if length else NO_BODY
    return NO_BODY
