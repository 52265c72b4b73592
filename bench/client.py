"""The load: many requests as agents make them, from one process that costs little itself.

    client.py < job.json > result.json

A new TLS connection for every request, Nagle's algorithm on, head and body in writes of their own, the end without
close_notify. The job: ``{"port", "requests": [[head, body], ...] (base64), "concurrency", "pause_ms": 0, "hold":
false}``; the result: ``{"seconds", "cpu", "latencies": [...], "statuses": {"200": n}, "bytes": reply's size}``. With
``hold`` every connection is kept open after its request, a line ``parked`` is printed, and all end when stdin does.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from wazuh_comms_trio.foundation.resources import raise_descriptor_limit

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
Steps = Generator[int, None, None]


class Request:
    """One connection: a generator that yields what it waits for."""

    def __init__(self, port: int, context: ssl.SSLContext, head: bytes, body: bytes, *, hold: bool) -> None:
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.raw.setblocking(False)
        self.port = port
        self.context = context
        self.head = head
        self.body = body
        self.hold = hold
        self.status = 0
        self.size = 0
        self.began = time.perf_counter()
        self.latency = 0.0
        self.sock: ssl.SSLSocket | None = None

    def run(self) -> Steps:
        if self.raw.connect_ex(("127.0.0.1", self.port)):
            yield WRITE
            if error := self.raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "connect")
        sock = self.context.wrap_socket(self.raw, do_handshake_on_connect=False)
        self.sock = sock
        while True:
            try:
                sock.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
        yield from self.send(sock, self.head)
        if self.body:
            yield from self.send(sock, self.body)
        if not self.hold:
            yield from self.receive(sock)
            self.latency = time.perf_counter() - self.began
            self.close()

    def send(self, sock: ssl.SSLSocket, data: bytes) -> Steps:
        view = memoryview(data)
        while view:
            try:
                view = view[sock.send(view) :]
            except ssl.SSLWantWriteError:
                yield WRITE
            except ssl.SSLWantReadError:
                yield READ

    def receive(self, sock: ssl.SSLSocket) -> Steps:
        data = b""
        missing: int | None = None
        while missing is None or missing > 0:
            try:
                piece = sock.recv(65536)
            except ssl.SSLWantReadError:
                yield READ
                continue
            if not piece:
                raise OSError("closed early")
            if missing is not None:
                missing -= len(piece)
                self.size += len(piece)
                continue
            data += piece
            head, end, rest = data.partition(b"\r\n\r\n")
            if end:
                self.status = int(head[9:12])
                start = head.lower().find(b"content-length:")
                length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
                missing = length - len(rest)
                self.size = len(rest)

    def close(self) -> None:
        sock = self.sock or self.raw
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


def tls_context() -> ssl.SSLContext:
    """Which takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def run(job: dict[str, Any]) -> dict[str, Any]:
    raise_descriptor_limit()
    context = tls_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    waiting = deque((base64.b64decode(head), base64.b64decode(body)) for head, body in job["requests"])
    epoll = select.epoll()
    pause = job.get("pause_ms", 0) / 1000
    running: dict[int, tuple[Request, Steps, int]] = {}
    done: list[Request] = []
    failures: Counter[str] = Counter()
    held: list[Request] = []

    def step(request: Request, steps: Steps, interest: int) -> None:
        fd = request.raw.fileno() if request.sock is None else request.sock.fileno()
        try:
            wanted = next(steps)
        except StopIteration:
            if interest:
                if request.hold:
                    epoll.unregister(fd)
                running.pop(fd, None)
            (held if request.hold else done).append(request)
        except OSError as error:
            if interest:
                running.pop(fd, None)
            failures[str(error)] += 1
            request.close()
        else:
            if not interest:
                epoll.register(fd, wanted)
            elif wanted != interest:
                epoll.modify(fd, wanted)
            running[fd] = (request, steps, wanted)

    began, cpu = time.perf_counter(), time.process_time()
    while waiting or running:
        while waiting and len(running) < job["concurrency"]:
            if pause:
                time.sleep(pause)
            head, body = waiting.popleft()
            request = Request(job["port"], context, head, body, hold=bool(job.get("hold")))
            step(request, request.run(), 0)
        for fd, _ in epoll.poll(10 if running else 0):
            step(*running[fd])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    if job.get("hold"):
        print("parked", flush=True)
        sys.stdin.read()
    return {
        "seconds": seconds,
        "cpu": cpu,
        "latencies": [request.latency for request in done],
        "statuses": dict(Counter(str(request.status) for request in done)),
        "bytes": max((request.size for request in done), default=0),
        "failures": dict(failures),
    }


def main() -> None:
    print(json.dumps(run(json.loads(sys.stdin.readline()))), flush=True)


if __name__ == "__main__":
    main()
