"""Between a daemon and the indexer: passes HTTP messages on as they come, and keeps the requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bench.engine import content_length


@dataclass(frozen=True)
class Call:
    """One request as it was made; ``headers`` without those of the connection (Host) and the length."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | None


def is_compressed(call: Call) -> bool:
    return any(name.lower() == "content-encoding" for name, _ in call.headers)


def read_message(sock: socket.socket, pending: bytes, *, bodiless: bool = False) -> tuple[bytes, bytes, bytes] | None:
    """Head, body, and what was read beyond; None at the end. Of bodies, only those with a Content-Length."""
    while b"\r\n\r\n" not in pending:
        if not (piece := sock.recv(65536)):
            return None
        pending += piece
    head, _, rest = pending.partition(b"\r\n\r\n")
    if b"transfer-encoding" in head.lower():
        raise SystemExit(f"the relay knows no chunks: {head!r}")
    length = 0 if bodiless else content_length(head)
    body = bytearray(rest)
    while len(body) < length:
        if not (piece := sock.recv(65536)):
            return None
        body += piece
    return head, bytes(body[:length]), bytes(body[length:])


def to_call(head: bytes, body: bytes) -> Call:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    own = ("host", "content-length")
    return Call(method, target, [each for each in headers if each[0].lower() not in own], body or None)


class Relay:
    """Listens on ``port``. ``calls``: what was asked since it was last emptied, in the order of the answers."""

    def __init__(self, indexer_port: int) -> None:
        self.calls: list[Call] = []
        self._indexer_port = indexer_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(sock,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._indexer_port)) as server:
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = answered = b""
            while request := read_message(client, asked):
                head, body, asked = request
                server.sendall(head + b"\r\n\r\n" + body)
                reply = read_message(server, answered, bodiless=head.startswith(b"HEAD "))
                if reply is None:
                    return
                self.calls.append(to_call(head, body))
                reply_head, reply_body, answered = reply
                client.sendall(reply_head + b"\r\n\r\n" + reply_body)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def open_relay(indexer_port: int) -> Iterator[Relay]:
    relay = Relay(indexer_port)
    try:
        yield relay
    finally:
        relay.close()
