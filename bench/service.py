"""What the service does with several workers: start, delivery, stop, idling, and an event loop that isn't late.

    scripts/bench service [--quick] [--json] [--only start,idle,delivery,stop,lag]

Embedded backends. Nothing is pinned to a core. Times are from outside: of the daemon's log, and of bytes at an agent.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import trio
import yaml

from bench.daemon import KEY, enrol, write_config
from bench.processes import HERE, START_LIMIT_S, cpu_seconds, job, open_client, resident_bytes
from bench.workloads import Agent, polls, root
from wazuh_comms_trio.backends import interfaces as base
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.services.authentication.tokens import TokenKeys

NAMES = ("start", "idle", "delivery", "stop", "lag")

#: What each should be.
FIRST_S, ALL_S = 1.0, 2.0
IDLE_PERCENT = 0.5
DELIVERY_P99_MS = 20.0
STOP_S = 3.0
LAG_MS = 50.0


@dataclass
class Service:
    """A daemon with several workers. ``served``: seconds from its start to each worker's readiness."""

    process: subprocess.Popen[str]
    began: float
    folder: Path
    port: int = 0
    served: list[float] = field(default_factory=list)
    announced: threading.Event = field(default_factory=threading.Event)
    complete: threading.Event = field(default_factory=threading.Event)
    log: list[str] = field(default_factory=list)

    def follow(self, workers: int) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(r"agents are served on https://\S+?:(\d+)", line):
                self.port = int(match[1])
            if " serves (process " in line or (workers == 1 and "commands are taken" in line):
                self.served.append(time.monotonic() - self.began)
            if "commands are taken" in line:
                self.announced.set()
            if len(self.served) == workers and self.announced.is_set():
                self.complete.set()

    def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.folder / "c.sock"))
        connection.request(method, path, body)
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        connection.close()
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {answer}")
        return answer


