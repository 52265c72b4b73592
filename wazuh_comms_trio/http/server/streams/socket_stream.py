"""Accepted sockets that yield to the event loop only where they have to wait.

trio's own ``SocketStream`` takes a turn on every call, whether or not there is something to wait for, and is built for
several tasks at once. An agent's request is a whole connection, of some eight calls: about 40 µs of what it costs.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, notify_closing, wait_readable, wait_writable

from wazuh_comms_trio.http.server.streams.keepalive import idle_times, is_tcp, set_idle_time

__all__ = ["SocketListener", "SocketStream"]

#: Calls in a row without waiting, after which other tasks get a turn.
CALLS_PER_YIELD: Final = 8
#: ``struct tcp_info`` of a listening socket: ``tcpi_unacked`` and ``tcpi_sacked``.
QUEUE_INFO: Final = struct.Struct("=24xII")
#: Errors of a connection that failed before it was accepted, not of the listener.
TRANSIENT: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)


class SocketStream(trio.abc.HalfCloseableStream):
    """A connected, non-blocking stream socket. One task at a time. Errors are trio's, with the kernel's as the cause.

    Unlike other streams it needn't be a checkpoint: only when it has to wait, and on every eighth call. Cancelled while
    sending, a part may have been sent; while receiving, nothing is lost.
    """

    __slots__ = ("_left", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._left = CALLS_PER_YIELD

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._yield_at_times()
        while True:
            try:
                return self.socket.recv(max_bytes or 65536)
            except BlockingIOError:
                self._left = CALLS_PER_YIELD
                await wait_readable(self.socket)
            except OSError as error:
                raise self._translated(error) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._yield_at_times()
        with memoryview(data) as rest:
            start = 0
            while start < len(rest):
                try:
                    with rest[start:] as piece:
                        start += self.socket.send(piece)
                except BlockingIOError:
                    self._left = CALLS_PER_YIELD
                    await wait_writable(self.socket)
                except OSError as error:
                    raise self._translated(error) from error

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Sends what the socket takes at once; returns how many bytes that was. None of them when it is other tasks'
        turn: ``send_all`` lets them have it."""
        if self._left <= 1:
            return 0
        self._left -= 1
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        try:
            await wait_writable(self.socket)
        except OSError as error:
            raise self._translated(error) from error

    async def send_eof(self) -> None:
        await checkpoint_if_cancelled()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._translated(error) from error

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            notify_closing(self.socket)
            self.socket.close()

    async def _yield_at_times(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._left = CALLS_PER_YIELD
            await checkpoint()

    def _translated(self, error: OSError) -> Exception:
        if self.socket.fileno() < 0:
            return trio.ClosedResourceError("this socket was already closed")
        return trio.BrokenResourceError(f"socket connection broken: {error}")


class SocketListener(trio.abc.Listener[SocketStream]):
    """Accepts for a listener of trio's, on a descriptor of its own for the same socket. ``aclose`` closes both,
    ``close`` only its own.
    """

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.socket = socket.socket(fileno=os.dup(listener.socket.fileno()))
        self.socket.setblocking(False)
        self._left = CALLS_PER_YIELD
        self._idle_times = idle_times() if is_tcp(self.socket) else None

    @property
    def is_pressed(self) -> bool:
        """Whether the last connections were all there already when they were asked for."""
        return self._left <= 1

    def queue(self) -> tuple[int, int]:
        """How many connections wait in the kernel's queue, and how many may. Of other sockets than TCP's it isn't
        known: 0, 0.
        """
        if self._idle_times is None:
            return 0, 0
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, QUEUE_INFO.size)
        waiting, most = QUEUE_INFO.unpack(info)
        return int(waiting), int(most)

    async def accept(self) -> SocketStream:
        """Waits for a connection. Raises what ``accept`` of a socket raises, but for the failures of a single
        connection."""
        self._left -= 1
        if self._left <= 0:
            self._left = CALLS_PER_YIELD
            await checkpoint()
        while (stream := self.accept_nowait()) is None:
            self._left = CALLS_PER_YIELD
            await wait_readable(self.socket)
        return stream

    def accept_nowait(self) -> SocketStream | None:
        """A connection of the queue; None: none waits there. Raises as ``accept`` does."""
        sock = self.take_nowait()
        return None if sock is None else self.stream(sock)

    def take_nowait(self) -> socket.socket | None:
        """As ``accept_nowait``, of a connection that may never be served: for ``stream``, or to be closed."""
        while True:
            try:
                return self.socket.accept()[0]
            except BlockingIOError:
                return None
            except OSError as error:
                if self.socket.fileno() < 0:
                    raise trio.ClosedResourceError("this listener was closed") from error
                if error.errno not in TRANSIENT:
                    raise

    def stream(self, sock: socket.socket) -> SocketStream:
        sock.setblocking(False)
        if self._idle_times is not None:
            set_idle_time(sock, next(self._idle_times))
        return SocketStream(sock)

    async def aclose(self) -> None:
        self.close()
        await self._listener.aclose()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            notify_closing(self.socket)
            self.socket.close()
