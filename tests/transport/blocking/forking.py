"""A program that forks after its clients were used: ``python -m tests.transport.blocking.forking HOME``.

Prints one JSON document: for each client the numbers of the connections by which parent and child were answered.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from wazuh_comms_trio.transport import HTTPClient, WazuhDBClient, WazuhServer, db_agent_groups, keystore_get

PLACES = ("queue/db/wdb", "queue/sockets/keystore", "queue/sockets/wdb-http.sock")


def serve(listeners: list[socket.socket]) -> NoReturn:
    """Answers each request with the number of its connection."""
    poll = select.epoll()
    known = {listener.fileno(): listener for listener in listeners}
    for fileno in known:
        poll.register(fileno, select.EPOLLIN)
    connections: dict[int, tuple[socket.socket, int]] = {}
    while True:
        for fileno, _ in poll.poll():
            if fileno in known:
                accepted, _ = known[fileno].accept()
                connections[accepted.fileno()] = accepted, sum(1 for _ in connections) + 1
                poll.register(accepted, select.EPOLLIN)
                continue
            connection, number = connections[fileno]
            request = connection.recv(65536)
            if not request:
                poll.unregister(fileno)  # it stays open, so that its number isn't given again
                continue
            connection.sendall(answer(request, number))


def answer(request: bytes, number: int) -> bytes:
    if request.startswith(b"GET "):
        body = json.dumps([str(number)]).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    stored = json.dumps({"status": "ok", "value": str(number)}).encode()
    payload = stored if request[4:].startswith(b"GET|") else b"ok %d" % number
    return struct.pack("<I", len(payload)) + payload


def in_child(work: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return json.load(pipe)


def main(home: Path) -> None:
    listeners = []
    for place in PLACES:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(home / place))
        listener.listen()
        listeners.append(listener)
    if not (server := os.fork()):
        serve(listeners)
    try:
        with ExitStack() as stack:
            db = stack.enter_context(WazuhDBClient(home=home, timeout=5))
            keystore = stack.enter_context(WazuhServer(home=home, release="5.0.0-beta3"))
            http = stack.enter_context(HTTPClient("wdb-http", home=home, release="4.14.2"))
            asked: dict[str, Callable[[], Any]] = {
                "db": lambda: db.query("global sql SELECT 1"),
                "keystore": lambda: int(keystore.call(keystore_get("indexer", "username")) or 0),
                "http": lambda: int(http.call(db_agent_groups(1))[0]),
            }
            numbers = {name: [ask(), ask(), in_child(ask), in_child(ask), ask()] for name, ask in asked.items()}
        print(json.dumps(numbers))
    finally:
        os.kill(server, 9)
        os.waitpid(server, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
