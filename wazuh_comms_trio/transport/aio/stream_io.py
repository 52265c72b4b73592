"""Bytes out and in for the trio classes, over a Unix socket of our own or over any trio stream.

All kinds have the same methods and one promise: after a send that was cancelled or failed, ``sent_in_part`` tells
whether any byte of it may have gone out. The socket of our own is driven without a layer in between, which is where the
speed comes from: a request costs one ``send``, one wait and one ``recv``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Any, Final, Protocol

import trio

from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed
from wazuh_comms_trio.transport.paths import (
    PeerCredentials,
    peer_credentials,
)
from wazuh_comms_trio.transport.translate import reason_of
from wazuh_comms_trio.wire.framing import LONG_READ_BYTES, READ_BYTES, FrameDecoder

# After a read that was filled to the brim, so many more bytes are read without waiting first, as far as they are there.
# Then other tasks get a turn: after a millisecond or two.
_UNWAITED_BYTES: Final = 8 * 1024 * 1024


class ByteIO(Protocol):
    """A connection's reads and writes, as the trio classes need them. One sender beside one receiver, which their users
    see to."""

    #: A send was cancelled or failed after its first byte may have gone out.
    sent_in_part: bool
    #: How many bytes may be read without waiting first; 0 or less: none.
    unwaited_bytes: int

    def send_nowait(self, data: bytes) -> int:
        """Send what goes out at once; returns how many bytes that was, 0 for a stream that can only wait."""
        ...

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Bytes that are there already, ``b""`` at the end of the stream; None when nothing is, or this stream can't
        tell."""
        ...

    async def send_rest(self, data: bytes, sent: int) -> None:
        """Send what is left after the first ``sent`` bytes. Cancelled or failed half-way, ``sent_in_part`` is set."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of it. A checkpoint. Cancelled before anything went out nothing happened, else ``sent_in_part`` is
        set."""
        ...

    async def receive_some(self, max_bytes: int) -> bytes:
        """At least one byte, ``b""`` at the end of the stream. A checkpoint. Cancelled: nothing was taken."""
        ...

    def read_size(self, decoder: FrameDecoder, header: Struct) -> int:
        """How many bytes to ask for next, in portions that suit."""
        ...

    def is_quiet(self) -> bool:
        """Whether nothing has come, not even the end. False where that can't be seen."""
        ...

    def long_frame_nowait(self, decoder: FrameDecoder, header: Struct) -> bytes | None:
        """The next frame's payload, where it follows a long one, is long itself and is there: past the decoder, so that
        nothing is copied. None otherwise, and what was read was fed.
        """
        ...

    def peer_ended(self) -> bool:
        """Whether the peer has ended the connection, as far as can be seen without reading."""
        ...

    def peer_credentials(self) -> PeerCredentials:
        """The process at the other end. ``OSError`` for what isn't a Unix socket."""
        ...

    async def abort(self) -> None:
        """End it at once, whatever is under way. Never waits, is never cancelled."""
        ...

    async def aclose(self) -> None:
        """Close in an orderly way. A checkpoint. Closed even if cancelled."""
        ...


