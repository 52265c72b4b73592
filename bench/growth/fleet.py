"""The largest fleet that one worker on one core carries, beside the floor with the same arrivals.

    scripts/bench fleet [--quick] [--json] [--sizes N[,N...]] [--seconds 180] [--p99 100] [--plot FILE]
                        [--workers N] [--held PART] [--backend wazuh]

Agents as they are (`wazuh-comms simulate-fleet` without a mix), on embedded backends or, with `--backend wazuh`, a real
OpenSearch and a minimal engine beside the client: a log-in in 15 minutes, 2 kB of
stateless events in 10 s, 20 stateful events in 60 s, a file in 10 minutes, a parked poll, a new TLS connection for each
request, open loop. The daemon is pinned to one core, this client to another. Sizes are tried from the smallest on; one
is carried where p99 at rest is below the limit and no request failed. After each the same arrivals go to the floor
(bench/floor.py), where polls are requests in 300 s, since a floor parks nothing; the share is the floor's CPU by the
daemon's. First log-ins are before the rest, and so in no figure but their own.

With `--held` each worker has no more than that part of the servers' core, by a control group's quota: so a machine with
one core for them shows what a second worker adds. That begins with the rest: first log-ins are hashed on all of the
core. Their supervisor isn't held, and the floor has the core for itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import trio
import yaml

from bench.daemon import KEY, enrol
from bench.overload.held_down import held_down
from bench.processes import Server, cores, processes_under, resident_bytes, start_daemon, start_floor
from bench.site import open_config
from wazuh_comms_trio.cli.fleet.connection import find_node, tls_context
from wazuh_comms_trio.cli.fleet.fleet import Fleet, Pace
from wazuh_comms_trio.cli.fleet.host import Member, make_hosts
from wazuh_comms_trio.cli.fleet.mix import Files, Mix
from wazuh_comms_trio.cli.fleet.plot import draw
from wazuh_comms_trio.cli.fleet.report import progress_line
from wazuh_comms_trio.cli.fleet.run import Result, Stage, run_fleet
from wazuh_comms_trio.cli.fleet.tally import Kind, Tally
from wazuh_comms_trio.foundation.resources import raise_descriptor_limit
from wazuh_comms_trio.testing import throwaway_certificate

SIZES = (2000, 3000, 4000, 5000, 6000, 8000, 10_000)
QUICK_SIZES = (200, 400)
#: A client that is so late (p99, seconds) or busy (share of its core) tells of itself.
LATE, BUSY = 0.02, 0.9
#: Of first log-ins a second: each costs the daemon a hash, once.
FIRST_LOG_INS, LATER_LOG_INS = 40, 200
#: Of the floor's replies: about the mean of the daemon's.
REPLY_BYTES = 300
POLL_S = 300.0
MIX = Mix(files=Files(name="default.conf"))


@dataclass(frozen=True)
class Step:
    """``busy``: cores; latencies in ms, at rest; ``late``: the client's own."""

    agents: int
    seconds: float
    requests_per_second: float
    errors: int
    p50: float
    p99: float
    first_log_in_p99: float | None
    log_in_p99: float | None
    late_p99: float
    client_busy: float
    busy: float
    floor_busy: float
    floor_p99: float
    resident_mb: float
    limit: float

    @property
    def share(self) -> float:
        return self.floor_busy / self.busy if self.busy else 0.0

    @property
    def client_is_the_limit(self) -> bool:
        return self.late_p99 > 1000 * LATE or self.client_busy > BUSY

    @property
    def is_carried(self) -> bool:
        return not self.errors and self.p99 < self.limit

    @property
    def verdict(self) -> str:
        if self.is_carried:
            return "carried"
        return "the client was the limit" if self.client_is_the_limit and not self.errors else "not carried"


@dataclass
class Watch:
    """Reads the server's CPU when the rest begins and when it ends; calls ``at_rest`` when it begins."""

    server: Server
    at_rest: Callable[[], object] = lambda: None
    first: float = 0.0
    last: float = 0.0
    is_resting: bool = False

    def show(self, stage: Stage) -> None:
        self.last = self.server.cpu
        if not stage.at_rest:
            self.first = self.last  # the last time is when the rest begins, which is later than the ramp's end
        elif not self.is_resting:
            self.is_resting = True
            self.at_rest()
        if sys.stderr.isatty():
            print(f"\r\x1b[K{stage.agents}: {progress_line(stage, 100)}", end="", file=sys.stderr, flush=True)

    @property
    def used(self) -> float:
        return self.last - self.first


def run(
    server: Server,
    members: Sequence[Member],
    seconds: float,
    ramp: float,
    blind: float | None,
    at_rest: Callable[[], object] = lambda: None,
) -> tuple[Result, float]:
    """The run, and the server's CPU at rest in cores; ``at_rest`` is called when that begins."""
    rng = random.Random(len(members))
    hosts = make_hosts(members, MIX, rng)
    node = find_node(f"https://127.0.0.1:{server.port}", tls_context(None, None))
    fleet = Fleet(node, hosts, MIX, Pace(ramp, blind), rng=rng)
    watch = Watch(server, at_rest)

    async def go() -> Result:
        return await run_fleet(fleet, ramp=ramp, duration=seconds, stop=trio.Event(), show=watch.show)

    gc.collect()
    gc.freeze()
    try:
        result = trio.run(go)
    finally:
        gc.unfreeze()
    return result, watch.used / result.rest_seconds


