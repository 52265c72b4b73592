"""Small stateful requests beside big ones: what an agent with five events waits while four others send 12 000 each.

    scripts/bench beside [--json] [--seconds N]

Embedded backends, one worker, pinned to a core; all agents on the other one. A small request comes every 10 ms (or as
soon as the one before is answered), over a connection of its own. The agents that send big packets do it all the time,
each packet with documents of its own; each has to be answered 200.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import count
from multiprocessing import Queue, get_context
from pathlib import Path
from typing import Any

import trio

from bench.client import tls_context
from bench.daemon import enrol, log_in, write_config
from bench.processes import Payload, Server, cores, start_daemon
from bench.workloads import Agent, compact, metadata, request, stateful

SENDERS = 4
EVENTS = 12_000
SMALL_EVENTS = 5
PAUSE_S = 0.01
GOAL = 10.0
"""How many times what it is alone the p99 of small requests may be."""

_numbers = count()


def big_packet(agent: Agent) -> Payload:
    """Quickly made: it shares a core with whoever measures."""
    package = {"name": "zlib1g", "version": "1:1.3.dfsg-3.1ubuntu2", "architecture": "amd64"}
    more = {"description": "compression library - runtime", "size": 163840, "type": "deb"}
    data = compact({"@timestamp": "2025-03-11T19:12:36.629Z", "package": package | more})
    header = b'{"id":"%040x","module":"inventory","collector":"packages","operation":"create"}\n' + data + b"\n"
    first = next(_numbers) * EVENTS + (1 << 100)
    lines = [header % number for number in range(first, first + EVENTS)]
    return request("POST", "/api/v1/events/stateful", agent.token, metadata(agent) + b"".join(lines))


def send(port: int, payload: Payload, context: ssl.SSLContext) -> float:
    """Seconds until the answer is there, which has to be a 200."""
    began = time.perf_counter()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=120)) as sock:
        sock.sendall(payload[0])
        sock.sendall(payload[1])
        head, _, rest = b"", b"", b""
        while b"\r\n\r\n" not in head:
            if not (data := sock.recv(65536)):
                raise SystemExit("a connection was closed early")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        if head[9:12] != b"200":
            raise SystemExit(f"not answered 200: {head!r}")
        start = head.lower().find(b"content-length:")
        missing = int(head[start + 15 :].split(b"\r\n", 1)[0]) - len(rest)
        while missing > 0:
            if not (data := sock.recv(1 << 20)):
                raise SystemExit("a connection was closed early")
            missing -= len(data)
    return time.perf_counter() - began


def send_small(port: int, agents: Sequence[Agent], until: float) -> list[float]:
    """Latencies in ms, sorted."""
    context, latencies, turn = tls_context(), [], 0
    while (now := time.perf_counter()) < until:
        [payload] = stateful(SMALL_EVENTS)([agents[turn % len(agents)]], 1)
        latencies.append(send(port, payload, context) * 1000)
        turn += 1
        time.sleep(max(0.0, now + PAUSE_S - time.perf_counter()))
    return sorted(latencies)


def send_big(port: int, agents: Sequence[Agent], seconds: float, results: Queue[list[float]]) -> None:
    """A process of its own: how long each packet took."""
    os.nice(5)
    context, took, until = tls_context(), [], time.perf_counter() + seconds

    def send_all(agent: Agent) -> None:
        while time.perf_counter() < until:
            took.append(send(port, big_packet(agent), context))

    senders = [threading.Thread(target=send_all, args=(agent,)) for agent in agents]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    results.put(sorted(took))


def measure(server: Server, small: Sequence[Agent], big: Sequence[Agent], seconds: float) -> dict[str, Any]:
    send_small(server.port, small, time.perf_counter() + 1)
    alone = send_small(server.port, small, time.perf_counter() + seconds)
    spawn = get_context("spawn")
    results = spawn.Queue()
    sender = spawn.Process(target=send_big, args=(server.port, big, seconds + 1, results))
    sender.start()
    while not is_busy(server):
        time.sleep(0.1)
    cpu, began = server.cpu, time.perf_counter()
    beside = send_small(server.port, small, time.perf_counter() + seconds - 1)
    busy = (server.cpu - cpu) / (time.perf_counter() - began)
    took = results.get()
    sender.join()
    p99, p99_beside = percentile(alone, 0.99), percentile(beside, 0.99)
    return {
        "requests": len(beside),
        "p50_ms": percentile(alone, 0.5),
        "p99_ms": p99,
        "p50_beside_ms": percentile(beside, 0.5),
        "p99_beside_ms": p99_beside,
        "ratio": p99_beside / p99,
        "goal": GOAL,
        "big_packets": len(took),
        "big_packet_s": percentile(took, 0.5),
        "events_per_second": len(took) * EVENTS / (seconds + 1),
        "busy": busy,
    }


def is_busy(server: Server) -> bool:
    before = server.cpu
    time.sleep(0.1)
    return server.cpu - before > 0.03


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure_beside(seconds: float) -> dict[str, Any]:
    everywhere = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name:
        folder = Path(name)
        config = write_config(folder)
        agents = trio.run(enrol, config, 20 + SENDERS)
        with start_daemon(config, folder / "daemon.log") as server:
            agents = trio.run(log_in, server.port, agents)
            os.sched_setaffinity(0, {cores()[1]})
            try:
                return measure(server, agents[SENDERS:], agents[:SENDERS], seconds)
            finally:
                os.sched_setaffinity(0, everywhere)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench beside", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two measurements")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure_beside(options.seconds)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
