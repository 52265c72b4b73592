"""One connection: TLS handshake, one request read within limits, one reply, and a close that lets the reply arrive.

One task a connection, one request a connection. The application is called by that task itself and pulls the body out
of the stream by ``receive``, which is all the backpressure that is needed. Time limits are cancel scopes around each
wait for the peer; no task ticks beside them.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import count
from typing import Any, Final

import trio

from wazuh_comms_trio.errors import CommsError, Overloaded, TimeLimitExceeded
from wazuh_comms_trio.foundation.log_context import AGENT, REQUEST, WORKER
from wazuh_comms_trio.http.balancers.proxy_header import ProxyHeaderInvalid, ProxyHeaderReader
from wazuh_comms_trio.http.server.delivery import EXTENSION
from wazuh_comms_trio.http.server.framing.bodies import BodyDecoder
from wazuh_comms_trio.http.server.hypercorn_protocol import Http11, Message
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.peer import LINGER_TIMEOUT, RECEIVE_BYTES, Peer, PeerGone, ReplyWaiting, is_leaving
from wazuh_comms_trio.http.server.refusals import ServerError
from wazuh_comms_trio.http.server.replies import encode_refusal, request_id_header
from wazuh_comms_trio.http.server.room import DRAINED, idle_now
from wazuh_comms_trio.http.server.streams.peer_progress import WAITING, BodyWaiting
from wazuh_comms_trio.http.server.streams.reading_turns import Place
from wazuh_comms_trio.http.server.streams.socket_stream import SocketStream
from wazuh_comms_trio.http.server.streams.tls_stream import HandshakeRefused, handshake_cause
from wazuh_comms_trio.metrics import families

__all__ = ["Connection", "serve_connection"]

logger = logging.getLogger(__name__)

#: What a peer may send after its request before it counts as gone.
EXCESS_LIMIT: Final = 65536
#: What is read and dropped of a body after its refusal, bytes and seconds: agents' batches are 1 MB, and an agent reads
#: once all of it is sent. The rest of a larger one isn't worth the descriptor.
DRAIN_BYTES: Final = 2 * 1024 * 1024
DRAIN_TIMEOUT: Final = 10.0

_request_ids = count(1)


async def serve_connection(stream: trio.abc.Stream, context: ListenerContext) -> None:
    """Serves a connection from TLS handshake to close; the stream is closed in any case. Raises nothing but
    ``Cancelled``: what goes wrong here is one connection's, and in the log.
    """
    connection = Connection(stream, context)
    context.connections += 1
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
        context.connections -= 1
        connection.release()
        if isinstance(stream, SocketStream):
            stream.close()  # what closing forcefully comes to, which takes 25 µs more
        else:
            await trio.aclose_forcefully(stream)


class Connection:
    """``receive`` and ``send`` are the application's, ``expect``, ``confirmed`` and ``give_up`` for deliveries."""

    __slots__ = (
        "_ended",
        "_expected",
        "_first",
        "_handed_over",
        "_is_check",
        "_place",
        "_replied",
        "_sent",
        "_status",
        "_waiting",
        "context",
        "http",
        "peer",
    )

    http: Http11

    def __init__(self, stream: trio.abc.Stream, context: ListenerContext) -> None:
        self.context = context
        self._status = 0  # of the reply, once it has one
        self._sent = 0  # bytes of the reply
        limits = context.limits
        self.peer = Peer(stream, ReplyWaiting(limits.send_timeout, limits.body_rate, context.reply_scopes))
        self._first: bytes | bytearray = b""  # of the body
        self._ended = False  # the application was given the end of the body
        self._expected = False  # the application waits for the delivery of its reply
        self._handed_over = False  # all of the reply was sent
        self._is_check = False  # a balancer's or an operator's, as far as it was looked at
        self._replied = False  # some of the reply is on its way
        self._waiting: BodyWaiting | None = None  # for the rest of the body
        self._place = Place(context.reading_turns)  # among the bodies that are read

    @property
    def sock(self) -> Any:
        """The connection's socket, for applications that ask the kernel about the peer (``SO_PEERCRED``)."""
        return self.peer.sock

    def certificate_names(self) -> frozenset[str]:
        """The names in the client's certificate, for applications that bind it to what they are asked for."""
        return self.peer.certificate_names()

    async def run(self) -> None:
        context = self.context
        REQUEST.set(new_request_id())
        context.metrics.count(families.ACCEPTED, context.name)
        refusal: CommsError | None = None
        with trio.CancelScope(deadline=context.deadline_after(context.limits.handshake_timeout)) as scope:
            context.idle_scopes[scope] = idle = idle_now(self.peer.sock)
            try:
                if context.ssl_context is not None:
                    await self.peer.hear()
                    idle.steps_on()
                    self._is_check = await context.giving_way.before_handshake(self.peer.early)
                if not await self._find_client() or not await self._shake_hands():
                    return
                self.http = Http11(
                    context.hypercorn,
                    context.limits.body_bytes,
                    secure=context.ssl_context is not None,
                    client=self.peer.address,
                )
                scope.deadline = context.deadline_after(context.limits.head_timeout)
                if context.ssl_context is None:
                    await self.peer.hear()
                idle.steps_on()
                try:
                    if not await self._read_head():
                        return
                except CommsError as error:
                    refusal = error
            finally:
                shed = context.idle_scopes.pop(scope, None) is None
        if scope.cancelled_caught:
            if shed or context.is_stopping:
                return
            if not hasattr(self, "http"):
                context.handshake_failed("timeout", self.peer)
                return
            refusal = TimeLimitExceeded()
        began = trio.current_time()
        if refusal is None:
            refusal = await self._answer()
        if refusal is not None:
            await self._refuse(refusal)
        self._count(trio.current_time() - began)
        if not self.peer.gone:
            await self._finish()

    def release(self) -> None:
        """Breaks the connection's reference cycles, once it is over. OpenSSL's part of a connection is some 35 kB that
        the garbage collector doesn't count, so that it would let many of them pile up.
        """
        if self._is_check:
            self.context.giving_way.end_check()
        self.peer.release()
        if hasattr(self, "http"):
            vars(self.http).clear()
            del self.http

    # --- the request

    async def _find_client(self) -> bool:
        """Finds out whose connection it is, where a trusted balancer begins it with that. False when it doesn't."""
        balancers = self.context.balancers
        if not balancers.proxy_protocol:
            return True
        own = self.peer.own_address
        if own is None or not balancers.proxy_protocol.has(own[0]):
            return True
        reader = ProxyHeaderReader()
        try:
            while (header := reader.feed(await self.peer.receive_plain())) is None:
                pass
        except ProxyHeaderInvalid as error:
            if reader.has_begun:  # else it was a look whether the port is open
                self.context.metrics.count(families.HANDSHAKES_FAILED, self.context.name, "proxy_header")
                balancers.refused(self.peer, error)
            return False
        self.peer.client, self.peer.early = header.source, reader.rest
        return True

    async def _shake_hands(self) -> bool:
        ssl_context = self.context.ssl_context
        if ssl_context is None:
            return True
        try:
            await self.peer.shake_hands(ssl_context)
        except (trio.BrokenResourceError, OSError) as error:
            logger.debug("no TLS handshake with %s: %s", self.peer, error.__cause__ or error)
            self.context.handshake_failed(handshake_cause(error), self.peer)
            if isinstance(error, HandshakeRefused):
                await self.peer.linger(EXCESS_LIMIT)
            return False
        return True

    async def _read_head(self) -> bool:
        """Reads the request's head; false when the peer left before it sent anything."""
        http, stream = self.http, self.peer.stream
        while True:
            data = self.peer.take_early() or await stream.receive_some(RECEIVE_BYTES)
            if not data and not http.head_size:
                return False
            if await http.feed(data):
                if self.context.balancers.forwarded_for and (address := self.peer.address) is not None:
                    self.peer.client = self.context.balancers.client(address, http.asgi_scope["headers"])
                    http.asgi_scope["client"] = self.peer.client
                self._first, http.first_body = http.body.feed(http.first_body), b""
                return True

    async def receive(self) -> Message:
        """ASGI's ``receive``: the body, then the peer's leaving. Raises ``BodyTooLarge``, ``MalformedRequest``
        (chunks), ``TimeLimitExceeded``, ``Overloaded``.
        """
        body = self.http.body
        if self._ended:
            return await self._wait_until_gone()
        if not self._first and not body.complete:
            try:
                self._first = await self._receive_body()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.peer.gone = True
            if not self._first and not body.complete:
                return {"type": "http.disconnect"}
        if body.complete:
            await self.context.giving_way.before_long_step(urgent=self._is_check)
        data, self._first = self._first, b""
        self._ended = body.complete
        more: Message = {} if body.complete else {WAITING: self._waiting_for_body()}
        return {"type": "http.request", "body": data, "more_body": not body.complete, **more}

    async def _receive_body(self) -> bytes | bytearray:
        """The next part of the body; empty at its end, and when the peer ends too early."""
        body, waiting = self.http.body, self._waiting_for_body()
        if self.http.wants_100:
            self.http.wants_100 = False
            await self.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            if body.received >= self._place.read_to:
                await self._place.next_piece(body.received, body.declared)
            received = body.received
            with waiting.begun() as scope:
                try:
                    data = await self.peer.stream.receive_some(RECEIVE_BYTES)
                    payload = body.feed(data)
                finally:
                    waiting.over(scope, body.received - received)
            if scope.cancelled_caught or waiting.makes_room:
                raise Overloaded if waiting.makes_room else TimeLimitExceeded
            if not data or payload or body.complete:
                return payload

    def _waiting_for_body(self) -> BodyWaiting:
        if self._waiting is None:
            limits, scopes = self.context.limits, self.context.body_scopes
            timeout, rate, stall = limits.body_timeout, limits.body_rate, limits.stall_timeout
            self._waiting = BodyWaiting(timeout, rate, stall, scopes, self.http.body.declared)
        return self._waiting

    async def _wait_until_gone(self) -> Message:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            excess = self.http.body.excess
            while excess <= EXCESS_LIMIT and (data := await self.peer.stream.receive_some(RECEIVE_BYTES)):
                excess += len(data)
        if not self._expected:  # else an end says nothing: the peer may have read the reply that is on its way
            self.peer.gone = True
        return {"type": "http.disconnect"}

    # --- the reply

    async def _answer(self) -> CommsError | None:
        """Calls the application, which answers its own errors. Returns what the connection has to refuse, since the
        application raised or didn't answer.
        """
        scope = self.http.asgi_scope
        scope["extensions"][EXTENSION] = self
        try:
            await self.context.app(scope, self.receive, self.send)
        except Exception as error:
            if is_leaving(error):
                logger.debug("%s left before its reply", self.peer)
                self.peer.gone = self.peer.gone or self._replied
                return None
            if self.context.describe(error).is_bug:  # also when the peer has left: a bug is logged in any case
                logger.exception("%s %s failed", scope["method"], scope["path"])
            return self._break_off(error if isinstance(error, CommsError) else ServerError())
        if self.http.finished or self.peer.gone:
            return None
        logger.error("%s %s was not answered", scope["method"], scope["path"])
        return self._break_off(ServerError())

    def _break_off(self, error: CommsError) -> CommsError | None:
        """Replaces the reply by a refusal, as long as nothing of it was sent; after that it has to look broken off."""
        if self._replied:
            self.peer.gone = True
        return None if self.peer.gone else error

    async def send(self, message: Message) -> None:
        """ASGI's ``send``. A reply's head waits for the first part of its body: small replies are one segment. Raises
        ``PeerGone``.
        """
        http = self.http
        if message["type"] == "http.response.start":
            await self.context.giving_way.before_long_step(urgent=self._is_check or self._expected)
            self._status = message["status"]
            if self._status >= 500:
                message = {**message, "headers": [*message["headers"], request_id_header()]}
        await http.write(message)
        if message["type"] == "http.response.body":
            data = http.outgoing[0] if len(http.outgoing) == 1 else b"".join(http.outgoing)
            http.outgoing.clear()
            self._replied = True
            self._sent += len(data)
            await self.peer.send(data, last=http.finished and not self._expected)
            self._handed_over = http.finished

    def expect(self) -> None:
        """See ``DeliveryConfirmation``."""
        self._expected = True

    async def confirmed(self) -> bool:
        """See ``DeliveryConfirmation``."""
        if not self.http.finished or not await self.peer.confirmed():
            return False
        if self._expected:
            # The reply has arrived, also if the request is cancelled now; TLS's end fits into the socket's buffer.
            with suppress(PeerGone), trio.CancelScope(shield=True):
                await self.peer.send(b"", last=True)
        return True

    def give_up(self) -> bool:
        """See ``DeliveryConfirmation``."""
        return self.peer.break_off(arrived=self._handed_over)

    async def _refuse(self, error: CommsError) -> None:
        refusal = self.context.describe(error)
        method, path = "-", "-"
        if (scope := getattr(self.http, "asgi_scope", None)) is not None:
            method, path = scope["method"], scope["path"]
        logger.debug("%s %s %s: %d %s", self.peer, method, path, refusal.status, refusal.summary)
        data = encode_refusal(refusal, self.context.hypercorn, with_body=method != "HEAD")
        self._status = refusal.status
        self._sent += len(data)
        with suppress(PeerGone):
            await self.peer.send(data, last=True)

    def _count(self, seconds: float) -> None:
        context, http = self.context, self.http
        scope = getattr(http, "asgi_scope", None)
        path = "" if scope is None else scope["path"]
        context.count_request(path, self._status, seconds)
        body: BodyDecoder | None = getattr(http, "body", None)
        received = 0 if body is None else body.received
        if (agent_id := AGENT.get()) is not None and self._status:
            client = None if scope is None else scope["client"]
            context.answered(agent_id, path, self._status, client[0] if client else None)
            context.metrics.agents.count(agent_id, received)
        if received:
            context.metrics.count(families.RECEIVED_BYTES, context.name, by=received)
        context.metrics.count(families.SENT_BYTES, context.name, by=self._sent)

    async def _finish(self) -> None:
        """Makes sure that closing doesn't take the reply away again."""
        body: BodyDecoder | None = getattr(self.http, "body", None)
        if body is not None and body.complete and not body.excess and not self.peer.has_sent_more:
            return
        if body is None or body.complete or self.http.wants_100:
            seconds, spare = LINGER_TIMEOUT, EXCESS_LIMIT
        else:
            seconds, spare = DRAIN_TIMEOUT, DRAIN_BYTES
        with trio.CancelScope(deadline=self.context.deadline_after(seconds)) as scope:
            self.context.idle_scopes[scope] = idle_now(self.peer.sock, DRAINED)
            try:
                await self.peer.linger(spare)
            finally:
                self.context.idle_scopes.pop(scope, None)


def new_request_id() -> str:
    """An id for a request, unique in this worker; log lines carry it, and replies that say 5xx."""
    worker = WORKER.get()
    return f"{next(_request_ids):x}" if worker is None else f"{worker}-{next(_request_ids):x}"