@contextmanager
def start(folder: Path, workers: int) -> Iterator[Service]:
    """Serving with all its workers."""
    config = folder / "wazuh-server.yml"
    document = yaml.safe_load(config.read_text())
    document["communications_api"]["workers"] = workers
    config.write_text(yaml.safe_dump(document))
    program = Path(sys.executable).parent / "wazuh-comms-apid"
    began = time.monotonic()
    process = subprocess.Popen(
        [str(program), "--config", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    service = Service(process, began, folder)
    reader = threading.Thread(target=service.follow, args=(workers,))
    reader.start()
    try:
        if not service.complete.wait(START_LIMIT_S):
            raise SystemExit("the daemon didn't start:\n" + "".join(service.log))
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()


def with_tokens(folder: Path, agents: Sequence[Agent]) -> list[Agent]:
    """As the daemon would sign them: thousands of log-ins take minutes of hashing."""
    settings = load_config(folder / "wazuh-server.yml").config.communications_api
    keys = TokenKeys.from_pem(settings.ssl.key.read_bytes())
    database = sqlite3.connect(folder / "state" / "state.db")
    hashes = dict(database.execute("SELECT id, key_hash FROM agents"))
    database.close()
    made = []
    for agent in agents:
        stored = base.Agent(agent.uuid, "", hashes[agent.uuid])
        made.append(Agent(agent.uuid, KEY, keys.mint(agent.uuid, stored.fingerprint, time.time())))
    return made


@contextmanager
def park(service: Service, agents: Sequence[Agent]) -> Iterator[subprocess.Popen[str]]:
    heads = [head.decode() for head, _ in polls(agents, len(agents))]
    client = subprocess.Popen(
        [sys.executable, str(HERE / "parked.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        client.stdin.write(json.dumps({"port": service.port, "requests": heads}) + "\n")
        client.stdin.flush()
        if client.stdout.readline() != "parked\n":
            raise SystemExit("the agents couldn't be parked")
        yield client
    finally:
        client.stdin.close()
        client.stdout.close()
        client.wait(30)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure_start(folder: Path, rounds: int) -> dict[str, float]:
    firsts, wholes = [], []
    for _ in range(rounds):
        with start(folder, 4) as service:
            firsts.append(service.served[0])
            wholes.append(service.served[-1])
    return {"first_s": median(firsts), "all_s": median(wholes), "limit_first_s": FIRST_S, "limit_all_s": ALL_S}


def measure_idle(folder: Path, seconds: float) -> dict[str, float]:
    with start(folder, 4) as service:
        time.sleep(3)
        before = cpu_seconds(service.process.pid)
        time.sleep(seconds)
        used = cpu_seconds(service.process.pid) - before
    return {"percent_of_a_core": 100 * used / seconds, "limit": IDLE_PERCENT}


def measure_delivery(folder: Path, agents: Sequence[Agent], posts: int) -> dict[str, float]:
    """One post after the other, each for an agent at random."""
    with start(folder, 2) as service, park(service, agents) as client:
        assert client.stdout is not None
        latencies = []
        for turn, number in enumerate(random.Random(1).sample(range(len(agents)), posts)):
            command = {
                "document_id": f"{turn}-{time.time_ns()}",
                "target": {"type": "agent", "id": agents[number].uuid},
                "action": {"name": "restart"},
            }
            body = json.dumps({"commands": [command]}).encode()
            began = time.monotonic()
            answer = service.ask("POST", "/api/v1/commands", body)
            if not answer["commands"]:
                raise SystemExit("a command wasn't delivered")
            got, moment, status = client.stdout.readline().split()
            if (int(got), status) != (number, "200"):
                raise SystemExit(f"agent {got} was answered {status}, and {number} was meant")
            latencies.append((float(moment) - began) * 1000)
    return {
        "parked": len(agents),
        "p50_ms": percentile(latencies, 0.5),
        "p99_ms": percentile(latencies, 0.99),
        "limit_ms": DELIVERY_P99_MS,
    }


def measure_stop(folder: Path, agents: Sequence[Agent]) -> dict[str, float]:
    with start(folder, 2) as service, park(service, agents) as client:
        assert client.stdout is not None
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        statuses = [client.stdout.readline().split()[2] for _ in agents]
        status = service.process.wait(60)
        took = time.monotonic() - began
    if status or set(statuses) != {"408"}:
        raise SystemExit(f"status {status}, answers {set(statuses)}")
    return {"parked": len(agents), "seconds": took, "limit_s": STOP_S}


def measure_lag(folder: Path, agents: Sequence[Agent], seconds: float) -> dict[str, float]:
    """The worst lateness that a worker notes in any ten seconds while 100 requests a second come, and what a parked
    poll takes of its memory."""
    with start(folder, 1) as service:
        time.sleep(2)
        before = resident_bytes(service.process.pid)
        with park(service, agents), open_client() as client:
            time.sleep(11)  # what parking them made late is not meant
            kilobytes = (resident_bytes(service.process.pid) - before) / len(agents) / 1000
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(job(service.port, root(agents, int(100 * seconds)), 8, pause_ms=9))
            client.stdin.close()
            lags = []
            while client.poll() is None:
                lags.append(service.ask("GET", "/api/v1/status")["workers"][0]["lag"] * 1000)
                time.sleep(1)
            client.stdout.read()
    return {"parked": len(agents), "kb_each": kilobytes, "worst_ms": max(lags), "limit_ms": LAG_MS}


def some_of(names: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """An option's type: some of these, with commas between them."""

    def chosen(text: str) -> Sequence[str]:
        wanted = text.split(",")
        if unknown := [name for name in wanted if name not in names]:
            raise argparse.ArgumentTypeError(
                f"there is no {', '.join(map(repr, unknown))}; there are {', '.join(names)}"
            )
        return wanted

    return chosen


def print_results(results: dict[str, dict[str, float]], *, as_json: bool) -> None:
    """A line for each title, or one JSON document."""
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for title, figures in results.items():
        print(f"{title:<10}" + "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench service", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer agents and rounds: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--only", type=some_of(NAMES), default=NAMES, help="of " + ", ".join(NAMES))
    options = parser.parse_args()
    wanted = options.only
    share = 10 if options.quick else 1
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name:
        folder = Path(name)
        config = write_config(folder)
        agents: list[Agent] = []
        if {"delivery", "stop", "lag"} & set(wanted):
            agents = with_tokens(folder, trio.run(enrol, config, 10_000 // share))
        half = agents[: len(agents) // 2]
        if "start" in wanted:
            results["start"] = measure_start(folder, 2 if options.quick else 5)
        if "idle" in wanted:
            results["idle"] = measure_idle(folder, 5 if options.quick else 30)
        if "delivery" in wanted:
            results["delivery"] = measure_delivery(folder, half, len(half) // 10)
        if "stop" in wanted:
            results["stop"] = measure_stop(folder, agents)
        if "lag" in wanted:
            results["lag"] = measure_lag(folder, agents, 5 if options.quick else 30)
    print_results(results, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
