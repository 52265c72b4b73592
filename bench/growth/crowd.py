"""What a large fleet costs one worker: a change to one agent beside parked polls, a command for all, a request of each.

    scripts/bench crowd [--quick] [--json] [--only rekey,send,requests] [--agents N] [--sizes N[,N...]]

Embedded backends. ``rekey``: the event loop's longest turn after one unrelated agent was rekeyed; ``send``: one command
for all, with requests of other agents beside it; ``requests``: agents ask one after the other, round and round, which
is the worst order for whatever is remembered of them.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from bench.client import tls_context
from bench.daemon import enrol, write_config
from bench.processes import cpu_seconds, job, open_client, repeating, resident_bytes
from bench.service import Service, park, percentile, print_results, some_of, start, with_tokens
from bench.workloads import Agent, request, root

NAMES = ("rekey", "send", "requests")
AGENTS = 10_000
SIZES = (10_000, 16_000, 20_000, 25_000, 40_000)
#: The status document's lag is the worst of this many seconds.
LAG_WINDOW_S = 10.0
SEND_SHARE, BESIDE_SHARE = 1.2, 3.0


def tool(service: Service, *arguments: str) -> None:
    program = Path(sys.executable).parent / "wazuh-comms"
    config = str(service.folder / "wazuh-server.yml")
    subprocess.run([str(program), "--config", config, *arguments], check=True, capture_output=True)


def lag_ms(service: Service) -> float:
    return float(service.ask("GET", "/api/v1/status")["workers"][0]["lag"]) * 1000


def get_root(port: int, context: ssl.SSLContext) -> float:
    """The latency of one ``GET /api/v1/``, in milliseconds."""
    (head, _), *_ = root((), 1)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw, context.wrap_socket(raw) as sock:
        sock.sendall(head)
        answer = sock.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"GET /api/v1/: {answer[:60]!r}")
    return 1000 * (time.monotonic() - began)


@contextmanager
def asking(port: int) -> Iterator[list[tuple[float, float]]]:
    """One request after the other, some hundred a second, while the block runs: when each began, and its latency."""
    context = tls_context()
    asked: list[tuple[float, float]] = []
    with repeating(lambda: asked.append((time.monotonic(), get_root(port, context))), 0.008):
        yield asked


def measure_rekey(folder: Path, agents: Sequence[Agent]) -> dict[str, float]:
    """The agent that is rekeyed isn't among those that are parked."""
    with start(folder, 1) as service, park(service, agents[1:]):
        time.sleep(LAG_WINDOW_S + 1)
        idle = lag_ms(service)
        tool(service, "agents", "rekey", agents[0].uuid)
        time.sleep(2)
        return {"parked": len(agents) - 1, "longest_turn_before_ms": idle, "longest_turn_ms": lag_ms(service)}


def measure_send(folder: Path, agents: Sequence[Agent]) -> dict[str, float]:
    with start(folder, 1) as service:
        pid = service.process.pid
        with park(service, agents) as client, asking(service.port) as asked:
            assert client.stdout is not None
            time.sleep(LAG_WINDOW_S + 1)
            alone = [latency for _, latency in asked[-800:]]
            tool(service, "commands", "send", "--all", "--yes", "restart")
            cpu, waited = cpu_seconds(pid), run_queue_seconds(pid)
            moments = []
            for number, _ in enumerate(agents):
                _, moment, status = client.stdout.readline().split()
                if number == 0:
                    cpu, waited = cpu_seconds(pid), run_queue_seconds(pid)
                if status != "200":
                    raise SystemExit(f"an agent was answered {status}")
                moments.append(float(moment))
            cpu, waited = cpu_seconds(pid) - cpu, run_queue_seconds(pid) - waited
            lag = lag_ms(service)
    first, last = min(moments), max(moments)
    beside = [latency for began, latency in asked if began + latency / 1000 >= first and began <= last]
    seconds, alone_p99, beside_p99 = last - first, percentile(alone, 0.99), percentile(beside, 0.99)
    return {
        "parked": len(agents),
        "seconds": seconds,
        "cpu_s": cpu,
        "waited_for_a_core_s": waited,
        "per_cpu": seconds / cpu,
        "limit_per_cpu": SEND_SHARE,
        "get_alone_p50_ms": percentile(alone, 0.5),
        "get_alone_p99_ms": alone_p99,
        "get_beside": len(beside),
        "get_beside_p50_ms": percentile(beside, 0.5),
        "get_beside_p99_ms": beside_p99,
        "beside_per_alone": beside_p99 / alone_p99,
        "limit_per_alone": BESIDE_SHARE,
        "longest_turn_ms": lag,
    }


def run_queue_seconds(pid: int) -> float:
    """For which its threads waited while other processes had the cores."""
    return sum(int((task / "schedstat").read_text().split()[1]) / 1e9 for task in Path(f"/proc/{pid}/task").iterdir())


def measure_requests(folder: Path, agents: Sequence[Agent], sizes: Sequence[int]) -> dict[str, float]:
    """Of files that aren't there: token, agent, and nothing else. The second round is measured."""
    figures: dict[str, float] = {}
    for size in sizes:
        with start(folder, 1) as service:
            payloads = [request("GET", "/api/v1/files?file_name=missing.yml", each.token) for each in agents[:size]]
            pid = service.process.pid
            for turn in (1, 2):
                before = cpu_seconds(pid)
                with open_client() as client:
                    output, _ = client.communicate(job(service.port, payloads, 8))
                result = json.loads(output)
                if result["failures"] or set(result["statuses"]) != {"404"}:
                    raise SystemExit(f"expected 404 only: {result['statuses']} {result['failures']}")
                if turn == 2:
                    figures[f"us_at_{size}"] = 1e6 * (cpu_seconds(pid) - before) / size
            figures[f"mb_at_{size}"] = resident_bytes(pid) / 1e6
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench crowd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the agents: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--only", type=some_of(NAMES), default=NAMES, help="of " + ", ".join(NAMES))
    parser.add_argument("--agents", type=int, default=AGENTS, help="that are parked")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of the fleets that make requests")
    options = parser.parse_args()
    wanted = options.only
    share = 10 if options.quick else 1
    parked = options.agents // share
    sizes = [int(size) // share for size in options.sizes.split(",")]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name:
        folder = Path(name)
        config = write_config(folder)
        count = max(parked + 1, *(sizes if "requests" in wanted else [0]))
        agents = with_tokens(folder, trio.run(enrol, config, count))
        if "requests" in wanted:
            results["requests"] = measure_requests(folder, agents, sizes)
        if "rekey" in wanted:
            results["rekey"] = measure_rekey(folder, agents[: parked + 1])
            agents = agents[1:]
        if "send" in wanted:
            results["send"] = measure_send(folder, agents[:parked])
    print_results(results, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
