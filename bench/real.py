"""What the daemon costs on a real OpenSearch and an engine, as multiples of the floor and the bare client's cost.

    scripts/bench real [--quick] [--json] [--rounds 5] [--only NAME[,NAME...]]

The workloads and the floor of `scripts/bench`. One OpenSearch node and a minimal engine run beside the client, on the
other core than the servers: only our own processes' CPU counts. Another daemon's calls to the indexer are kept
first; each round repeats just these, over one of our HTTP connections, and that is the bare client's cost: the ratio is
ours to the floor and that together. It is done with the batcher's defaults, and for stateful events with large batches.

`indexer` is how busy the indexer's core is in a round. How much of the rate of plain bulk calls the daemon reaches
where the indexer is the limit is measured apart, with more agents (`--only share`; bench/share.py). It takes a quiet
machine: what else runs takes from the indexer's core when we are on the other one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import trio

from bench.daemon import BUSY_AGENTS, CONCURRENCY, FLOOR_REQUESTS, ROUNDS_DIFFER, log_in, pbkdf2_ms
from bench.processes import Payload, middle, run_round, start_floor
from bench.relay import Call, is_compressed
from bench.share import LOADS, SECONDS, Bench, Share
from bench.site import Daemons, Site, large_body_growth, make_calls, open_site
from bench.workloads import WORKLOADS, Agent, Workload
from wazuh_comms_trio.testing import throwaway_certificate

BATCHERS: Mapping[str, Mapping[str, int]] = {
    "default": {},
    # The default of max_size would end a batch at some seven events.
    "max_elements 1000": {"max_elements": 1000, "max_size": 1024 * 1024},
}
BARE_CALLS = 400
LARGE_CALL = 50_000
LARGE_LIMIT_MIB = 8.0
ENGINE_TARGETS = {"stateless": "/events/stateless", "vulnerability scan": "/vulnerability/scan"}


def engine_calls(workload: Workload, payloads: Sequence[Payload]) -> list[Call]:
    """One a request, with its body."""
    for name, target in ENGINE_TARGETS.items():
        if workload.name.startswith(name):
            headers = [("Content-Type", "application/x-ndjson" if name == "stateless" else "application/json")]
            return [Call("POST", target, headers, body) for _, body in payloads]
    return []


class Recorded:
    """The calls of ``requests`` requests, for as many repetitions as one likes."""

    def __init__(self, site: Site, daemons: Daemons, workload: Workload, agents: Sequence[Agent], count: int) -> None:
        self._site = site
        self.requests = count
        payloads = workload.make(agents, count)
        concurrency = 1 if workload.pbkdf2 else CONCURRENCY
        run_round(daemons.recorded, workload.make(agents, 10), 1, workload.status)
        daemons.relay.calls.clear()
        run_round(daemons.recorded, payloads, concurrency, workload.status)
        self.indexer = list(daemons.relay.calls)
        self.engine = engine_calls(workload, payloads)

    @property
    def calls(self) -> float:
        """A request."""
        return (len(self.indexer) + len(self.engine)) / self.requests

    def bare_ms(self) -> float:
        """CPU of the bare client's calls of one request."""
        total = 0.0
        for address, calls in ((self._site.indexer_port, self.indexer), (self._site.engine, self.engine)):
            if calls:
                # Compressed ones are large ones, and each is a second's work for an indexer.
                large = max(len(call.body or b"") for call in calls) > LARGE_CALL or any(map(is_compressed, calls))
                repeat = 1 if large else max(1, BARE_CALLS // len(calls))
                total += make_calls(address, calls, repeat=repeat).cpu_ms / repeat
        return total / self.requests


def measure(site: Site, daemons: Daemons, workload: Workload, agents: list[Agent], fresh: list[Agent], rounds: int,
            share: float) -> dict[str, Any]:  # fmt: skip
    n = max(10, int(workload.requests * share))
    source = fresh if workload.pbkdf2 else agents
    recorded = Recorded(site, daemons, workload, source, recorded_count(n))
    warm_up = workload.make(source, 10)
    reply_bytes = run_round(daemons.direct, warm_up, 1, workload.status).reply_bytes
    certificate, log = throwaway_certificate(), site.folder / "floor.log"
    concurrency = 1 if workload.pbkdf2 else CONCURRENCY
    ours, floors, bares, hashes, busy = [], [], [], [], []
    with start_floor(
        certificate.cert, certificate.key, status=workload.status, body_bytes=reply_bytes, log=log
    ) as floor:
        run_round(floor, warm_up, 1, workload.status)
        for _ in range(rounds):
            payloads = workload.make(source, n)
            hashes.append(pbkdf2_ms() if workload.pbkdf2 else 0.0)
            again = -(-FLOOR_REQUESTS // n)
            floors.append(run_round(floor, list(payloads) * again, concurrency, workload.status, pause_ms=hashes[-1]))
            bares.append(recorded.bare_ms())
            began, cpu = time.perf_counter(), site.indexer_cpu()
            ours.append(run_round(daemons.direct, payloads, concurrency, workload.status))
            busy.append((site.indexer_cpu() - cpu) / (time.perf_counter() - began))
    floor_ms, our_ms = middle(floors, lambda each: each.cpu_ms), middle(ours, lambda each: each.cpu_ms)
    bare_ms, extra = median(bares), median(hashes)
    return {
        "workload": workload.name,
        "floor_cpu_ms": floor_ms,
        "bare_client_cpu_ms": bare_ms,
        "calls_per_request": recorded.calls,
        "cpu_ms": our_ms,
        "pbkdf2_ms": extra or None,
        # The targets are multiples of the floor, to which the calls are added once.
        "ratio": (our_ms - extra) / (floor_ms + bare_ms),
        "allowed_first_ms": workload.first * floor_ms + bare_ms + extra,
        "allowed_goal_ms": workload.goal * floor_ms + bare_ms + extra,
        "floors": (our_ms - extra - bare_ms) / floor_ms,
        "first": workload.first,
        "goal": workload.goal,
        "indexer_busy": median(busy),
        "requests_per_second": middle(ours, lambda each: each.rate),
        "p50_ms": middle(ours, lambda each: each.percentile(0.5)),
        "p99_ms": middle(ours, lambda each: each.percentile(0.99)),
        "spread": max(max(each.cpu_ms for each in some) / min(each.cpu_ms for each in some) - 1
                      for some in (ours, floors)),
    }  # fmt: skip


def recorded_count(n: int) -> int:
    return max(10, n // 3)


def table(results: dict[str, Any]) -> str:
    heads = (("floor ms", 9), ("bare ms", 9), ("calls", 7), ("ours ms", 9), ("ratio", 7), ("floors", 8), ("first", 7),
             ("goal", 6), ("indexer", 9), ("req/s", 8), ("p99 ms", 8))  # fmt: skip
    lines: list[str] = []
    for batcher, some in results["batchers"].items():
        lines.append(f"Batcher: {batcher}")
        lines.append(f"{'workload':<24}" + "".join(f"{head:>{width}}" for head, width in heads))
        for row in some["workloads"]:
            floors = row["floors"]
            verdict = "goal met" if floors <= row["goal"] else "" if floors <= row["first"] else "TOO SLOW"
            note = f"  without {row['pbkdf2_ms']:.1f} ms of PBKDF2" if row["pbkdf2_ms"] else ""
            noise = f"  (rounds differ by {row['spread']:.0%})" if row["spread"] > ROUNDS_DIFFER else ""
            lines.append(
                f"{row['workload']:<24}{row['floor_cpu_ms']:>9.2f}{row['bare_client_cpu_ms']:>9.2f}"
                f"{row['calls_per_request']:>7.2f}{row['cpu_ms']:>9.2f}{row['ratio']:>7.2f}{floors:>8.2f}"
                f"{row['first']:>7.1f}{row['goal']:>6.1f}{row['indexer_busy']:>9.0%}"
                f"{row['requests_per_second']:>8.0f}{row['p99_ms']:>8.1f}  {verdict}{note}{noise}".rstrip()
            )
        lines.append("")
        lines += map(str, some["shares"])
        lines.append("")
    lines.append(
        "ratio: ours to floor + bare client; floors: ours without the bare client, in floors, as first and goal are."
    )
    if large := results.get("large_body"):
        lines.append(
            f"100 MiB stateless body in flight: {large['growth_mib']:+.1f} MiB (below {large['limit_mib']:.0f})"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    parser.add_argument("--rounds", type=int, help="of floor, bare client and daemon each (5; 2 with --quick)")
    parser.add_argument("--only", help="workloads whose names contain one of these, or share, or memory")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    amount = 0.15 if options.quick else 1.0
    wanted = options.only.split(",") if options.only else None
    names = [*(each.name for each in WORKLOADS), "share", "memory"]
    for part in wanted or ():
        if not any(part in name for name in names):
            parser.error(f"there is no {part!r}; there are {', '.join(names)}")

    def is_wanted(name: str) -> bool:
        return wanted is None or any(each in name for each in wanted)

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{text:<60}", end="\r", file=sys.stderr, flush=True)

    results: dict[str, Any] = {"rounds": rounds, "concurrency": CONCURRENCY, "batchers": {}}
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name, ExitStack() as stack:
        progress("starting an indexer")
        site = stack.enter_context(open_site(Path(name)))
        counts = [max(10, int(each.requests * amount)) for each in WORKLOADS if each.pbkdf2 and is_wanted(each.name)]
        pushing = max(load.agents for loads in LOADS.values() for load in loads) if is_wanted("share") else 0
        count = max(BUSY_AGENTS, pushing)
        enrolled = site.enrol(count + sum(n * rounds + recorded_count(n) + 20 for n in counts))
        busy, fresh = enrolled[:count], enrolled[count:]
        for batcher, settings in BATCHERS.items():
            with site.daemons(batcher.replace(" ", "-"), settings) as daemons:
                agents = trio.run(log_in, daemons.direct.port, busy)
                trio.run(log_in, daemons.recorded.port, busy[:1])
                workloads: list[dict[str, Any]] = []
                shares: list[Share] = []
                results["batchers"][batcher] = {"settings": settings, "workloads": workloads, "shares": shares}
                for workload in WORKLOADS:
                    stateful = workload.name.startswith("stateful")
                    if is_wanted(workload.name) and (stateful or not settings):
                        progress(f"{batcher}: {workload.name}")
                        some = agents[:BUSY_AGENTS]
                        workloads.append(measure(site, daemons, workload, some, fresh, rounds, amount))
                for load in LOADS[batcher] if is_wanted("share") else ():
                    workload = next(each for each in WORKLOADS if each.name == f"stateful {load.events} events")
                    progress(f"{batcher}: {workload.name}, share of the indexer's rate")
                    shares.append(Bench(site, daemons, load, workload, agents).measure(rounds, SECONDS * amount))
        if is_wanted("memory"):
            results["large_body"] = {"growth_mib": large_body_growth(site, agents[0]), "limit_mib": LARGE_LIMIT_MIB}
    print(json.dumps(results, indent=2, default=Share.as_dict) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
