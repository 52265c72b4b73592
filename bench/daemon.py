"""What the daemon costs, as multiples of the floor: about the least that a Trio program can spend on such a request.

    scripts/bench [--quick] [--json] [--rounds 5] [--only NAME[,NAME...]] [--parked 5000]

Every request is a new TLS connection, as agents make them; EC P-256 certificate, embedded backends. The servers are
pinned to one core, the client to the other. For each workload a floor of its own reads and answers as many bytes; its
rounds and the daemon's alternate, and the medians are compared. CPU is user + system of all server processes, threads
included. Absolute figures mean nothing on another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import trio
import yaml

from bench.processes import (
    Round,
    Server,
    cores,
    job,
    middle,
    open_client,
    resident_bytes,
    run_round,
    start_daemon,
    start_floor,
)
from bench.workloads import FILE_BYTES, WORKLOADS, Agent, Workload, polls, stateless
from wazuh_comms_trio.backends import interfaces as base
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key, key_matches
from wazuh_comms_trio.testing import AgentClient, connect_tcp, throwaway_certificate

CONCURRENCY = 8
BUSY_AGENTS = 20
FLOOR_REQUESTS = 400
ROUNDS_DIFFER = 0.2
NAGLE_MS = 3.0
NAGLE_REQUESTS = 200
POLL_KB = (45.0, 40.0)
KEY = "0123456789abcdefghijklmnopqrstuv"


def write_config(folder: Path) -> Path:
    certificate = throwaway_certificate()
    (folder / "groups").mkdir()
    (folder / "groups" / "default.conf").write_bytes(b"x" * FILE_BYTES)
    api = {
        "host": "127.0.0.1",
        "port": 0,
        "workers": 1,
        "backend": "embedded",
        "logging": {"level": "info"},
        "embedded": {"path": str(folder / "state")},
        "files": {"path": str(folder / "groups")},
        "command_socket": str(folder / "c.sock"),
        "ssl": {"key": str(certificate.key), "cert": str(certificate.cert)},
    }
    path = folder / "wazuh-server.yml"
    path.write_text(yaml.safe_dump({"communications_api": api}))
    return path


async def enrol(config: Path, count: int) -> list[Agent]:
    """Straight into the registry, all with one key: its hash is the same work for each agent's first log-in."""
    agents = [Agent(str(UUID(int=number, version=4)), KEY) for number in range(count)]
    hashed = hash_key(KEY)
    async with open_backends(load_config(config).config) as backends, trio.open_nursery() as nursery:
        for number, agent in enumerate(agents):
            nursery.start_soon(backends.agents.add, base.Agent(agent.uuid, f"a{number}", hashed))
    return agents


async def log_in(port: int, agents: list[Agent]) -> list[Agent]:
    """The same agents, with tokens."""
    logged_in = []
    for agent in agents:
        client = AgentClient(connect_tcp("127.0.0.1", port), uuid=agent.uuid, key=agent.key)
        if (reply := await client.authenticate()).status != 200:
            raise SystemExit(f"no log-in: {reply}")
        logged_in.append(replace(agent, token=client.token or ""))
    return logged_in


def pbkdf2_ms() -> float:
    """One hash on the servers' core now, as the daemon does it: the mean of ten."""
    stored = hash_key(KEY)
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[0]})
    try:
        began = time.process_time()
        for _ in range(10):
            assert key_matches(KEY, stored)
        return 100 * (time.process_time() - began)
    finally:
        os.sched_setaffinity(0, everywhere)


