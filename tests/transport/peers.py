"""The other side of a connection, by hand: what daemons do, byte by byte."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/proc/self/fd"))


class Listening:
    """A stream socket file that listens. ``accept()`` gives the peer of the oldest connection, with a time limit."""

    def __init__(self, path: Path, backlog: int = 128) -> None:
        self.path = str(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(self.path)
        self.sock.listen(backlog)
        self._peers: list[socket.socket] = []

    def accept(self) -> socket.socket:
        self.sock.settimeout(10)
        peer, _ = self.sock.accept()
        peer.settimeout(10)
        self._peers.append(peer)
        return peer

    def close(self) -> None:
        for sock in (self.sock, *self._peers):
            sock.close()


@contextmanager
def listening(path: Path, backlog: int = 128) -> Iterator[Listening]:
    server = Listening(path, backlog)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def queue_socket(path: Path) -> Iterator[socket.socket]:
    """A bound datagram socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(10)
        yield sock


def receive_exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        assert more, f"the end after {len(data)} of {count} bytes"
        data += more
    return data


def receive_frame(peer: socket.socket) -> bytes:
    (size,) = struct.unpack("<I", receive_exactly(peer, 4))
    return receive_exactly(peer, size)


async def stream_frame(stream: trio.abc.ReceiveStream) -> bytes:
    """One frame's payload from a stream, read exactly."""

    async def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await stream.receive_some(count - len(data))
            assert more, f"the end after {len(data)} of {count} bytes"
            data += more
        return data

    (size,) = struct.unpack("<I", await exactly(4))
    return await exactly(size)
