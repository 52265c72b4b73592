"""One HTTP/1.1 connection as a client, on any trio stream: the indexer's and the engine's clients are built on it.

A connection carries one request at a time. What goes wrong comes out as ``HttpFailure``, which says how far the
request had come: that is what decides whether it may be sent again.
"""

from __future__ import annotations

import math
import select
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import h11
import trio
from attrs import frozen

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.http.client.connecting import PlainStream, describe_cause
from wazuh_comms_trio.http.client.sending import Sending
from wazuh_comms_trio.http.client.simple_messages import SimpleHead, encode_head, parse_head

__all__ = ["HttpConnection", "HttpFailure", "HttpReply"]

#: How much is handed to the transport at once: each piece has the write limit for itself, so that a slow link isn't
#: taken for a dead one.
_PIECE_BYTES: Final = 256 * 1024
_RECEIVE_BYTES: Final = 64 * 1024
_LARGEST_HEAD: Final = 64 * 1024
#: Bodies up to this size go out together with the head.
_TOGETHER_BYTES: Final = 64 * 1024
#: How long the answer may take of a peer that stopped reading our request: it was sent before, or never.
_LAST_WORDS_TIMEOUT: Final = 1.0


@frozen
class HttpReply:
    """A whole answer. Header names are in lower case; of equal ones the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpFailure(Exception):
    """Raised for an exchange that came to nothing. ``timed_out``: nothing was heard within the limit. ``sent``: the
    peer may have seen some of the request. ``heard``: it had begun to answer; ``too_large``: more than is taken.
    ``status``: what the head of an answer said whose body didn't come, or not all of it; 0: there was none."""

    def __init__(
        self,
        text: str,
        *,
        sent: bool,
        heard: bool = False,
        timed_out: bool = False,
        too_large: bool = False,
        status: int = 0,
    ) -> None:
        super().__init__(text)
        self.sent = sent
        self.heard = heard
        self.timed_out = timed_out
        self.too_large = too_large
        self.status = status


