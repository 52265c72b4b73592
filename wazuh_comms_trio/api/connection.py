"""One connection: shaken hands with, read within limits, answered once, closed so that the answer arrives.

One task a connection, one request a connection. The application is called by that task itself and pulls the body out
of the stream by ``receive``, which is all the backpressure that is needed. Time limits are cancel scopes around each
wait for the peer; no task ticks beside them.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from itertools import count
from math import inf
from socket import AF_INET, AF_INET6, IPPROTO_TCP, TCP_QUICKACK
from typing import Any, Final

import trio
from attrs import define, field

from wazuh_comms_trio.api.delivery import EXTENSION, is_reset, unacknowledged_bytes, unread_bytes
from wazuh_comms_trio.api.framing import BodyDecoder
from wazuh_comms_trio.api.http11 import Http11, Message, Scope, hypercorn_config
from wazuh_comms_trio.api.problems import Problem, ServerError, describe, is_known
from wazuh_comms_trio.api.tls_stream import HandshakeRefused, TlsStream
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.context import REQUEST
from wazuh_comms_trio.errors import CommsError, TimeLimitExceeded

__all__ = ["Application", "Edge", "PeerGone", "serve_connection"]

logger = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 65536
#: What one ``limits.send_timeout`` is given for.
SEND_BYTES: Final = 65536
#: How long a refused peer may be silent before it is closed, and how long it may take in all when no body is on its
#: way.
LINGER_TIMEOUT: Final = 2.0
#: What a peer may send after its request before it counts as gone.
EXCESS_LIMIT: Final = 65536
#: How often to look at what is unacknowledged: first after 1 ms, then ever less often.
DELIVERY_FIRST_WAIT: Final = 0.001
DELIVERY_LAST_WAIT: Final = 0.25

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_request_ids = count(1)


class PeerGone(trio.BrokenResourceError):
    """The peer closed, reset, or didn't read for ``limits.send_timeout``. Raised by ``send``; of no interest to
    anybody.
    """


@define(eq=False)
class Edge:
    """What the connections of one kind of listener have in common. ``ssl_context`` None: plain."""

    app: Application
    limits: Limits
    ssl_context: ssl.SSLContext | None = None
    describe: Callable[[BaseException], Problem] = describe
    #: Of connections that wait for a handshake, a head, or their peer's end: nothing is lost with them.
    expendable: set[trio.CancelScope] = field(init=False, factory=set)
    #: On trio's clock: when these have to be over. Set at stop.
    patience_ends: float = field(init=False, default=inf)
    hypercorn: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hypercorn = hypercorn_config(self.limits.head_bytes)

    def lose_patience(self, after: float) -> None:
        """From now on connections without a complete request get ``after`` seconds."""
        self.patience_ends = trio.current_time() + after
        for scope in self.expendable:
            scope.deadline = min(scope.deadline, self.patience_ends)

    def allowance(self, seconds: float) -> float:
        """The deadline of such a wait."""
        return min(trio.current_time() + seconds, self.patience_ends)


async def serve_connection(stream: trio.abc.Stream, edge: Edge) -> None:
    """From TLS handshake to close; the stream is closed in any case. Raises nothing but ``Cancelled``: what goes wrong
    here is one connection's, and in the log.
    """
    connection = Connection(stream, edge)
    try:
        await connection.run()
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        logger.debug("%s left: %s", connection.peer, error.__cause__ or error)
    except Exception:
        logger.exception("a connection failed")
    except BaseExceptionGroup as group:
        # A handler was cancelled, and its cleanup failed. The cancellation goes on.
        cancelled, others = group.split(trio.Cancelled)
        if cancelled is None or not isinstance(others, ExceptionGroup):
            raise
        logger.error("a cancelled request failed", exc_info=others)  # noqa: TRY400
        raise cancelled from None
    finally:
        await trio.aclose_forcefully(stream)


class Connection:
    """``receive`` and ``send`` are the application's; ``confirmed`` is the delivery extension."""

    __slots__ = (
        "_ended",
        "_first",
        "_gone",
        "_replied",
        "_waited",
        "edge",
        "http",
        "sock",
        "stream",
        "tls",
        "transport",
    )

    http: Http11

    def __init__(self, stream: trio.abc.Stream, edge: Edge) -> None:
        self.edge = edge
        self.transport = stream
        self.stream = stream
        self.tls: TlsStream | None = None
        self.sock: Any = stream.socket  # type: ignore[attr-defined]  # sockets and their stand-ins alike
        self._first: bytes | bytearray = b""
        self._ended = False  # the application was given the end of the body
        self._gone = False  # nothing can be sent any more, or nothing more may be
        self._replied = False  # some of the reply is on its way
        self._waited = 0.0  # seconds spent waiting for the body

    @property
    def client(self) -> tuple[str, int] | None:
        try:
            return self.sock.getpeername()[:2] if self.sock.family in (AF_INET, AF_INET6) else None
        except OSError:
            return None  # gone already

    @property
    def peer(self) -> str:
        client = self.client
        return f"{client[0]}:{client[1]}" if client else "a local peer"

    async def run(self) -> None:
        edge = self.edge
        refusal: CommsError | None = None
        with trio.CancelScope(deadline=edge.allowance(edge.limits.handshake_timeout)) as scope:
            edge.expendable.add(scope)
            try:
                if edge.ssl_context is not None and not await self._shake_hands(edge.ssl_context):
                    return
                client = self.client
                self.http = Http11(
                    edge.hypercorn,
                    edge.limits.body_bytes,
                    secure=edge.ssl_context is not None,
                    client=client,
                    server=None,
                )
                scope.deadline = edge.allowance(edge.limits.head_timeout)
                try:
                    if not await self._read_head():
                        return
                except CommsError as error:
                    refusal = error
            finally:
                edge.expendable.discard(scope)
        if scope.cancelled_caught:
            if edge.patience_ends < inf or not hasattr(self, "http"):
                return
            refusal = TimeLimitExceeded()
        if refusal is None:
            refusal = await self._answer()
        if refusal is not None:
            await self._refuse(refusal)
        if not self._gone:
            await self._finish()

    # --- the request

    async def _shake_hands(self, context: ssl.SSLContext) -> bool:
        tls = TlsStream(self.transport, context)
        try:
            await tls.do_handshake()
        except (trio.BrokenResourceError, OSError) as error:
            logger.debug("no TLS handshake with %s: %s", self.peer, error.__cause__ or error)
            if isinstance(error, HandshakeRefused):
                await self._linger(LINGER_TIMEOUT, EXCESS_LIMIT)
            return False
        if self.sock.family in (AF_INET, AF_INET6):
            # The agent's Nagle holds its request back until its last flight is acknowledged, and nothing of ours
            # carries that: 40 ms, without this. Asking before the handshake doesn't last.
            self.sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)
        self.stream = self.tls = tls
        return True

    async def _read_head(self) -> bool:
        """False when the peer left without a word."""
        while True:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            if not data and not self.http.head_size:
                return False
            if await self.http.feed(data):
                self._first, self.http.first_body = self.http.body.feed(self.http.first_body), b""
                return True

    async def _answer(self) -> CommsError | None:
        """The application's turn. Returns what is still to be refused."""
        http = self.http
        REQUEST.set(f"{next(_request_ids):x}")
        http.asgi_scope["extensions"][EXTENSION] = self
        try:
            await self.edge.app(http.asgi_scope, self.receive, self.send)
        except Exception as error:
            if is_leaving(error):
                logger.debug("%s left before its reply", self.peer)
                return None
            if not is_known(error):  # also when the peer has left: nobody else would tell
                logger.exception("%s %s failed", http.asgi_scope["method"], http.asgi_scope["path"])
            return self._break_off(error if isinstance(error, CommsError) else ServerError())
        if http.finished or self._gone:
            return None
        logger.error("%s %s was not answered", http.asgi_scope["method"], http.asgi_scope["path"])
        return self._break_off(ServerError())

    def _break_off(self, error: CommsError) -> CommsError | None:
        """The reply becomes a refusal, as long as nothing of it was sent; after that it has to look broken off."""
        if self._replied:
            self._gone = True
        return None if self._gone else error

    async def receive(self) -> Message:
        """ASGI's: the body, then the peer's leaving. Raises ``BodyTooLarge``, ``MalformedRequest`` (chunks),
        ``TimeLimitExceeded``.
        """
        body = self.http.body
        if self._ended:
            return await self._wait_until_gone()
        if not self._first and not body.complete:
            try:
                self._first = await self._receive_body()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone = True
            if not self._first and not body.complete:
                return {"type": "http.disconnect"}
        data, self._first = self._first, b""
        self._ended = body.complete
        return {"type": "http.request", "body": data, "more_body": not body.complete}

    async def _receive_body(self) -> bytes | bytearray:
        """Some more of it; empty at its end, and when the peer ends too early."""
        limits, body = self.edge.limits, self.http.body
        if self.http.wants_100:
            self.http.wants_100 = False
            await self._send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            left = limits.body_timeout + body_size(body) / limits.body_rate - self._waited
            began = trio.current_time()
            with trio.move_on_after(max(0.0, min(left, limits.stall_timeout))) as scope:
                data = await self.stream.receive_some(RECEIVE_BYTES)
            if scope.cancelled_caught:
                raise TimeLimitExceeded
            self._waited += trio.current_time() - began
            if not data:
                return b""
            if (payload := body.feed(data)) or body.complete:
                return payload

    async def _wait_until_gone(self) -> Message:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            excess = self.http.body.excess
            while excess <= EXCESS_LIMIT and (data := await self.stream.receive_some(RECEIVE_BYTES)):
                excess += len(data)
        self._gone = True
        return {"type": "http.disconnect"}

    # --- the reply

    async def send(self, message: Message) -> None:
        """ASGI's. A reply's head waits for the first part of its body: small replies are one segment. Raises
        ``PeerGone``.
        """
        http = self.http
        await http.write(message)
        if message["type"] == "http.response.body":
            data = http.outgoing[0] if len(http.outgoing) == 1 else b"".join(http.outgoing)
            http.outgoing.clear()
            self._replied = True
            await self._send_all(data, last=http.finished)

    async def _send_all(self, data: bytes, *, last: bool = False) -> None:
        """Raises ``PeerGone``."""
        if self._gone:
            raise PeerGone
        with memoryview(data) as view:
            start = 0
            while len(view) - start > SEND_BYTES:
                await self._send_piece(self.stream.send_all, view[start : start + SEND_BYTES])
                start += SEND_BYTES
            send = self.tls.send_last if last and self.tls is not None else self.stream.send_all
            await self._send_piece(send, view[start:])

    async def _send_piece(self, send: Callable[[memoryview], Awaitable[None]], piece: memoryview) -> None:
        with trio.move_on_after(self.edge.limits.send_timeout) as scope:
            try:
                await send(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._gone = True
                raise PeerGone from error
        if scope.cancelled_caught:
            self._gone = True
            raise PeerGone("it doesn't read")

    async def confirmed(self) -> bool:
        """See ``Delivery``."""
        if self._gone or not self.http.finished:
            return False
        wait = DELIVERY_FIRST_WAIT
        ended = False
        with trio.move_on_after(self.edge.limits.send_timeout):
            while not self._gone:
                unacknowledged = unacknowledged_bytes(self.sock)
                if unacknowledged == 0 or (ended and unacknowledged is None):
                    return True
                if ended:
                    # It closed its side, maybe without having seen the reply: then a reset is on its way.
                    self._gone = is_reset(self.sock)
                    await trio.sleep(wait)
                else:
                    with trio.move_on_after(wait):
                        ended = await self._has_ended()
                wait = min(2 * wait, DELIVERY_LAST_WAIT)
            return unacknowledged_bytes(self.sock) == 0
        self._gone = True
        return False

    async def _has_ended(self) -> bool:
        """Waits for the peer's end: True in order, False by a reset."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self.stream.receive_some(RECEIVE_BYTES):
                pass  # nothing that it sends now is of interest
            return True
        self._gone = True
        return False

    async def _refuse(self, error: CommsError) -> None:
        problem = self.edge.describe(error)
        method, path = "-", "-"
        if (scope := getattr(self.http, "asgi_scope", None)) is not None:
            method, path = scope["method"], scope["path"]
        logger.debug("%s %s %s: %d %s", self.peer, method, path, problem.status, problem.summary)
        with suppress(PeerGone):
            await self._send_all(encode_problem(problem, with_body=method != "HEAD"), last=True)

    # --- the end

    async def _finish(self) -> None:
        """Closing with input unread is a reset, and a reset takes the reply away from a peer that hasn't read it yet.
        So what is still on its way is read and dropped first, within limits.
        """
        limits = self.edge.limits
        body: BodyDecoder | None = getattr(self.http, "body", None)
        if body is not None and body.complete and not body.excess and not unread_bytes(self.sock):
            return
        if body is None or body.complete or self.http.wants_100:
            seconds, spare = LINGER_TIMEOUT, EXCESS_LIMIT
        else:
            spare = limits.body_bytes
            seconds = limits.body_timeout + min(body_size(body), spare) / limits.body_rate - self._waited
        await self._linger(seconds, spare)

    async def _linger(self, seconds: float, spare: int) -> None:
        """Reads and drops at most ``spare`` bytes, encrypted or not, until the peer is silent or gone."""
        with trio.CancelScope(deadline=self.edge.allowance(seconds)) as scope:
            self.edge.expendable.add(scope)
            try:
                await self._half_close()
                while spare > 0:
                    data: bytes | bytearray = b""
                    with trio.move_on_after(LINGER_TIMEOUT):
                        data = await self.transport.receive_some(RECEIVE_BYTES)
                    if not data:
                        break
                    spare -= len(data)
            finally:
                self.edge.expendable.discard(scope)

    async def _half_close(self) -> None:
        """A peer that reads to the end shall not have to wait for it."""
        if isinstance(self.transport, trio.abc.HalfCloseableStream):
            await self.transport.send_eof()


def body_size(body: BodyDecoder) -> int:
    """What its time is counted from: the declared size, or what has arrived."""
    return body.received if body.declared is None else body.declared


def is_leaving(error: BaseException) -> bool:
    """Is it only that the peer is gone? (A nursery of the application's may have wrapped it up.)"""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_leaving, error.exceptions))
    return isinstance(error, PeerGone)


def encode_problem(problem: Problem, *, with_body: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode("ascii")]
    lines += [name + b": " + value for name, value in problem.all_headers]
    lines += [b"connection: close", b"", problem.body if with_body else b""]
    return b"\r\n".join(lines)
