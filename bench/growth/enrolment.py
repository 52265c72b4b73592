"""What it costs to enrol an agent, and how many a second workers enrol together.

    scripts/bench enrolment [--quick] [--json]

An agent's enrolment is two requests, each a new TLS connection: its user's log-in, of which a node remembers that the
password was right, and the call that adds it, with a PBKDF2 for the agent's key, an fsync, and a line of the audit log.
Beside each is the floor that reads and answers as many bytes, in the pauses that hashing makes, as in `scripts/bench`.
Then as many agents as come: one worker on one core, and a worker on each core; the client costs little.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import yaml

from bench.daemon import FLOOR_REQUESTS, KEY, pbkdf2_ms, write_config
from bench.processes import Payload, Server, free_port, middle, run_round, start_daemon, start_floor
from bench.workloads import AGENT_HEADERS, compact
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import throwaway_certificate

GOAL = 6.0
USER, PASSWORD = "operator", "a password"
#: Enough that each worker always has some to hash, whoever took more of them.
CONCURRENCY = 32


def post(path: str, authorization: str, body: bytes) -> Payload:
    lines = f"POST {path} HTTP/1.1\r\n{AGENT_HEADERS}Authorization: {authorization}\r\n"
    return f"{lines}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body


def log_in() -> Payload:
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return post("/security/user/authenticate", f"Basic {basic}", b"")


def additions(token: str, count: int) -> list[Payload]:
    """Of agents that nobody knows, described as agents describe themselves."""
    system = {"name": "Ubuntu", "type": "Linux", "version": "24.04"}
    host = {"architecture": "x86_64", "hostname": "h1", "ip": ["10.0.0.5"], "os": system}
    made = []
    for number in range(count):
        about = {"id": str(uuid4()), "name": f"a{number}", "key": KEY, "type": "Endpoint", "version": "6.0.0"}
        made.append(post("/agents", f"Bearer {token}", compact({**about, "host": host})))
    return made


@contextmanager
def serving(folder: Path, workers: int, cpus: Sequence[int] | None = None) -> Iterator[Server]:
    """A daemon on these cores; the server's port is the one where agents enrol."""
    folder.mkdir()
    path = write_config(folder)
    config = yaml.safe_load(path.read_text())
    port = free_port()
    config["communications_api"] |= {
        "workers": workers,
        "enrollment": {"host": "127.0.0.1", "port": port, "users": {USER: hash_key(PASSWORD)}},
    }
    path.write_text(yaml.safe_dump(config))
    with start_daemon(path, folder / "daemon.log", cpus=cpus) as daemon:
        yield Server(daemon.process, port)


def session(port: int) -> str:
    """A user's, from the daemon."""
    (head, _) = log_in()
    authorization = head.decode().partition("Authorization: ")[2].partition("\r\n")[0]
    url = f"https://127.0.0.1:{port}/security/user/authenticate"
    asked = Request(url, method="POST", headers={"Authorization": authorization})
    context = ssl._create_unverified_context()
    with urlopen(asked, context=context) as reply:
        token: str = json.load(reply)["data"]["token"]
    return token


def cost(port: Server, make: Callable[[int], list[Payload]], status: int, rounds: int, n: int, log: Path, *,
         hashes: bool) -> dict[str, Any]:  # fmt: skip
    """CPU of one request in floors, without the hash."""
    certificate = throwaway_certificate()
    reply_bytes = run_round(port, make(10), 1, status).reply_bytes
    ours, floors, hashed = [], [], []
    with start_floor(certificate.cert, certificate.key, status=status, body_bytes=reply_bytes, log=log) as floor:
        run_round(floor, make(10), 1, status)
        for _ in range(rounds):
            payloads = make(n)
            hashed.append(pbkdf2_ms())
            floors.append(run_round(floor, payloads * -(-FLOOR_REQUESTS // n), 1, status, pause_ms=hashed[-1]))
            ours.append(run_round(port, payloads, 1, status, pause_ms=0.0 if hashes else hashed[-1]))
    extra = median(hashed) if hashes else 0.0
    ours_ms, floor_ms = (middle(each, lambda one: one.cpu_ms) for each in (ours, floors))
    return {"cpu_ms": ours_ms, "floor_cpu_ms": floor_ms, "pbkdf2_ms": extra, "floors": (ours_ms - extra) / floor_ms}


def together(folder: Path, workers: int, cpus: Sequence[int], n: int, rounds: int) -> float:
    """Agents a second."""
    with serving(folder, workers, cpus) as daemon:
        token = session(daemon.port)
        run_round(daemon, additions(token, 20), CONCURRENCY, 201)
        return median(run_round(daemon, additions(token, n), CONCURRENCY, 201).rate for _ in range(rounds))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench enrolment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    rounds, n = (2, 30) if options.quick else (5, 150)
    available = sorted(os.sched_getaffinity(0))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name:
        folder = Path(name)
        with serving(folder / "cost", 1) as daemon:
            token = session(daemon.port)
            log = folder / "floor.log"
            results["log_in"] = cost(daemon, lambda count: [log_in()] * count, 200, rounds, n, log, hashes=False)
            results["add"] = cost(daemon, lambda count: additions(token, count), 201, rounds, n, log, hashes=True)
        results["one_worker"] = together(folder / "one", 1, available[:1], n, rounds)
        if len(available) > 1:
            count = len(available)
            results["workers"] = count
            results["all_workers"] = together(folder / "all", count, available, n * count, rounds)
    print(json.dumps(results, indent=2) if options.json else table(results))
    return 0


def table(results: dict[str, Any]) -> str:
    lines = [f"{'':<12}{'floor ms':>9}{'ours ms':>9}{'PBKDF2':>9}{'floors':>8}"]
    for name, title in (("log_in", "log-in"), ("add", "addition")):
        one = results[name]
        lines.append(
            f"{title:<12}{one['floor_cpu_ms']:>9.2f}{one['cpu_ms']:>9.2f}{one['pbkdf2_ms']:>9.2f}{one['floors']:>8.2f}"
        )
    lines.append(f"An addition should cost a PBKDF2 and {GOAL:g} floors at most.")
    lines.append(f"One worker on one core enrols {results['one_worker']:.1f} agents a second.")
    if "workers" in results:
        gain = results["all_workers"] / results["one_worker"]
        lines.append(f"{results['workers']} workers enrol {results['all_workers']:.1f}, {gain:.2f} times as many.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