class HttpConnection:
    """``host`` is the Host header; ``write_timeout`` in seconds is for each piece of a request, ``read_timeout`` for
    the whole answer, from the end of the request; ``largest_reply`` in bytes of its body. Not safe for two tasks at
    once."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        host: str,
        write_timeout: float = math.inf,
        read_timeout: float = math.inf,
        largest_reply: int = 256 * 1024 * 1024,
    ) -> None:
        self.idle_since = trio.current_time()
        self.used = 0
        self._stream = stream
        self._host = host
        self._write_timeout = write_timeout
        self.read_timeout = read_timeout
        self.largest_reply = largest_reply
        #: Seconds for what follows the head of a refusal (4xx): one who acts upon its status alone needn't wait longer.
        self.refusal_timeout = math.inf
        self._reading = trio.CancelScope()  # around the wait for the answer that is being read
        self._h11: h11.Connection | None = None  # made for the first exchange that isn't a simple one
        self._heard = False
        self._status = 0  # of the answer that is being read
        self._cut_off = False  # a request that didn't go out whole, or an answer after which the peer closes
        self._simple = False  # an exchange is under way that h11 knows nothing of

    def __repr__(self) -> str:
        return f"<HttpConnection to {self._host}: {self._http.our_state}, {self._http.their_state}>"

    @property
    def _http(self) -> h11.Connection:
        if self._h11 is None:
            self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        return self._h11

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it: the last exchange is complete, and neither side wants to close."""
        if self._cut_off or self._simple:
            return False
        http = self._h11
        return http is None or (http.our_state is h11.IDLE and http.their_state is h11.IDLE)

    def looks_closed(self) -> bool:
        """Whether the peer has closed, or said something unasked, while nothing was going on. Never blocks."""
        sock = _socket_of(self._stream)
        if sock is None:
            return False
        if sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def aclose(self) -> None:
        """Closes abruptly, without waiting for the peer's farewell. Safe to call twice, and within a cancelled
        scope."""
        if isinstance(self._stream, PlainStream):
            self._stream.close_nowait()
        else:
            await trio.aclose_forcefully(self._stream)

    def close_nowait(self) -> None:
        """As ``aclose``, where waiting isn't possible: the peer sees the end, whatever the protocol above would say."""
        sock = _socket_of(self._stream)
        if sock is not None:
            sock.close()
        elif isinstance(self._stream, PlainStream):
            self._stream.close_nowait()

    # --- a request with its body at hand ---

    async def exchange(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes | None = None
    ) -> HttpReply:
        """Sends one request and reads the whole answer. Raises ``HttpFailure``; when cancelled, the connection
        is unusable."""

        def begin() -> list[Any]:
            framing = [] if body is None else [("Content-Length", str(len(body)))]
            parts = [self._begin(method, target, [*headers, *framing])]
            if body:
                parts += self._encode(h11.Data(data=body))
            return parts + self._encode(h11.EndOfMessage())

        head = encode_head(method, target, self._host, headers, None if body is None else len(body))
        if head is None:
            parts = begin()
        else:
            self._require_reusable()
            parts = [head, body] if body else [head]
            self._simple = True
        deadline = _LAST_WORDS_TIMEOUT
        unsent: HttpFailure | None = None
        try:
            await self._send(parts)
            deadline = self.read_timeout
        except HttpFailure as failure:
            self._cut_off = True
            unsent = failure
        limit: AbstractContextManager[Any] = nullcontext()
        if min(deadline, self.refusal_timeout) != math.inf:
            limit = self._reading = trio.CancelScope(deadline=trio.current_time() + deadline)
        with limit:
            try:
                return await (self._read_reply() if head is None else self._read_simple(begin))
            except HttpFailure:
                if unsent is None:
                    raise
        raise self._no_answer() if unsent is None else self._answered(unsent)

    # --- a request whose body comes piece by piece ---

    async def exchange_stream(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterable[bytes],
        *,
        length: int | None,
    ) -> HttpReply:
        """As ``exchange``, with at most one piece of ``body`` in memory. What ``body`` raises goes through. A peer that
        answers or closes before the end is heard: then what is left of ``body`` isn't asked for (it is never cancelled
        while it is being waited for, so its owner may read on), and the connection isn't reusable."""
        framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        head = self._begin(method, target, [*headers, framing])
        replies: list[HttpReply] = []
        failures: list[HttpFailure] = []
        reading = self._reading = trio.CancelScope()
        sending = Sending()

        async def read() -> None:
            try:
                with reading:
                    replies.append(await self._read_reply())
            except HttpFailure as failure:
                failures.append(failure)
            sending.stop()

        async with BackgroundNursery(wait=True) as nursery:
            nursery.start_soon(read)
            try:
                await self._send_pieces(head, body, sending)
                reading.deadline = min(reading.deadline, trio.current_time() + self.read_timeout)
            except HttpFailure as failure:
                self._cut_off = True
                failures.append(failure)
                reading.deadline = min(reading.deadline, trio.current_time() + _LAST_WORDS_TIMEOUT)
            except Exception:
                reading.cancel()
                raise
        if replies:
            return replies[0]
        if failures:
            raise self._answered(failures[0])
        raise self._no_answer()

    async def _send_pieces(self, head: bytes, body: AsyncIterable[bytes], sending: Sending) -> None:
        """Sends the body's pieces; returns early when ``sending`` is stopped."""
        parts = [head]  # goes out with the first piece
        async for piece in body:
            if sending.stopped:
                return
            if piece:
                parts += self._encode(h11.Data(data=piece))
                with sending.scope():
                    await self._send(parts)
                parts = []
        if not sending.stopped:
            parts += self._encode(h11.EndOfMessage())
            with sending.scope():
                await self._send(parts)

    # --- the wire ---

    def _begin(self, method: str, target: str, headers: Sequence[tuple[str, str]]) -> bytes:
        """Begins a request; returns the bytes of its head."""
        if not self._simple:
            self._require_reusable()
        request = h11.Request(method=method, target=target, headers=[("Host", self._host), *headers])
        return self._http.send(request) or b""

    def _require_reusable(self) -> None:
        if not self.reusable:
            raise RuntimeError(f"{self!r} cannot take another request")
        self.used += 1
        self._heard, self._status = False, 0

    def _encode(self, event: h11.Data | h11.EndOfMessage) -> list[Any]:
        try:
            return self._http.send_with_data_passthrough(event) or []
        except h11.LocalProtocolError as exc:
            raise HttpFailure(f"the body's length isn't what was announced: {exc}", sent=True) from exc

    async def _send(self, parts: Sequence[Any]) -> None:
        """Sends small parts together, large ones in pieces and without a copy."""
        together = bytearray()
        for part in parts:
            if len(together) + len(part) <= _TOGETHER_BYTES:
                together += part
                continue
            if together:
                await self._send_piece(together)
                together = bytearray()
            view = memoryview(part)
            for start in range(0, len(view), _PIECE_BYTES):
                await self._send_piece(view[start : start + _PIECE_BYTES])
        if together:
            await self._send_piece(together)

    async def _send_piece(self, piece: bytearray | memoryview) -> None:
        try:
            if self._write_timeout == math.inf:
                await self._stream.send_all(piece)
            else:
                with trio.fail_after(self._write_timeout):
                    await self._stream.send_all(piece)
        except trio.TooSlowError as exc:
            raise HttpFailure("the peer doesn't read the request", sent=True, timed_out=True) from exc
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise HttpFailure(f"the connection broke while sending: {describe_cause(exc)}", sent=True) from exc

    async def _read_simple(self, begin: Callable[[], list[Any]]) -> HttpReply:
        """Reads the answer to a request that h11 wasn't told of. When it isn't a simple one, h11 is told: ``begin``."""
        data = bytearray()
        head: SimpleHead | None = None
        while head is None:
            received = await self._receive()
            data += received
            end = data.find(b"\r\n\r\n") + 4
            head = parse_head(data, end) if end > 3 else None
            if head is None and (end > 3 or not received or len(data) > _LARGEST_HEAD):
                begin()
                self._simple = False
                if not data:
                    raise self._broken("the connection was closed without an answer")
                self._http.receive_data(bytes(data))
                if not received:
                    self._http.receive_data(b"")
                return await self._read_reply()
        self._head_came(head.status)
        if head.length > self.largest_reply:
            raise self._broken("the answer is too large", too_large=True)
        end += head.length
        while len(data) < end:
            received = await self._receive()
            if not received:
                text = f"it ended after {len(data) - end + head.length} of {head.length} bytes"
                raise self._broken(f"the answer isn't sound HTTP: {text}")
            data += received
        self._simple = False
        self._cut_off = self._cut_off or head.closing or len(data) > end  # more than was asked for
        self.idle_since = trio.current_time()
        return HttpReply(head.status, head.headers, bytes(data[end - head.length : end]))

    async def _read_reply(self) -> HttpReply:
        """Reads an answer, without a time limit of its own."""
        headers: dict[str, str] = {}
        body = bytearray()
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                raise self._broken(f"the answer isn't sound HTTP: {exc}") from exc
            if event is h11.NEED_DATA:
                data = bytes(await self._receive())
                if not data and not self._heard:
                    raise self._broken("the connection was closed without an answer")
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                self._head_came(event.status_code)
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self.largest_reply:
                    raise self._broken("the answer is too large", too_large=True)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise self._broken("the connection was closed without an answer")
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        self.idle_since = trio.current_time()
        return HttpReply(self._status, headers, bytes(body))

    async def _receive(self) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            text = f"the connection broke before the answer was complete: {describe_cause(exc)}"
            raise self._broken(text) from exc
        self._heard = self._heard or bool(data)
        return data

    def _head_came(self, status: int) -> None:
        self._status = status
        if 400 <= status < 500:
            self._reading.deadline = min(self._reading.deadline, trio.current_time() + self.refusal_timeout)

    def _answered(self, failure: HttpFailure) -> HttpFailure:
        """Of a request that may not have gone out whole, with the head of what was answered all the same."""
        failure.heard, failure.status = self._heard, self._status
        return failure

    def _no_answer(self) -> HttpFailure:
        what = "the answer did not end" if self._heard else "there was no answer"
        return self._broken(f"{what} within {self.read_timeout:g} s", timed_out=True)

    def _broken(self, text: str, *, timed_out: bool = False, too_large: bool = False) -> HttpFailure:
        """Of a request that was sent, and an answer that came as far as it did."""
        heard, status = self._heard, self._status
        return HttpFailure(text, sent=True, heard=heard, timed_out=timed_out, too_large=too_large, status=status)


def _socket_of(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    """The socket below, if there is one: in-memory streams have none."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None
