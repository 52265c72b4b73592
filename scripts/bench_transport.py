#!/usr/bin/env python3
"""How fast the transport library is, as ratios to the plainest program that does the same.

    scripts/bench transport [--rounds 5] [--seconds 0.5] [--json] [--only requests,frames,datagrams,import]

A fake daemon that takes 40 µs a query, or answers at once, runs in a process of its own; both processes are pinned,
each to a core of its own where there are two. Every round runs all contestants one after another, so that what disturbs
one disturbs its neighbours too; a figure is the median of the rounds' ratios to the plain program *of the same round*.
Absolute rates are printed to be looked at, not to be compared between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import trio
from bench_transport_peers import (
    AGENTS,
    COMMAND,
    QUERY,
    QUICK,
    REPEATS,
    STREAM,
    STREAM_BYTES,
    TASKS,
    asyncio_queries,
    plain_datagrams,
    plain_frames,
    plain_queries,
    plain_requests,
    rate,
    rate_async,
    serve_daemon,
    serve_queue,
)

from wazuh_comms_trio.transport import (
    WazuhAsyncProtocol,
    WazuhAsyncQueue,
    WazuhAsyncSocket,
    WazuhQueue,
    WazuhSocket,
    broadcast,
    open_pool,
    open_wazuh_db,
)

#: figure -> what it must reach, as a multiple of the plain program's rate
TARGETS = {
    "trio, one query after another: WazuhAsyncSocket": 0.5,
    "trio, one query after another: open_wazuh_db": None,
    "trio, 16 tasks on a connection": 1.0,
    "trio, 16 tasks on a pool": 1.0,
    "at once, one after another: open_wazuh_db": 1.0,
    "at once, 16 tasks: open_wazuh_db": 1.2,
    "at once, 16 tasks: open_wazuh_db, its buffers kept": None,
    "sync class": 0.9,
    "10 MB in frames of 64 kB": 0.8,
    "10 MB in frames of 4 kB": 0.8,
    "datagrams: sync class": 0.5,
    "datagrams: broadcast": 0.5,
    "datagrams: single awaited sends": 0.9,
}
IMPORT_TARGET_MS = 40.0
#: Of malloc.h, for mallopt.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Bytes: what glibc begins with, and the most it comes to.
MAPPED_FROM, KEPT_BELOW = 128 << 10, 32 << 20
FORBIDDEN_MODULES = ("trio", "msgspec", "quart")


# --- ours -------------------------------------------------------------------------------------------------------------


def sync_requests(path: str, seconds: float) -> float:
    with WazuhSocket(path) as sock:

        def once() -> None:
            sock.send(QUERY)
            sock.receive()

        return rate(once, seconds)


async def trio_socket(path: str, seconds: float) -> float:
    async with await WazuhAsyncSocket.from_path(path) as sock:

        async def once() -> None:
            await sock.send(QUERY)
            await sock.receive()

        return await rate_async(once, seconds)


async def trio_database(home: str, seconds: float) -> float:
    text = QUERY.decode()
    async with open_wazuh_db(home=home) as db:
        return await rate_async(lambda: db.query(text), seconds)


async def many_tasks(request: Callable[[bytes], Awaitable[object]], seconds: float) -> float:
    count = 0

    async def worker(deadline: float) -> None:
        nonlocal count
        while perf_counter() < deadline:
            await request(QUERY)
            count += 1

    begin = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(worker, begin + seconds)
    return count / (perf_counter() - begin)


async def trio_connection(path: str, seconds: float) -> float:
    async with await WazuhAsyncProtocol.from_path(path, pipelining=True) as connection:
        return await many_tasks(connection.request, seconds)


async def trio_pool(home: str, seconds: float) -> float:
    async with open_pool("wazuh-db", home=home) as pool:
        return await many_tasks(pool.request, seconds)


async def trio_quick(home: str, seconds: float) -> float:
    text = QUICK.decode()
    async with open_wazuh_db(home=home) as db:
        return await rate_async(lambda: db.query(text), seconds)


async def trio_quick_tasks(home: str, seconds: float) -> float:
    text = QUICK.decode()
    async with open_wazuh_db(home=home) as db:
        return await many_tasks(lambda _: db.query(text), seconds)


async def trio_frames(path: str, frame_bytes: int) -> float:
    async with await WazuhAsyncSocket.from_path(path) as sock:
        begin = perf_counter()
        await sock.send(STREAM + b" %d" % frame_bytes)
        while await sock.receive() != b"ok":
            pass
        return STREAM_BYTES / (perf_counter() - begin)


def sync_datagrams(path: str) -> float:
    with WazuhQueue(path) as queue:
        begin = perf_counter()
        for agent in AGENTS:
            queue.send_msg_to_agent(COMMAND, agent)
        return len(AGENTS) / (perf_counter() - begin)


async def trio_broadcast(path: str) -> float:
    async with await WazuhAsyncQueue.from_path(path) as queue:
        begin = perf_counter()
        report = await broadcast(queue, AGENTS, COMMAND)
        assert report.complete
        return len(AGENTS) / (perf_counter() - begin)


async def trio_datagrams(path: str) -> float:
    async with await WazuhAsyncQueue.from_path(path) as queue:
        begin = perf_counter()
        for agent in AGENTS:
            await queue.send_msg_to_agent(COMMAND, agent)
        return len(AGENTS) / (perf_counter() - begin)


# --- rounds -----------------------------------------------------------------------------------------------------------


class Figures:
    """Ratios and rates by name, round by round."""

    def __init__(self) -> None:
        self.ratios: dict[str, list[float]] = {}
        self.rates: dict[str, list[float]] = {}
        self._plain = 1.0

    def plain(self, name: str, value: float) -> None:
        self._plain = value
        self.rates.setdefault(name, []).append(value)

    def add(self, name: str, value: float) -> None:
        self.rates.setdefault(name, []).append(value)
        self.ratios.setdefault(name, []).append(value / self._plain)


def requests_round(figures: Figures, home: str, seconds: float) -> None:
    path = f"{home}/queue/db/wdb"
    figures.plain("plain socket", plain_requests(path, seconds))
    figures.add("sync class", sync_requests(path, seconds))
    figures.add("trio, one query after another: WazuhAsyncSocket", trio.run(trio_socket, path, seconds))
    figures.add("trio, one query after another: open_wazuh_db", trio.run(trio_database, home, seconds))
    figures.add("trio, 16 tasks on a connection", trio.run(trio_connection, path, seconds))
    figures.add("trio, 16 tasks on a pool", trio.run(trio_pool, home, seconds))


def quick_round(figures: Figures, home: str, seconds: float) -> None:
    """Where the daemon answers at once, what a query costs is the program's."""
    path = f"{home}/queue/db/wdb"
    figures.plain("at once: plain socket and json", plain_queries(path, seconds))
    figures.add("at once, one after another: open_wazuh_db", trio.run(trio_quick, home, seconds))
    for threshold, label in ((MAPPED_FROM, ""), (KEPT_BELOW, ", its buffers kept")):
        keep_blocks_below(threshold)
        figures.plain(f"at once: 16 asyncio connections{label}", asyncio.run(asyncio_queries(path, seconds)))
        figures.add(f"at once, 16 tasks: open_wazuh_db{label}", trio.run(trio_quick_tasks, home, seconds))


