"""Agents that are parked: one process, a connection each. What comes is noted with its time.

    parked.py < job.json

The job, one line: ``{"port", "requests": [head, ...]}``. When all are parked a line ``parked`` is printed, and from
then on one line for each reply: the request's number, ``time.monotonic()`` when its last byte was there, and its
status. It ends when all are answered, or stdin ends.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from contextlib import suppress

from wazuh_comms_trio.foundation.resources import raise_descriptor_limit

#: Nobody waits for them: the daemon reads a request some milliseconds after it was sent.
SETTLE_S = 1.0


def connect(port: int, context: ssl.SSLContext, head: bytes) -> ssl.SSLSocket:
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60))
    sock.sendall(head)
    sock.setblocking(False)
    return sock


def main() -> None:
    job = json.loads(sys.stdin.readline())
    raise_descriptor_limit()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    epoll = select.epoll()
    waiting: dict[int, tuple[int, ssl.SSLSocket, bytearray]] = {}
    for number, head in enumerate(job["requests"]):
        sock = connect(job["port"], context, head.encode())
        waiting[sock.fileno()] = (number, sock, bytearray())
        epoll.register(sock.fileno(), select.EPOLLIN)
    time.sleep(SETTLE_S)
    print("parked", flush=True)
    epoll.register(0, select.EPOLLIN)
    while waiting:
        lines = []
        for fd, _ in epoll.poll():
            if fd == 0:
                return
            number, sock, data = waiting[fd]
            ended = False
            try:
                while piece := sock.recv(65536):
                    data += piece
                ended = True
            except ssl.SSLWantReadError:
                pass
            except OSError:
                ended = True
            if ended or is_whole(data):
                status = data[9:12].decode() or "none"
                lines.append(f"{number} {time.monotonic():.6f} {status}")
                epoll.unregister(fd)
                del waiting[fd]
                with suppress(OSError):
                    sock.close()
        if lines:
            print("\n".join(lines), flush=True)


def is_whole(data: bytearray) -> bool:
    head, end, rest = data.partition(b"\r\n\r\n")
    start = head.lower().find(b"content-length:")
    return bool(end) and start >= 0 and len(rest) >= int(head[start + 15 :].split(b"\r\n", 1)[0])


if __name__ == "__main__":
    main()
