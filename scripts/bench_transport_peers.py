"""What scripts/bench transport measures against: fake daemons in processes of their own, and the plainest programs that
do the same as the library."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter

QUERY = b"global sql select name from agent where id = 1"
ANSWER = b'ok [{"name":"agent-1"}]'
QUERY_TIME = 40e-6
#: The same, answered at once.
QUICK = b"global sql select name from agent where id = 2"
QUICK_FRAME = struct.pack("<I", len(QUICK)) + QUICK
STREAM = b"agent 001 package get"
STREAM_BYTES = 10_000_000
TASKS = 16
#: A broadcast and a 10 MB answer take milliseconds: their median of so many is one round's.
REPEATS = 15
AGENTS = [f"{number:03}" for number in range(1, 2001)]
COMMAND = "syscheck restart"


# --- the daemon's side, in a process of its own -----------------------------------------------------------------------


def serve_daemon(path: str) -> None:
    """Frames in, frames out, for any number of connections, 40 µs of work for each query; ``agent`` queries stream
    rows."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(128)
    os.rename(f"{path}.new", path)  # only now: whoever sees it connects
    frame = struct.pack("<I", len(ANSWER)) + ANSWER
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, tuple[socket.socket, bytearray]] = {}
    while True:
        for fileno, _ in poll.poll():
            if fileno == listener.fileno():
                accepted, _ = listener.accept()
                connections[accepted.fileno()] = accepted, bytearray()
                poll.register(accepted, select.EPOLLIN)
                continue
            connection, buffer = connections[fileno]
            try:
                data = connection.recv(65536)
                if data == QUICK_FRAME and not buffer:
                    connection.sendall(frame)  # else the daemon would be what is measured
                    continue
                buffer += data
                if data:
                    answer_all(connection, buffer, frame)
            except OSError:
                data = b""
            if not data:
                poll.unregister(fileno)
                del connections[fileno]
                connection.close()


def answer_all(connection: socket.socket, buffer: bytearray, frame: bytes) -> None:
    while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack_from("<I", buffer)[0]):
        request = bytes(buffer[4 : 4 + size])
        del buffer[: 4 + size]
        if request.startswith(STREAM):
            stream_rows(connection, int(request.split()[-1]))
            continue
        end = perf_counter() + (0 if request == QUICK else QUERY_TIME)
        while perf_counter() < end:
            pass
        connection.sendall(frame)


def stream_rows(connection: socket.socket, frame_bytes: int) -> None:
    row = b"due " + b"x" * (frame_bytes - 4)
    frame = struct.pack("<I", len(row)) + row
    for _ in range(STREAM_BYTES // frame_bytes):
        connection.sendall(frame)
    connection.sendall(struct.pack("<I", 2) + b"ok")


def serve_queue(path: str) -> None:
    """Reads datagrams and forgets them. Never sleeps: waking it would be charged to whoever sends slowly enough."""
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(path)
    reader.setblocking(False)
    while True:
        with suppress(BlockingIOError):
            reader.recv(65536)


# --- the plain programs -----------------------------------------------------------------------------------------------


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = sock.recv(count)
    while len(data) < count:
        data += sock.recv(count - len(data))
    return data


def plain_requests(path: str, seconds: float) -> float:
    """``sendall`` and two ``recv``: queries a second."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        frame = struct.pack("<I", len(QUERY)) + QUERY

        def once() -> None:
            sock.sendall(frame)
            sock.recv(struct.unpack("<I", sock.recv(4))[0])

        return rate(once, seconds)


def plain_queries(path: str, seconds: float) -> float:
    """What the framework does for a query: text to bytes, ``sendall``, two ``recv``, the status split off, JSON."""
    text = QUICK.decode()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

        def once() -> object:
            query = text.encode()
            sock.sendall(struct.pack("<I", len(query)) + query)
            size = struct.unpack("<I", sock.recv(4))[0]
            _, _, rows = receive_exactly(sock, size).decode().partition(" ")
            return json.loads(rows)

        return rate(once, seconds)


async def asyncio_queries(path: str, seconds: float) -> float:
    """The same in so many asyncio tasks, each with a connection of its own."""
    text = QUICK.decode()
    count = 0

    async def worker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deadline: float) -> None:
        nonlocal count
        while perf_counter() < deadline:
            query = text.encode()
            writer.write(struct.pack("<I", len(query)) + query)
            size = struct.unpack("<I", await reader.readexactly(4))[0]
            _, _, rows = (await reader.readexactly(size)).decode().partition(" ")
            json.loads(rows)
            count += 1

    connections = [await asyncio.open_unix_connection(path) for _ in range(TASKS)]
    begin = perf_counter()
    await asyncio.gather(*(worker(*connection, begin + seconds) for connection in connections))
    took = perf_counter() - begin
    for _, writer in connections:
        writer.close()
    return count / took


def plain_frames(path: str, frame_bytes: int) -> float:
    """Frame after frame: bytes a second."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        query = STREAM + b" %d" % frame_bytes
        begin = perf_counter()
        sock.sendall(struct.pack("<I", len(query)) + query)
        while receive_exactly(sock, struct.unpack("<I", receive_exactly(sock, 4))[0]) != b"ok":
            pass
        return STREAM_BYTES / (perf_counter() - begin)


def plain_datagrams(path: str) -> float:
    """Ready datagrams, raw ``send``: datagrams a second."""
    datagrams = [f"(msg_to_agent) [] N!S {agent} {COMMAND}".encode() for agent in AGENTS]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(path)
        begin = perf_counter()
        for datagram in datagrams:
            sock.send(datagram)
        return len(AGENTS) / (perf_counter() - begin)


def rate(once: Callable[[], object], seconds: float) -> float:
    count, begin = 0, perf_counter()
    while (now := perf_counter()) < begin + seconds:
        for _ in range(50):
            once()
        count += 50
    return count / (now - begin)


async def rate_async(once: Callable[[], Awaitable[object]], seconds: float) -> float:
    count, begin = 0, perf_counter()
    while (now := perf_counter()) < begin + seconds:
        for _ in range(50):
            await once()
        count += 50
    return count / (now - begin)