class SocketIO:
    """A connected stream socket of the standard library. It belongs to this object."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._begin(sock)

    def _begin(self, sock: Any) -> None:
        self.sock: Any = sock
        self.sent_in_part: bool = False
        self.unwaited_bytes: int = 0
        #: is told before the socket is closed
        self.on_close: Callable[[SocketIO], None] | None = None
        #: the descriptor, as long as it is open
        self.fileno: int = sock.fileno()
        poll = select.poll()
        poll.register(self.fileno, select.POLLIN | select.POLLRDHUP)
        #: ``poll(0)`` is ``[]`` while nothing has come, not even the end; of an open socket
        self.poll: Callable[[int], list[tuple[int, int]]] = poll.poll

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            sent: int = self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self.translate(exc, "sending") from exc
        if not sent and data:
            raise TransportBroken(1014, "sending: not a byte was taken")  # else it would be tried for ever
        return sent

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        try:
            data: bytes = self.sock.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self.translate(exc, "receiving") from exc
        return data

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.send_nowait(data)
        if sent == len(data):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self.send_rest(data, sent)

    async def send_rest(self, data: bytes, sent: int) -> None:
        self.sent_in_part = sent > 0
        with memoryview(data) as view:
            while sent < len(data):
                try:
                    await trio.lowlevel.wait_writable(self.sock)
                except (trio.ClosedResourceError, OSError) as exc:
                    raise self._not_waited(exc) from None
                try:
                    sent += self.send_nowait(view[sent:])
                except TransportBroken as exc:
                    exc.bytes_sent = sent
                    raise
                self.sent_in_part = sent > 0
        self.sent_in_part = False

    async def receive_some(self, max_bytes: int) -> bytes:
        # Waiting first is the checkpoint. Data is seldom there already, and when it is, this costs no more than trying
        # first and yielding afterwards. Except after a read that was filled to the brim: more is likely to follow.
        if self.unwaited_bytes > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
            data = self.receive_nowait(LONG_READ_BYTES if max_bytes == READ_BYTES else max_bytes)
            if data is not None:
                self.unwaited_bytes -= len(data)
                return data
            self.unwaited_bytes = 0
        while True:
            try:
                await trio.lowlevel.wait_readable(self.sock)
            except (trio.ClosedResourceError, OSError) as exc:
                raise self._not_waited(exc) from None
            data = self.receive_nowait(max_bytes)
            if data is not None:
                if len(data) == max_bytes:
                    self.unwaited_bytes = _UNWAITED_BYTES
                return data

    def read_size(self, decoder: FrameDecoder, header: Struct) -> int:
        return decoder.read_size(header)

    def is_quiet(self) -> bool:
        return self.sock.fileno() != -1 and not self.poll(0)

    def long_frame_nowait(self, decoder: FrameDecoder, header: Struct) -> bytes | None:
        head = payload = None
        size = 0
        try:
            head = self.sock.recv(header.size)
            if size := decoder.long_size(header, head):
                payload = self.sock.recv(size)
        except BlockingIOError:
            self.unwaited_bytes = 0
        except OSError as exc:
            raise self.translate(exc, "receiving") from exc
        if payload is not None and len(payload) == size:
            self.unwaited_bytes -= size
            return bytes(payload)
        for data in (head, payload):
            if data is not None:
                decoder.feed(data)
        return None

    def _not_waited(self, exc: Exception) -> TransportClosed | TransportBroken:
        if isinstance(exc, OSError):
            return self.translate(exc, "waiting")
        return TransportClosed(1014, "this socket was closed by another task")

    def translate(self, exc: OSError, doing: str) -> TransportClosed | TransportBroken:
        kind = TransportClosed if self.sock.fileno() == -1 else TransportBroken
        return kind(1014, f"{doing}: {reason_of(exc)}")

    def peer_ended(self) -> bool:
        return _peer_closed(self.sock.fileno())

    def peer_credentials(self) -> PeerCredentials:
        return peer_credentials(self.sock)

    async def abort(self) -> None:
        self.close()

    def close(self) -> None:
        """As ``abort``, from where nothing can be awaited."""
        if self.sock.fileno() != -1:
            if self.on_close is not None:
                self.on_close(self)
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

    async def aclose(self) -> None:
        await self.abort()
        await trio.lowlevel.checkpoint()


class SocketStreamIO(SocketIO):
    """A ``trio.SocketStream``, TCP or Unix, driven as a socket of our own. It belongs to this object."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._begin(_Descriptor(stream.socket))

    def peer_credentials(self) -> PeerCredentials:
        if self.sock.family != socket.AF_UNIX:
            raise OSError(errno.ENOTSUP, "only a Unix socket knows its peer's credentials")
        return peer_credentials(self.sock.socket)

    def close(self) -> None:
        self.sock.socket.close()