def keep_blocks_below(size: int) -> None:
    """asyncio reads into a new block of 256 KiB each time. glibc maps such a one anew for each read, until the process
    has freed a larger one; from then on it keeps them, and asyncio makes three times as many queries."""
    with suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, size)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * size)
        libc.malloc_trim(0)


def frames_round(figures: Figures, home: str) -> None:
    path = f"{home}/queue/db/wdb"
    for label, size in (("64 kB", 65536), ("4 kB", 4096)):
        figures.plain(f"plain read loop, frames of {label}", median(plain_frames(path, size) for _ in range(REPEATS)))
        value = median(trio.run(trio_frames, path, size) for _ in range(REPEATS))
        figures.add(f"10 MB in frames of {label}", value)


def datagrams_round(figures: Figures, home: str) -> None:
    path = f"{home}/queue/alerts/ar"
    figures.plain("raw send", median(plain_datagrams(path) for _ in range(REPEATS)))
    figures.add("datagrams: sync class", median(sync_datagrams(path) for _ in range(REPEATS)))
    figures.add("datagrams: broadcast", median(trio.run(trio_broadcast, path) for _ in range(REPEATS)))
    figures.add("datagrams: single awaited sends", median(trio.run(trio_datagrams, path) for _ in range(REPEATS)))


