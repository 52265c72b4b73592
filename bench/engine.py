"""A minimal engine on a Unix socket: takes whatever comes and answers at once. It costs little, and isn't measured.

python -m bench.engine SOCKET
"""

from __future__ import annotations

import socket
import sys

import trio

PIECE = 256 * 1024
SCANNED = b'{"data":[]}'
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
SCAN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(SCANNED), SCANNED)


async def handle(sock: trio.socket.SocketType) -> None:
    """One connection; bodies with a Content-Length only, one request after another."""
    space = memoryview(bytearray(PIECE))
    with sock:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                if not (piece := await sock.recv(PIECE)):
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            missing = content_length(head)
            taken = min(missing, len(data))
            missing, data = missing - taken, data[taken:]
            while missing:
                if not (size := await sock.recv_into(space[: min(missing, PIECE)])):
                    return
                missing -= size
            await sock.send(SCAN if b"/scan" in head.split(b"\r\n", 1)[0] else TAKEN)


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(path: str) -> None:
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listener.bind(path)
    listener.listen(1024)
    async with trio.open_nursery() as nursery:
        while True:
            sock, _ = await listener.accept()
            nursery.start_soon(handle, sock)


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
