"""The other side of one connection: bytes from it and to it, and what becomes of them when it stalls or leaves."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_QUICKACK
from struct import pack
from typing import Any, Final

import trio

from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.foundation.log_context import format_address
from wazuh_comms_trio.foundation.nurseries import exceptions_of
from wazuh_comms_trio.http.server.delivery import is_reset, unacknowledged_bytes, unread_bytes
from wazuh_comms_trio.http.server.streams.socket_stream import SocketStream
from wazuh_comms_trio.http.server.streams.tls_stream import TlsStream

__all__ = ["RECEIVE_BYTES", "Peer", "PeerGone", "ReplyWaiting", "is_leaving", "shown_address"]

RECEIVE_BYTES: Final = 65536
#: Bytes that are sent at a time. A reply up to a quarter of it, with what its TLS adds, fits into any new connection's
#: buffer: nobody waits there.
SEND_BYTES: Final = 65536
FITS: Final = SEND_BYTES // 4
#: A rest of so many goes with the bytes before it: alone it would cost a call of the system, and a packet. A file of 64
#: KiB has such a one, since its head comes before it.
SHORT_REST: Final = 4096
#: Seconds that a peer may be silent before its connection is closed.
LINGER_TIMEOUT: Final = 2.0
#: ``SO_LINGER``: closing resets the connection, and drops what wasn't acknowledged.
RESET: Final = pack("ii", 1, 0)
#: Seconds between two looks at unacknowledged bytes: 1 ms at first, doubled each time up to the last.
DELIVERY_FIRST_WAIT: Final = 0.001
DELIVERY_LAST_WAIT: Final = 0.25


class PeerGone(trio.BrokenResourceError):
    """Raised where the peer closed, reset, or didn't read in its time. Everyday: not worth a line in
    the log."""


def is_leaving(error: BaseException) -> bool:
    """Whether an error only says that the peer is gone. (A nursery of the application's may have put it into a
    group.)"""
    return all(isinstance(each, PeerGone) for each in exceptions_of(error))


def shown_address(address: tuple[str, int] | None) -> str:
    if address is None:
        return "a local peer"
    return format_address(address) if address[1] else address[0]


class _NoSocket:
    """Stands in place of a socket for streams without one: deliveries are confirmed by the stream's end alone."""

    family = None

    def fileno(self) -> int:
        return -1


_NO_SOCKET: Final = _NoSocket()


class ReplyWaiting:
    """How long one connection's reply may keep us waiting for its peer to read: ``timeout`` seconds. Bytes that it took
    give time back, by ``rate``, up to that again. ``scopes``: of all waits, with when their time is over.
    """

    __slots__ = ("_allowance", "_begun", "_rate", "_scopes", "timeout")

    def __init__(self, timeout: float, rate: float, scopes: dict[trio.CancelScope, float]) -> None:
        self.timeout = timeout
        self._allowance = timeout
        self._begun = 0  # bytes
        self._rate = rate
        self._scopes = scopes

    def begun(self, size: int) -> trio.CancelScope:
        """The scope in which ``size`` bytes are to be sent."""
        end = trio.current_time() + self._allowance
        scope = trio.CancelScope(deadline=end)
        self._begun += size
        if self._begun > FITS:
            self._scopes[scope] = end
        return scope

    def sent_at_once(self, size: int) -> None:
        """So many bytes were sent, and nobody was waited for."""
        self._begun += size
        self._allowance = min(self.timeout, self._allowance + size / self._rate)

    def ended(self, scope: trio.CancelScope, size: int) -> None:
        """They were sent in ``scope``, or weren't."""
        end = scope.deadline
        self._scopes.pop(scope, None)
        self._allowance = min(self.timeout, max(0.0, end - trio.current_time()) + size / self._rate)

    @contextmanager
    def for_acknowledgement(self) -> Iterator[None]:
        """All was sent, and in the block its peer's side is to acknowledge it: for ``timeout`` seconds."""
        end = trio.current_time() + self.timeout
        with trio.CancelScope(deadline=end) as scope:
            self._scopes[scope] = end
            try:
                yield
            finally:
                del self._scopes[scope]