class _Descriptor:
    """trio's socket has no calls that don't wait, so these go to its descriptor, which is non-blocking."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.socket: trio.socket.SocketType = sock
        self.family: int = sock.family
        self.fileno: Callable[[], int] = sock.fileno

    def send(self, data: bytes | memoryview) -> int:
        return os.write(self.socket.fileno(), data)

    def recv(self, max_bytes: int) -> bytes:
        return os.read(self.socket.fileno(), max_bytes)


class StreamIO:
    """Any other :class:`trio.abc.Stream`: TLS, in memory. It belongs to this object.

    Such a stream doesn't tell how much of a cancelled send went out, so one that had begun counts as half-way.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream: trio.abc.Stream = stream
        self.sent_in_part: bool = False
        self.unwaited_bytes: int = 0
        self._socket: trio.socket.SocketType | None = _socket_of(stream)

    def send_nowait(self, data: bytes | memoryview) -> int:
        return 0

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        return b"" if self.peer_ended() else None

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.send_rest(data, 0)

    async def send_rest(self, data: bytes, sent: int) -> None:
        self.sent_in_part = True
        try:
            await self.stream.send_all(data)
        except trio.BusyResourceError:
            self.sent_in_part = False
            raise
        except trio.ClosedResourceError as exc:
            raise TransportClosed(1014, f"sending: {str(exc) or 'the stream is closed'}") from exc
        except trio.BrokenResourceError as exc:
            broken = TransportBroken(1014, f"sending: {str(exc.__cause__ or exc) or 'the peer is gone'}")
            if not _in_memory(self.stream):
                broken.bytes_sent = len(data)  # perhaps: it must not be sent a second time
            raise broken from exc
        self.sent_in_part = False

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self.stream.receive_some(max_bytes))
        except trio.ClosedResourceError as exc:
            raise TransportClosed(1014, f"receiving: {str(exc) or 'the stream is closed'}") from exc
        except trio.BrokenResourceError as exc:
            raise TransportBroken(1014, f"receiving: {str(exc.__cause__ or exc) or 'the peer is gone'}") from exc

    def read_size(self, decoder: FrameDecoder, header: Struct) -> int:
        # Every read is a wait here: as few as can be.
        return LONG_READ_BYTES if decoder.missing(header) > READ_BYTES else READ_BYTES

    def is_quiet(self) -> bool:
        return False

    def long_frame_nowait(self, decoder: FrameDecoder, header: Struct) -> bytes | None:
        return None

    def peer_ended(self) -> bool:
        return self._socket is not None and _peer_closed(self._socket.fileno())

    def peer_credentials(self) -> PeerCredentials:
        raise OSError(errno.ENOTSUP, "only a Unix socket knows its peer's credentials")

    async def abort(self) -> None:
        # Cancelled from the beginning: trio's streams then close without waiting for the peer. The shield keeps the
        # caller's own cancellation out, which is often why we are here.
        with trio.CancelScope(shield=True) as scope:
            scope.cancel()
            with suppress(Exception):
                await self.stream.aclose()

    async def aclose(self) -> None:
        with suppress(trio.BrokenResourceError):  # the peer left first; closed all the same
            await self.stream.aclose()


def over_stream(stream: trio.abc.Stream) -> ByteIO:
    """The fitting kind for ``stream``, which from now on belongs to it."""
    return SocketStreamIO(stream) if isinstance(stream, trio.SocketStream) else StreamIO(stream)


def _socket_of(stream: object) -> trio.socket.SocketType | None:
    """The socket at the bottom of a stack of streams, such as TLS over TCP."""
    while stream is not None and not isinstance(stream, trio.SocketStream):
        stream = getattr(stream, "transport_stream", None)
    return stream.socket if stream is not None else None


def _in_memory(stream: object) -> bool:
    """Whether this is one of trio's streams for tests, which take a message whole or not at all."""
    testing = sys.modules.get("trio.testing")
    sender = stream.send_stream if isinstance(stream, trio.StapledStream) else stream
    return testing is not None and isinstance(sender, testing.MemorySendStream)


def _peer_closed(fileno: int) -> bool:
    """Whether the peer has closed or shut down its side, even if unread bytes are still there."""
    if fileno == -1:
        return True
    poll = select.poll()
    poll.register(fileno, select.POLLRDHUP)
    return bool(poll.poll(0))
