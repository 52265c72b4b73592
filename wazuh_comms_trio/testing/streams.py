"""In-memory connections that behave like TCP: bounded buffers, orderly ends, resets, and a network that can stop
delivering.

A ``MemoryListener`` is a ``trio.abc.Listener``; ``await listener.connect()`` gives the client's end of a new
connection. Both ends are plain ``trio.abc.HalfCloseableStream``s: TLS goes on top of them as it does on sockets. Each
end has a ``.socket``, a stand-in for what servers ask of a real one (addresses, options, the count of unacknowledged
bytes).

No threads and no real time are involved, so everything here works under trio's mock clock.
"""

from __future__ import annotations

import socket
from itertools import count
from operator import index
from struct import pack

import trio
from trio.abc import HalfCloseableStream, Listener

__all__ = ["MemoryListener", "MemorySocket", "MemoryStream", "memory_connection"]

#: What one direction holds before ``send_all`` waits for the reader: two socket buffers' worth.
BUFFER_BYTES = 256 * 1024
RECEIVE_BYTES = 65536
#: Connections that wait to be accepted; a client waits (as with a full backlog) beyond that.
BACKLOG = 4096

Address = tuple[str, int]


class _Direction:
    """Bytes on their way from one end to the other: written -> (acknowledged) delivered -> read."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.delivered: bytearray = bytearray()
        self.held: bytearray = bytearray()  # sent, not acknowledged: the network doesn't deliver
        self.lost: int = 0  # bytes that will never be acknowledged; a kernel counts them on after a reset
        self.holding: bool = False
        self.ended: bool = False  # the writer said EOF (it is delivered behind the bytes)
        self.reset: bool = False  # the connection is gone: reads and writes fail
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    @property
    def room(self) -> int:
        return self.limit - len(self.delivered) - len(self.held)

    def write(self, data: memoryview) -> None:
        (self.held if self.holding else self.delivered).extend(data)
        self.changed.unpark_all()

    def deliver_held(self) -> None:
        self.holding = False
        self.delivered += self.held
        self.held.clear()
        self.changed.unpark_all()

    def break_off(self) -> None:
        """A reset: what wasn't acknowledged is gone; what was delivered can still be read, then reading fails."""
        self.lost += len(self.held)
        self.held.clear()
        self.reset = True
        self.changed.unpark_all()


class MemorySocket:
    """What servers ask of a connection's socket. Options that are set are kept in ``options``, by ``(level,
    option)``.
    """

    family = socket.AF_INET
    type = socket.SOCK_STREAM

    def __init__(self, stream: MemoryStream, local: Address, remote: Address) -> None:
        self._stream = stream
        self._local = local
        self._remote = remote
        self.options: dict[tuple[int, int], int | bytes] = {}

    def getsockname(self) -> Address:
        return self._local

    def getpeername(self) -> Address:
        return self._remote

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int) -> int | bytes:
        return self.options.get((level, option), 0)

    @property
    def resets_when_closed(self) -> bool:
        """``SO_LINGER`` is on, with no time."""
        option = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER))
        return isinstance(option, bytes) and pack("ii", 1, 0) == option

    def fileno(self) -> int:
        """-1: there is no descriptor behind it."""
        return -1

    def unacknowledged_bytes(self) -> int:
        """What the kernel's ``SIOCOUTQ`` is for a real socket: bytes sent that the peer's side hasn't acknowledged."""
        return self._stream.unacknowledged_bytes

    def tcp_state(self) -> int:
        """The first byte of the kernel's ``TCP_INFO``: 1 (established), 7 (it was reset) or 8 (the other end has said
        that it is done); 0 once this end is closed."""
        return self._stream.tcp_state


class _Sending:
    """One task at a time is in it. No generator: it is entered for each piece that is sent."""

    __slots__ = ("_is_taken",)

    def __init__(self) -> None:
        self._is_taken = False

    def __enter__(self) -> None:
        if self._is_taken:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False