def import_times(rounds: int) -> dict[str, Any]:
    """Milliseconds that importing the sync class costs, and which of the heavy modules it brings along."""

    def run(code: str) -> tuple[float, str]:
        begin = perf_counter()
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return 1000 * (perf_counter() - begin), done.stdout

    statement = "import wazuh_comms_trio.transport.blocking.socket, sys"
    _, loaded = run(f"{statement}; print(*sys.modules)")
    costs = []
    for _ in range(2 * rounds + 1):
        nothing, _ = run("pass")
        ours, _ = run(statement)
        costs.append(ours - nothing)
    modules = [name for name in FORBIDDEN_MODULES if name in loaded.split()]
    return {"ms": median(costs), "target_ms": IMPORT_TARGET_MS, "modules": modules}


@contextmanager
def pinned_server(function: Callable[[str], None], path: str, cores: list[int]) -> Iterator[None]:
    """``function(path)`` in a child process on the last core, ourselves on the first."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if not child:
        try:
            os.sched_setaffinity(0, {cores[-1]})
            function(path)
        finally:
            os._exit(1)
    try:
        os.sched_setaffinity(0, {cores[0]})
        while not os.path.exists(path):
            os.sched_yield()
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def measure(rounds: int, seconds: float, only: set[str]) -> tuple[Figures, dict[str, Any] | None]:
    figures = Figures()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as home:
        if "datagrams" in only:
            with pinned_server(serve_queue, f"{home}/queue/alerts/ar", cores):
                for number in range(rounds):
                    print(f"datagrams, round {number + 1} of {rounds}", file=sys.stderr)
                    datagrams_round(figures, home)
        if only & {"requests", "frames"}:
            with pinned_server(serve_daemon, f"{home}/queue/db/wdb", cores):
                for number in range(rounds):
                    print(f"streams, round {number + 1} of {rounds}", file=sys.stderr)
                    if "requests" in only:
                        requests_round(figures, home, seconds)
                        quick_round(figures, home, seconds)
                    if "frames" in only:
                        frames_round(figures, home)
    os.sched_setaffinity(0, cores)
    return figures, import_times(rounds) if "import" in only else None


def report(figures: Figures, imports: dict[str, Any] | None) -> dict[str, Any]:
    """Everything as one document."""
    rows = {}
    for name, values in figures.rates.items():
        ratios = figures.ratios.get(name)
        row: dict[str, Any] = {"per_second": round(median(values))}
        if ratios:
            row |= {
                "ratio": round(median(ratios), 3),
                "lower_quartile": round(quartiles(ratios)[0], 3),
                "upper_quartile": round(quartiles(ratios)[1], 3),
                "target": TARGETS.get(name),
            }
            row["met"] = row["target"] is None or row["ratio"] >= row["target"]
        rows[name] = row
    document: dict[str, Any] = {"figures": rows}
    if imports is not None:
        imports["met"] = imports["ms"] <= imports["target_ms"] and not imports["modules"]
        document["import"] = imports
    return document


def quartiles(values: list[float]) -> tuple[float, float]:
    """The lower and the upper one."""
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, upper


def print_report(document: dict[str, Any]) -> None:
    print(f"{'':52}{'a second':>14}{'ratio':>8}{'quartiles':>16}{'target':>8}")
    for name, row in document["figures"].items():
        line = f"{name:52}{row['per_second']:>14,}"
        if "ratio" in row:
            spread = f"{row['lower_quartile']:.2f}-{row['upper_quartile']:.2f}"
            target = "" if row["target"] is None else f"{row['target']:.1f}"
            line += f"{row['ratio']:>8.2f}{spread:>16}{target:>8}{'' if row['met'] else '  MISSED'}"
        print(line)
    if imports := document.get("import"):
        brought = f", brings {', '.join(imports['modules'])}" if imports["modules"] else ""
        missed = "" if imports["met"] else "  MISSED"
        print(
            f"import of the sync class: {imports['ms']:.1f} ms, target {imports['target_ms']:.0f} ms{brought}{missed}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each contestant and round (default: 0.5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", default="requests,frames,datagrams,import", help="parts, separated by commas")
    arguments = parser.parse_args()
    document = report(*measure(arguments.rounds, arguments.seconds, set(arguments.only.split(","))))
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        print_report(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