class Peer:
    """``stream`` is what to read from: plain, or through TLS. ``gone``: nothing can be sent any more, or nothing more
    may be. ``client``: whom a balancer made the connection for; None: nobody else. ``early``: what was received and
    not read yet. One task at a time.
    """

    __slots__ = ("_tls", "_waiting", "client", "early", "gone", "sock", "stream", "transport")

    def __init__(self, transport: trio.abc.Stream, waiting: ReplyWaiting) -> None:
        self.transport = transport
        self.stream = transport
        self.sock: Any = getattr(transport, "socket", _NO_SOCKET)  # sockets and their stand-ins alike
        self.gone = False
        self.client: tuple[str, int] | None = None
        self.early: bytes | bytearray = b""
        self._tls: TlsStream | None = None
        self._waiting = waiting

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the client, a port of 0 where it isn't known; None for a local client, and for one that is
        gone already.
        """
        return self.client or self.own_address

    @property
    def own_address(self) -> tuple[str, int] | None:
        """The address of the connection's other end, a balancer's where there is one."""
        try:
            return self.sock.getpeername()[:2] if self.sock.family in (AF_INET, AF_INET6) else None
        except OSError:
            return None

    def __str__(self) -> str:
        return shown_address(self.address)

    async def shake_hands(self, context: ssl.SSLContext) -> None:
        """Does the TLS handshake. Raises ``BrokenResourceError`` (``HandshakeRefused`` among them), ``OSError``."""
        tls = TlsStream(self.transport, context)
        await tls.do_handshake(self.take_early())
        if self.sock.family in (AF_INET, AF_INET6):
            # The agent's Nagle holds its request back until its last flight is acknowledged, and nothing of ours
            # carries that: 40 ms, without this. Asking before the handshake doesn't last.
            self.sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)
        self.stream = self._tls = tls

    def certificate_names(self) -> frozenset[str]:
        """The names in the client's certificate, see ``TlsStream``; none without TLS."""
        return frozenset() if self._tls is None else self._tls.certificate_names()

    async def hear(self) -> None:
        """Waits for the peer's first bytes, or its end, which whoever reads next is told, too."""
        if self.early:
            return
        with suppress(trio.BrokenResourceError):
            self.early = await self.transport.receive_some(RECEIVE_BYTES)

    async def receive_plain(self) -> bytes | bytearray:
        """What the peer sends, as it comes, before any TLS; empty at its end. Raises what its stream raises."""
        return self.take_early() or await self.transport.receive_some(RECEIVE_BYTES)

    def take_early(self) -> bytes | bytearray:
        data: bytes | bytearray
        data, self.early = self.early, b""
        return data

    def release(self) -> None:
        """Drops OpenSSL's objects: nothing more is read or sent."""
        self.stream = self.transport
        self._tls = None
        self.gone = True

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Sends bytes, as long as the peer reads them within the limits: see ``ReplyWaiting``. Raises ``PeerGone``."""
        if self.gone:
            raise PeerGone
        with memoryview(data) as view:
            start = 0
            while len(view) - start > SEND_BYTES + SHORT_REST:
                await self._send_piece(view[start : start + SEND_BYTES], last=False)
                start += SEND_BYTES
            await self._send_piece(view[start:], last=last)

    async def _send_piece(self, piece: memoryview, *, last: bool) -> None:
        """Sends a piece. Nearly always the socket takes it at once, and no limit of time is needed."""
        size = len(piece)
        try:
            data = piece if self._tls is None else self._tls.seal(piece, last=last)
            sent = self.transport.send_now(data) if isinstance(self.transport, SocketStream) else 0
            if sent == len(data):
                self._waiting.sent_at_once(size)
                return
            in_time = await self._sent_in_time(memoryview(data)[sent:], size)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.gone = True
            raise PeerGone from error
        finally:
            piece.release()
        if not in_time:
            self.gone = True
            raise PeerGone("it doesn't read")

    async def _sent_in_time(self, rest: memoryview, size: int) -> bool:
        """Sends what is left of ``size`` bytes, as soon as the peer has read others. Raises what the stream raises."""
        with rest, self._waiting.begun(size) as scope:
            try:
                await self.transport.send_all(rest)
            finally:
                self._waiting.ended(scope, size)
        return not scope.cancelled_caught

    async def has_ended(self) -> bool:
        """Waits for the peer's end and drops what the peer sends: true after an end in order, false after a reset."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self.stream.receive_some(RECEIVE_BYTES):
                pass
            return True
        self.gone = True
        return False

    async def confirmed(self) -> bool:
        """Whether everything sent has arrived: see ``DeliveryConfirmation``."""
        if self.gone:
            return False
        backoff = Backoff(DELIVERY_FIRST_WAIT, DELIVERY_LAST_WAIT)
        ended = False
        with self._waiting.for_acknowledgement():
            while not self.gone:
                unacknowledged = unacknowledged_bytes(self.sock)
                if unacknowledged == 0 or (ended and unacknowledged is None):
                    return True
                pause = backoff.next_pause()
                if ended:
                    # The peer closed its side, maybe without having seen the reply: then a reset is on its way.
                    self.gone = is_reset(self.sock)
                    await trio.sleep(pause)
                else:
                    with trio.move_on_after(pause):
                        ended = await self.has_ended()
        arrived = unacknowledged_bytes(self.sock) == 0
        if not arrived:
            self.gone = True
        return arrived

    def break_off(self, *, arrived: bool) -> bool:
        """Resets the connection, so that nothing that was sent and hasn't arrived ever does; returns False. Where it
        may have ``arrived``, and all of it has: does nothing and returns True."""
        if arrived and not self.gone and unacknowledged_bytes(self.sock) == 0:
            return True
        self.gone = True
        if self.sock is not _NO_SOCKET:
            with suppress(OSError):
                self.sock.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
        if callable(close := getattr(self.transport, "close", None)):  # a stream without one is closed soon
            close()
        return False

    @property
    def has_sent_more(self) -> bool:
        """Whether the peer has sent bytes that weren't read: closing now would reset the connection."""
        return unread_bytes(self.sock) > 0

    async def linger(self, spare: int) -> None:
        """Closes our direction, then reads and drops at most ``spare`` bytes, encrypted or not, until the peer is
        silent or gone.

        Closing with input unread is a reset, and a reset takes the reply away from a peer that hasn't read it yet:
        agents write all of their request before they read.
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if isinstance(self.transport, trio.abc.HalfCloseableStream):
                await self.transport.send_eof()  # a peer that reads to the end needn't wait for it
            while spare > 0:
                data: bytes | bytearray = b""
                with trio.move_on_after(LINGER_TIMEOUT):
                    data = await self.transport.receive_some(RECEIVE_BYTES)
                if not data:
                    return
                spare -= len(data)