class MemoryStream(HalfCloseableStream):
    """One end of an in-memory connection.

    ``send_all`` waits while the buffer is full (a peer that doesn't read). ``aclose`` with unread input resets the
    connection, as TCP does. Errors are trio's: ``BrokenResourceError`` after a reset, ``ClosedResourceError`` after
    one's own ``aclose``, ``BusyResourceError`` for a second task in the same direction. Cancelled, ``send_all`` may
    have sent a part, ``receive_some`` has taken nothing.
    """

    def __init__(self, outgoing: _Direction, incoming: _Direction, local: Address, remote: Address) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._closed = False
        self._sending = _Sending()
        self._receiving = False
        self.socket: MemorySocket = MemorySocket(self, local, remote)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "reset" if self._incoming.reset else "open"
        return f"<MemoryStream {self.socket.getsockname()} -> {self.socket.getpeername()} {state}>"

    @property
    def unacknowledged_bytes(self) -> int:
        """Sent by this end and not yet acknowledged by the other's side."""
        return len(self._outgoing.held) + self._outgoing.lost

    @property
    def tcp_state(self) -> int:
        incoming = self._incoming
        if self._closed:
            return 0
        if incoming.reset:
            return 7
        return 8 if incoming.ended and not incoming.holding else 1

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._put(data)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _put(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all, and waits only where there is no room; no checkpoint where there is."""
        with self._sending, memoryview(data) as rest:
            start = 0
            while True:
                self._check_can_send()
                if start == len(rest):
                    break
                if (room := self._outgoing.room) > 0:
                    with rest[start : start + room] as piece:
                        self._outgoing.write(piece)
                        start += len(piece)
                else:
                    await self._outgoing.changed.park()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        with self._sending:
            while True:
                self._check_can_send()
                if self._outgoing.room > 0:
                    return
                await self._outgoing.changed.park()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        with self._sending:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if not self._outgoing.reset:
                self._outgoing.ended = True
                self._outgoing.changed.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = RECEIVE_BYTES if max_bytes is None else index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be >= 1")
        await trio.lowlevel.checkpoint()
        return await self._take(limit)

    async def _take(self, limit: int) -> bytes:
        """What has arrived, as soon as there is something; no checkpoint where that is so already."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream was closed")
                if arrived := self._incoming.delivered:
                    data = bytes(arrived[:limit])
                    del arrived[:limit]
                    self._incoming.changed.unpark_all()
                    return data
                if self._incoming.reset:
                    raise trio.BrokenResourceError("connection reset by peer")
                if self._incoming.ended and not self._incoming.held:
                    return b""
                await self._incoming.changed.park()
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """An orderly end behind what was sent; a reset, as with TCP, when input was left unread or ``SO_LINGER`` says
        so."""
        if self._closed:
            return
        self._closed = True
        if self._incoming.delivered or self._incoming.held or self.socket.resets_when_closed:
            self._outgoing.break_off()
        else:
            self._outgoing.ended = True
        # What the other end sends from now on meets a closed socket.
        self._incoming.delivered.clear()
        self._incoming.break_off()
        self._outgoing.changed.unpark_all()

    # --- what a network does ------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Breaks the connection off at once, in both directions (RST)."""
        self._closed = True
        self._outgoing.break_off()
        self._incoming.break_off()

    def fall_silent(self) -> None:
        """From now on nothing reaches this end and nothing it sends arrives: a laptop that went to sleep. What the
        other end sends stays unacknowledged there.
        """
        self._incoming.holding = True
        self._outgoing.holding = True

    def wake_up(self) -> None:
        """Ends ``fall_silent``: what was on its way arrives."""
        self._incoming.deliver_held()
        self._outgoing.deliver_held()

    # ------------------------------------------------------------------------------------------------------------------

    def _check_can_send(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._outgoing.reset:
            raise trio.BrokenResourceError("connection reset by peer")
        if self._outgoing.ended:
            raise trio.ClosedResourceError("can't send after send_eof")


def memory_connection(
    client: Address = ("127.0.0.1", 49152), server: Address = ("127.0.0.1", 27000), *, buffer_bytes: int = BUFFER_BYTES
) -> tuple[MemoryStream, MemoryStream]:
    """The client's and the server's end of a new connection."""
    up, down = _Direction(buffer_bytes), _Direction(buffer_bytes)
    return MemoryStream(up, down, client, server), MemoryStream(down, up, server, client)


class MemoryListener(Listener[MemoryStream]):
    """Accepts in-memory connections. ``address`` is what the server's ends call themselves."""

    def __init__(self, address: Address = ("127.0.0.1", 27000), *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.address = address
        self._buffer_bytes = buffer_bytes
        self._ports = count(49152)
        self._send, self._receive = trio.open_memory_channel[MemoryStream](BACKLOG)

    async def connect(self, host: str = "127.0.0.1") -> MemoryStream:
        """The client's end of a new connection, from ``host``. Like ``connect`` on a socket it doesn't wait to be
        accepted. Raises ``OSError`` when the listener is closed.
        """
        client, server = memory_connection((host, next(self._ports)), self.address, buffer_bytes=self._buffer_bytes)
        try:
            await self._send.send(server)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionRefusedError(111, "Connection refused") from None
        return client

    async def accept(self) -> MemoryStream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        """Connections that were not accepted are reset."""
        while True:
            try:
                self._receive.receive_nowait().reset()
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        await self._receive.aclose()
