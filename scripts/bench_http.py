#!/usr/bin/env python3
"""What a request over HTTP on a Unix socket costs the processor, beside the standard library's http.client.

    scripts/bench http [--rounds 5] [--requests 2000] [--json]

A server that answers at once runs in a process of its own. Every round runs all contestants one after another, on one
kept connection and with a connection for each request; a figure is the median of the rounds' µs of CPU, and its ratio
to http.client's of the same run. httpx is among them where it is installed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import trio

from wazuh_comms_trio.transport import HTTPClient, HTTPRequest, db_agent_ids, open_http

BODY = json.dumps(list(range(1, 51))).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
RELEASE = "4.14.2"
PATH = "/v1/agents/ids"
CALL = db_agent_ids()
REQUEST = HTTPRequest("GET", PATH)
#: a multiple of http.client's CPU
TARGET = 1.5


def serve(path: str) -> None:
    """Answers every request alike until it is killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer_all, args=(connection,), daemon=True).start()


def answer_all(connection: socket.socket) -> None:
    data = b""
    with connection, suppress(OSError):
        while received := connection.recv(65536):
            data += received
            if data.endswith(b"\r\n\r\n"):
                data = b""
                connection.sendall(ANSWER)


class Plainest(http.client.HTTPConnection):
    """http.client over a Unix socket, as its documentation's readers write it."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def ask(self) -> Any:
        self.request("GET", PATH)
        return json.loads(self.getresponse().read())


def cost(once: Callable[[], object], count: int) -> float:
    begin = process_time()
    for _ in range(count):
        once()
    return (process_time() - begin) / count * 1e6


async def cost_async(once: Callable[[], Awaitable[object]], count: int) -> float:
    begin = process_time()
    for _ in range(count):
        await once()
    return (process_time() - begin) / count * 1e6


def plainest(path: str, count: int, kept: bool) -> float:
    if kept:
        return cost(Plainest(path).ask, count)

    def once() -> None:
        connection = Plainest(path)
        connection.ask()
        connection.close()

    return cost(once, count)


def plain_client(home: str, count: int, kept: bool) -> float:
    with HTTPClient("wdb-http", home=home, release=RELEASE) as client:
        if kept:
            return cost(lambda: client.call(CALL), count)
        return cost(lambda: CALL.result(client.send(REQUEST)), count)


async def trio_client(home: str, count: int, kept: bool) -> float:
    async with open_http("wdb-http", home=home, release=RELEASE) as pool:

        async def once() -> None:
            if kept:
                await pool.call(CALL)
            else:
                CALL.result(await pool.send(REQUEST))

        return await cost_async(once, count)


def httpx_client(path: str, count: int, kept: bool) -> float:
    import httpx  # type: ignore[import-not-found, unused-ignore]  # only measured where somebody has it

    def once() -> None:
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            client.get(f"http://localhost{PATH}").json()

    if not kept:
        return cost(once, count)
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        return cost(lambda: client.get(f"http://localhost{PATH}").json(), count)


@contextmanager
def running_server(path: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, __file__, "--serve", path], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def measure(rounds: int, count: int) -> dict[str, dict[str, float]]:
    """contestant -> kind of connection -> µs."""
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="wz") as home:
        path = Path(home, "queue/sockets/wdb-http.sock")
        path.parent.mkdir(parents=True)
        contestants: dict[str, Callable[[int, bool], float]] = {
            "http.client": lambda count, kept: plainest(os.fspath(path), count, kept),
            "HTTPClient": lambda count, kept: plain_client(home, count, kept),
            "open_http": lambda count, kept: trio.run(trio_client, home, count, kept),
        }
        if find_spec("httpx") is not None:
            contestants["httpx"] = lambda count, kept: httpx_client(os.fspath(path), count, kept)
        with running_server(os.fspath(path)):
            for _ in range(rounds):
                for kind, kept in (("kept connection", True), ("new connection", False)):
                    for name, contestant in contestants.items():
                        figures.setdefault(name, {}).setdefault(kind, []).append(contestant(count, kept))
    return {name: {kind: median(found) for kind, found in kinds.items()} for name, kinds in figures.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000, help="for each contestant and round (default: 2000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    figures = measure(options.rounds, options.requests)
    base = figures["http.client"]
    if options.json:
        print(json.dumps({"microseconds": figures, "target": TARGET}, indent=2))
        return 0
    for kind, floor in base.items():
        for name, kinds in figures.items():
            ratio = kinds[kind] / floor
            late = "  above the target" if name in ("HTTPClient", "open_http") and ratio > TARGET else ""
            print(f"{kind:16} {name:12} {kinds[kind]:7.1f} µs of CPU  {ratio:5.2f}{late}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