def measure(workload: Workload, daemon: Server, agents: list[Agent], fresh: list[Agent], rounds: int, share: float,
            log: Path) -> dict[str, Any]:  # fmt: skip
    n = max(10, int(workload.requests * share))
    source = fresh if workload.pbkdf2 else agents
    warm_up = workload.make(source, 10)
    reply_bytes = run_round(daemon, warm_up, 1, workload.status).reply_bytes
    certificate = throwaway_certificate()
    ours: list[Round] = []
    floors: list[Round] = []
    hashes: list[float] = []
    concurrency = 1 if workload.pbkdf2 else CONCURRENCY
    with start_floor(
        certificate.cert, certificate.key, status=workload.status, body_bytes=reply_bytes, log=log
    ) as floor:
        run_round(floor, warm_up, 1, workload.status)
        for _ in range(rounds):
            payloads = workload.make(source, n)
            again = -(-FLOOR_REQUESTS // n)  # CPU is counted in 10 ms: the cheap one needs more of them
            hashes.append(pbkdf2_ms() if workload.pbkdf2 else 0.0)
            # What comes once in 12 ms finds cold caches, and costs any server twice as much. So there the floor gets
            # the pauses that hashing makes.
            floors.append(run_round(floor, list(payloads) * again, concurrency, workload.status, pause_ms=hashes[-1]))
            ours.append(run_round(daemon, payloads, concurrency, workload.status))
    floor_ms, our_ms = middle(floors, lambda each: each.cpu_ms), middle(ours, lambda each: each.cpu_ms)
    extra = median(hashes)
    ratio = (our_ms - extra) / floor_ms
    spread = max(max(each.cpu_ms for each in some) / min(each.cpu_ms for each in some) - 1 for some in (ours, floors))
    return {
        "workload": workload.name,
        "floor_cpu_ms": floor_ms,
        "cpu_ms": our_ms,
        "pbkdf2_ms": extra or None,
        "ratio": ratio,
        "first": workload.first,
        "goal": workload.goal,
        "requests_per_second": middle(ours, lambda each: each.rate),
        "p50_ms": middle(ours, lambda each: each.percentile(0.5)),
        "p99_ms": middle(ours, lambda each: each.percentile(0.99)),
        "floor_p50_ms": middle(floors, lambda each: each.percentile(0.5)),
        "spread": spread,
    }


def measure_nagle(daemon: Server, agents: list[Agent], rounds: int, log: Path) -> dict[str, float]:
    """One request after another, head and body in writes of their own, Nagle's algorithm on."""
    certificate = throwaway_certificate()
    payloads = stateless(1000)(agents, NAGLE_REQUESTS)
    with start_floor(certificate.cert, certificate.key, status=204, body_bytes=0, log=log) as floor:
        run_round(floor, payloads[:10], 1, 204)
        pairs = [(run_round(floor, payloads, 1, 204), run_round(daemon, payloads, 1, 204)) for _ in range(rounds)]
    floor_ms = median(pair[0].percentile(0.5) for pair in pairs)
    our_ms = median(pair[1].percentile(0.5) for pair in pairs)
    return {"floor_p50_ms": floor_ms, "p50_ms": our_ms, "difference_ms": our_ms - floor_ms, "limit_ms": NAGLE_MS}


def measure_polls(daemon: Server, agents: list[Agent], count: int) -> dict[str, float]:
    """Resident memory of the whole daemon with and without ``count`` parked polls."""
    run_round(daemon, stateless(1000)(agents, 50), CONCURRENCY, 204)
    before = resident_bytes(daemon.process.pid)
    with open_client() as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(job(daemon.port, polls(agents, count), 64, hold=True))
        client.stdin.flush()
        assert client.stdout.readline() == b"parked\n"
        settle(daemon)
        parked = resident_bytes(daemon.process.pid) - before
        result = json.loads(client.communicate()[0])
    assert not result["failures"], result["failures"]
    return {"polls": count, "kb_each": parked / count / 1000, "first_kb": POLL_KB[0], "goal_kb": POLL_KB[1]}


def settle(daemon: Server) -> None:
    """Until it has nothing to do any more: all requests are read and parked."""
    used = daemon.cpu
    while True:
        time.sleep(1)
        used, before = daemon.cpu, used
        if used - before < 0.1:
            return


def table(results: dict[str, Any]) -> str:
    heads = (
        ("floor ms", 9),
        ("ours ms", 9),
        ("ratio", 7),
        ("first", 7),
        ("goal", 6),
        ("req/s", 8),
        ("p50 ms", 8),
        ("p99 ms", 8),
    )
    lines = [f"{'workload':<24}" + "".join(f"{head:>{width}}" for head, width in heads)]
    for row in results["workloads"]:
        verdict = "goal met" if row["ratio"] <= row["goal"] else "" if row["ratio"] <= row["first"] else "TOO SLOW"
        note = f"  without {row['pbkdf2_ms']:.1f} ms of PBKDF2" if row["pbkdf2_ms"] else ""
        noise = f"  (rounds differ by {row['spread']:.0%})" if row["spread"] > ROUNDS_DIFFER else ""
        lines.append(
            f"{row['workload']:<24}{row['floor_cpu_ms']:>9.2f}{row['cpu_ms']:>9.2f}{row['ratio']:>7.2f}{row['first']:>7.1f}"
            f"{row['goal']:>6.1f}{row['requests_per_second']:>8.0f}{row['p50_ms']:>8.1f}{row['p99_ms']:>8.1f}"
            f"  {verdict}{note}{noise}".rstrip()
        )
    if nagle := results.get("nagle"):
        lines.append(
            f"\nOne after another as agents send (Nagle on), median: {nagle['p50_ms']:.2f} ms, the floor's "
            f"{nagle['floor_p50_ms']:.2f} ms: {nagle['difference_ms']:+.2f} ms (at most {nagle['limit_ms']:.0f})"
        )
    if parked := results.get("parked"):
        lines.append(
            f"Parked poll, of {parked['polls']}: {parked['kb_each']:.1f} kB each (first {parked['first_kb']:.0f}, "
            f"goal {parked['goal_kb']:.0f})"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--rounds", type=int, help="of floor and daemon each (5; 2 with --quick)")
    parser.add_argument("--only", help="workloads whose names contain one of these, or nagle, or parked")
    parser.add_argument("--parked", type=int, help="parked polls (5000; 500 with --quick)")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    share = 0.15 if options.quick else 1.0
    parked = options.parked if options.parked is not None else (500 if options.quick else 5000)
    wanted = options.only.split(",") if options.only else None
    names = [*(each.name for each in WORKLOADS), "nagle", "parked"]
    for part in wanted or ():
        if not any(part in name for name in names):
            parser.error(f"there is no {part!r}; there are {', '.join(names)}")

    def is_wanted(name: str) -> bool:
        return wanted is None or any(each in name for each in wanted)

    chosen = [workload for workload in WORKLOADS if is_wanted(workload.name)]
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        config, log = write_config(folder), folder / "log"
        first = sum(max(10, int(each.requests * share)) * rounds + 10 for each in chosen if each.pbkdf2)
        enrolled = trio.run(enrol, config, BUSY_AGENTS + first)
        daemon = stack.enter_context(start_daemon(config, folder / "daemon.log"))
        agents = trio.run(log_in, daemon.port, enrolled[:BUSY_AGENTS])
        results: dict[str, Any] = {"rounds": rounds, "concurrency": CONCURRENCY, "workloads": []}
        for workload in chosen:
            if sys.stderr.isatty():
                print(f"\r{workload.name:<40}", end="\r", file=sys.stderr, flush=True)
            results["workloads"].append(measure(workload, daemon, agents, enrolled[BUSY_AGENTS:], rounds, share, log))
        if is_wanted("nagle"):
            results["nagle"] = measure_nagle(daemon, agents, rounds, log)
        stack.close()
        if is_wanted("parked") and parked:
            # On a new daemon: one that has worked has memory to spare, which would hide what polls take.
            with start_daemon(config, folder / "parked.log") as fresh:
                results["parked"] = measure_polls(fresh, trio.run(log_in, fresh.port, agents), parked)
    print(json.dumps(results, indent=2) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
