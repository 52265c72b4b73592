"""hypercorn's and h11's side of a connection: one request's head in, ASGI messages to bytes out.

Hypercorn's ``H11Protocol`` and ``HTTPStream`` have no public hook for what agents need (one request a connection,
deadlines, bounded sends, refusals in our shape), and they are undocumented. So this is the only file that touches
them, and tests/http/server/test_hypercorn_contract.py fails when an upgrade changes what is used here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.events import Body, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup
from hypercorn.utils import suppress_body

from wazuh_comms_trio.errors import BodyTooLarge, MalformedRequest
from wazuh_comms_trio.http.server.body_framing import NO_BODY, BodyDecoder, ChunkedBody, LengthBody
from wazuh_comms_trio.http.server.refusals import HeadTooLarge

__all__ = ["Config", "Http11", "Message", "Scope", "hypercorn_config", "reply_head"]

Headers = Iterable[tuple[bytes, bytes]]
Scope = dict[str, Any]
Message = dict[str, Any]

REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
_CONTEXT: Final = WorkerContext(None)


def hypercorn_config(head_bytes: int) -> Config:
    """Hypercorn's settings: what of them still has a meaning here."""
    config = Config()
    config.h11_max_incomplete_size = head_bytes
    config.include_server_header = False
    config.keep_alive_max_requests = 0  # every reply says "Connection: close"
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


class Http11(H11Protocol):
    """One request of one connection.

    ``feed`` takes bytes until the head is complete; then ``asgi_scope`` and ``body`` are there, and ``first_body`` is
    what came behind the head. ``write`` takes ASGI messages; what is to be sent collects in ``outgoing``.
    """

    asgi_scope: Scope
    body: BodyDecoder

    def __init__(
        self,
        config: Config,
        body_limit: int,
        *,
        secure: bool,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        # Hypercorn would start the application as a task in a task group; here it is called by the connection itself.
        group = cast(TaskGroup, self)
        super().__init__(
            cast(AppWrapper, None),
            config,
            _CONTEXT,
            group,
            cast(ConnectionState, {}),
            secure,
            client,
            server,
            self._keep,
        )
        self.body_limit = body_limit
        self.outgoing: list[bytes] = []
        self.head_size = 0
        self.first_body: bytes = b""
        self.wants_100 = False
        self._left: int | None = None  # of the reply's body, where its length is known
        self.started = False  # a reply has begun
        self.finished = False  # ... and ended

    # --- what comes in

    async def feed(self, data: bytes | bytearray) -> bool:
        """True once the request's head is complete. Raises ``MalformedRequest``, ``HeadTooLarge``, ``BodyTooLarge``."""
        connection = self.connection
        assert isinstance(connection, h11.Connection)
        if self.head_size == 0 and data[:2] == b"\r\n":
            data = data[2:]  # RFC 9112, 2.2: an empty line before the request is ignored
            if not data:
                return False
        self.head_size += len(data)
        connection.receive_data(bytes(data))
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise HeadTooLarge from None
            raise MalformedRequest from None
        if not isinstance(request, h11.Request):
            if request is h11.NEED_DATA and data:
                return False
            raise MalformedRequest  # an end in mid-head
        self.first_body = connection.trailing_data[0]
        if self.head_size - len(self.first_body) > self.config.h11_max_incomplete_size:
            raise HeadTooLarge
        check_head(request)
        self.wants_100 = connection.they_are_waiting_for_100_continue
        await self._open_stream(request)
        self.body = body_decoder(request, self.body_limit)
        if self.body.declared is not None and self.body.declared > self.body_limit:
            raise BodyTooLarge
        if self.first_body and self.body is NO_BODY:
            self.body = LengthBody(0)  # one that counts what comes too much
        return True

    async def _open_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Any, send: Callable[..., Awaitable[None]]
    ) -> Callable[..., Awaitable[None]]:
        """The task group's part: nothing is spawned, the scope is kept."""
        self.asgi_scope = scope
        return _drop

    # --- what goes out

    async def write(self, message: Message) -> None:
        """One ASGI message of the reply; its bytes are in ``outgoing`` afterwards. Raises what hypercorn raises for a
        message out of turn.
        """
        stream = self.stream
        assert isinstance(stream, HTTPStream)
        self.started = True
        await stream.app_send(cast(Any, message))
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True

    async def stream_send(self, event: StreamEvent) -> None:
        """Hypercorn's stream says what goes out. A reply of a known length is written here, in a quarter of the time
        that h11 takes; its length is checked all the same. Any other is h11's, in chunks.
        """
        if isinstance(event, Response):
            self._left = self._length_of(event)
            if self._left is not None:
                self.outgoing.append(reply_head(event.status_code, event.headers, self.config))
                return
        elif self._left is not None:
            if isinstance(event, Body):
                self._left -= len(event.data)
                if self._left >= 0:
                    self.outgoing.append(event.data)
                    return
            if self._left and not isinstance(event, StreamClosed):
                what = "long" if self._left < 0 else "short"
                raise ValueError(f"the reply's body is {abs(self._left)} bytes too {what}")
            return
        await super().stream_send(event)

    def _length_of(self, reply: Response) -> int | None:
        """Of the bytes that follow the head; None when it isn't known."""
        if suppress_body(self.asgi_scope["method"], reply.status_code):
            return 0
        return next((int(value) for name, value in reply.headers if name.lower() == b"content-length"), None)

    async def _keep(self, event: Event) -> None:
        if isinstance(event, RawData) and event.data:
            self.outgoing.append(event.data)

    async def _maybe_recycle(self) -> None:
        """After a reply: no second request, and the connection closes itself."""


def reply_head(status: int, headers: Headers, config: Config) -> bytes:
    """Every reply ends its connection. Raises ``ValueError`` for what would be two headers, or none."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}".encode("ascii")]
    lines += [name + b": " + value for name, value in headers if name.lower() != b"connection"]
    lines += [name + b": " + value for name, value in config.response_headers("h11")]
    lines += [b"connection: close", b"", b""]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise ValueError("a header's value has a control character in it")
    return head


async def _drop(message: object) -> None:
    """Hypercorn's queue towards the application; the body goes there by another way."""


def check_head(request: h11.Request) -> None:
    """What h11 takes and we don't. Raises ``MalformedRequest``."""
    if request.http_version not in (b"1.1", b"1.0"):
        raise MalformedRequest("Unsupported HTTP version")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version == b"1.0"):
        raise MalformedRequest("Ambiguous body length")


def body_decoder(request: h11.Request, limit: int) -> BodyDecoder:
    """``limit`` is for chunks; a declared length is the caller's to check."""
    for name, value in request.headers:
        if name == b"transfer-encoding":
            return ChunkedBody(limit)
        if name == b"content-length":
            length = int(value)
            return LengthBody(length) if length else NO_BODY
    return NO_BODY
