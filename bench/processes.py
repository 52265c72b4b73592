"""Servers and the load client as processes, each on a core of its own, and what they cost."""

from __future__ import annotations

import base64
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
START_LIMIT_S = 30.0

Payload = tuple[bytes, bytes]  # head, body


def cores() -> tuple[int, int]:
    """The servers' and the client's; the same one where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def pinned(*chosen: int) -> Callable[[], None]:
    def pin() -> None:
        os.sched_setaffinity(0, chosen)

    return pin


@contextmanager
def repeating(step: Callable[[], object], pause: float) -> Iterator[None]:
    """Calls ``step`` again and again, in a thread, with ``pause`` seconds before each call, while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(pause):
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def processes_under(pid: int) -> list[int]:
    """The process and everything it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            for child in (task / "children").read_text().split():
                found += processes_under(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system, of all threads, ended ones too, and of all processes under it."""
    total = 0
    for each in processes_under(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])  # utime, stime, and those of children it waited for
    return total / TICKS


def resident_bytes(pid: int) -> int:
    total = 0
    for each in processes_under(pid):
        match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{each}/status").read_text(), re.MULTILINE)
        total += int(match[1]) * 1024 if match else 0
    return total


@dataclass(frozen=True)
class Server:
    """A server that serves on ``port``."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)


@contextmanager
def start(command: Sequence[str], *, log: Path, cpus: Sequence[int] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    pin = pinned(*(cpus or cores()[:1]))
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=pin)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def start_daemon(config: Path, log: Path, *, cpus: Sequence[int] | None = None) -> Iterator[Server]:
    """On the servers' core, or on ``cpus``."""
    program = Path(sys.executable).parent / "wazuh-comms-apid"
    with start([str(program), "--config", str(config)], log=log, cpus=cpus) as process:
        pattern = re.compile(r"agents are served on https://\S+?:(\d+)")
        deadline = time.monotonic() + START_LIMIT_S
        while (match := pattern.search(log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the daemon didn't start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(process, int(match[1]))


@contextmanager
def start_floor(
    cert: Path, key: Path, *, status: int, body_bytes: int, log: Path, cpus: Sequence[int] | None = None
) -> Iterator[Server]:
    """On the servers' core, or on ``cpus``."""
    port = free_port()
    command = [sys.executable, str(HERE / "floor.py"), str(port), str(cert), str(key)]
    with start([*command, "--status", str(status), "--body-bytes", str(body_bytes)], log=log, cpus=cpus) as process:
        deadline = time.monotonic() + START_LIMIT_S
        while not is_listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the floor didn't start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(process, port)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def is_listening(port: int) -> bool:
    """Without connecting: the floor would count it."""
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )


# --- load


def job(
    port: int, payloads: Sequence[Payload], concurrency: int, *, hold: bool = False, pause_ms: float = 0.0
) -> bytes:
    requests = [[base64.b64encode(part).decode() for part in payload] for payload in payloads]
    made = {"port": port, "requests": requests, "concurrency": concurrency, "hold": hold, "pause_ms": pause_ms}
    return json.dumps(made).encode() + b"\n"


def open_client(core: int | None = None) -> subprocess.Popen[bytes]:
    """On ``core``; by default the client's."""
    client_core = cores()[1] if core is None else core
    return subprocess.Popen(
        [sys.executable, str(HERE / "client.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=pinned(client_core),
    )


@dataclass(frozen=True)
class Round:
    cpu_ms: float  # a request
    client_cpu_ms: float
    rate: float
    latencies_ms: Sequence[float]  # sorted
    reply_bytes: int

    def percentile(self, share: float) -> float:
        return self.latencies_ms[min(len(self.latencies_ms) - 1, int(share * len(self.latencies_ms)))]


def run_round(
    server: Server,
    payloads: Sequence[Payload],
    concurrency: int,
    status: int,
    *,
    pause_ms: float = 0.0,
    core: int | None = None,
) -> Round:
    """One round, with a pause before each request, the client on ``core``. Anything but ``status`` ends the bench: a
    fast error is no result.
    """
    gc.collect()
    before = server.cpu
    with open_client(core) as client:
        output, _ = client.communicate(job(server.port, payloads, concurrency, pause_ms=pause_ms))
    cpu = server.cpu - before
    result: dict[str, Any] = json.loads(output)
    if result["failures"] or set(result["statuses"]) != {str(status)}:
        raise SystemExit(f"expected {status} only: {result['statuses']} {result['failures']}")
    latencies = sorted(1000 * latency for latency in result["latencies"])
    count = len(payloads)
    return Round(
        1000 * cpu / count, 1000 * result["cpu"] / count, count / result["seconds"], latencies, result["bytes"]
    )


def middle(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return median(value(each) for each in rounds)