def measure(
    daemon: Server, members: Sequence[Member], known: int, options: argparse.Namespace, log: Path, core: int
) -> tuple[Step, Result]:
    """``known``: of the members, so many have logged in before. The floor is on ``core``."""
    new = max(0, len(members) - known)
    ramp = new / FIRST_LOG_INS + min(known, len(members)) / LATER_LOG_INS
    with ExitStack() as held:

        def hold() -> None:
            for worker in workers_of(daemon, options.workers) if options.held else ():
                held.enter_context(held_down(worker, options.held, core=core))

        result, busy = run(daemon, members, options.seconds, ramp, None, hold)
    resident = resident_bytes(daemon.process.pid)
    certificate = throwaway_certificate()
    with start_floor(
        certificate.cert, certificate.key, status=200, body_bytes=REPLY_BYTES, log=log, cpus=[core]
    ) as floor:
        plain, floor_busy = run(floor, members, min(options.seconds, 60.0), len(members) / LATER_LOG_INS, POLL_S)
    rest, latencies = result.rest, result.rest.latencies()
    whole = result.start_seconds + result.rest_seconds
    return Step(
        agents=len(members),
        seconds=result.rest_seconds,
        requests_per_second=rest.requests / result.rest_seconds,
        errors=rest.errors,
        p50=_ms(latencies.quantile(0.5)) or 0.0,
        p99=_ms(latencies.quantile(0.99)) or 0.0,
        first_log_in_p99=_log_in(result.start, Kind.FIRST_LOG_IN),
        log_in_p99=_log_in(rest, Kind.LOG_IN),
        late_p99=_ms(rest.late.quantile(0.99)) or 0.0,
        client_busy=result.cpu / whole,
        busy=busy,
        floor_busy=floor_busy,
        floor_p99=_ms(plain.rest.latencies().quantile(0.99)) or 0.0,
        resident_mb=resident / 1e6,
        limit=options.p99,
    ), result


def _log_in(tally: Tally, kind: str) -> float | None:
    return _ms(tally.kinds[kind].latencies.quantile(0.99)) if kind in tally.kinds else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def table(steps: Sequence[Step]) -> Iterator[str]:
    yield (
        f"{'agents':>7}{'req/s':>8}{'errors':>8}{'p50 ms':>8}{'p99 ms':>8}{'log-in p99':>12}{'first':>8}{'cores':>7}"
        f"{'floor':>7}{'its p99':>9}{'share':>7}{'MB':>6}{'client late p99':>17}{'busy':>6}"
    )
    for step in steps:
        log_in, first = ("-" if each is None else f"{each:.0f}" for each in (step.log_in_p99, step.first_log_in_p99))
        yield (
            f"{step.agents:>7}{step.requests_per_second:>8.0f}{step.errors:>8}{step.p50:>8.1f}{step.p99:>8.1f}{log_in:>12}"
            f"{first:>8}{step.busy:>7.2f}{step.floor_busy:>7.2f}{step.floor_p99:>9.1f}{step.share:>7.2f}{step.resident_mb:>6.0f}"
            f"{step.late_p99:>17.1f}{step.client_busy:>6.0%}  {step.verdict}"
        )
    if carried := [step for step in steps if step.is_carried]:
        best = carried[-1]
        yield f"\nCarried: {best.agents} agents, {best.share:.2f} of the floor by CPU with the same arrivals"


@contextmanager
def client_core() -> Iterator[None]:
    """This process on the client's core alone; what it starts has its own."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


def workers_of(daemon: Server, count: int) -> list[int]:
    """The processes that serve agents: one worker is the daemon's own."""
    if count == 1:
        return [daemon.process.pid]
    found = [
        pid
        for pid in processes_under(daemon.process.pid)
        if b"daemon.worker_start" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    if len(found) != count:
        raise SystemExit(f"there are {len(found)} workers")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small and short: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--sizes", help="from the smallest on; it ends with the first that isn't carried")
    parser.add_argument("--seconds", type=float, help="at rest, for each (180; 10 with --quick)")
    parser.add_argument("--p99", type=float, default=100.0, help="in ms: what is carried is below it")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--held", type=float, metavar="PART", help="each worker to so much of the core, as 0.3")
    parser.add_argument("--backend", choices=("embedded", "wazuh"), default="embedded")
    parser.add_argument("--plot", type=Path, help="a picture of the last one that was carried, SVG")
    options = parser.parse_args()
    options.seconds = options.seconds or (10.0 if options.quick else 180.0)
    sizes = sorted(int(size) for size in options.sizes.split(",")) if options.sizes else []
    sizes = sizes or list(QUICK_SIZES if options.quick else SIZES)
    raise_descriptor_limit()
    steps: list[Step] = []
    core = cores()[0]
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        config = stack.enter_context(open_config(folder, options.backend))
        document = yaml.safe_load(config.read_text())
        document["communications_api"] |= {"limits": {"agents": max(sizes)}, "workers": options.workers}
        config.write_text(yaml.safe_dump(document))
        agents = trio.run(enrol, config, max(sizes))
        members = [Member(agent.uuid, f"a{number}", KEY) for number, agent in enumerate(agents)]
        log, known = folder / "floor.log", 0
        daemon = stack.enter_context(start_daemon(config, folder / "daemon.log"))
        stack.enter_context(client_core())
        for size in sizes:
            step, result = measure(daemon, members[:size], known, options, log, core)
            steps.append(step)
            known = size
            if not step.is_carried:
                break
            if options.plot is not None:
                title = f"{size} agents, one worker on one core"
                options.plot.write_text(draw(result.slices, title, result.start_seconds), "utf-8")
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([asdict(step) | {"share": step.share, "verdict": step.verdict} for step in steps], indent=2))
    else:
        print("\n".join(table(steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
