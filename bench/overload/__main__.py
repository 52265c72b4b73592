"""What agents notice of a load above what the daemon can carry.

    scripts/bench overload [--quick] [--json] [--only NAME[,NAME...]] [--times 2,5,10] [--seconds N] [--share 0.2]
                           [--backend wazuh] [--held quota|loop] [--period MS]

Embedded backends, or a real OpenSearch and a minimal engine on the loader's core; one worker, held to a part of a core.
By a quota it has that in one piece of each period, by a loop beside it in each millisecond. 0 times is no load.
For each workload first what it carries, then 2, 5 and 10 times that, in an open loop, and after each what it carries
once more: goodput is compared with the mean of before and after, since a machine's speed changes within a minute.
Latency counts from the planned moment, with connecting and waiting in it. ``ready`` is asked for ten times a second, as
a balancer does, and a command is posted for a parked agent each second. Goodput is what was answered with a success
within the agent's limit, a second.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import math
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, get_args

import trio

from bench.client import tls_context
from bench.daemon import enrol
from bench.overload.held_down import PERIOD_MS, How, held_down
from bench.processes import Payload, cores, pinned, repeating, resident_bytes
from bench.service import Service, start
from bench.site import open_config
from bench.workloads import Agent, FirstLogins, polls, request, stateful, stateless
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.services.authentication.tokens import TokenKeys

MIB = 1024 * 1024
#: Agents that send, and those that are parked, of which each gets one command.
SENDERS, PARKED = 200, 80
FIRST_LOGINS = 12_000
#: With an indexer; enrolling takes some milliseconds each.
FEWER_FIRST_LOGINS = 6_000
#: How long after the load memory is looked at, and how long that is waited for at most.
AFTER_S = 30
#: A load that is none, for what is normal again: this part of what is carried.
LIGHT = 0.3
#: What each should be: of the best goodput; milliseconds; bytes beyond the budget.
GOODPUT, READY_MS, DELIVERY_MS, MEMORY = 0.9, 100.0, 100.0, 50 * MIB


@dataclass(frozen=True)
class Load:
    """``within``: seconds within which an answer is one. ``guess``: what a fifth of a core might carry, a second."""

    name: str
    status: int
    within: float
    guess: float
    make: Callable[[Sequence[Agent], int], list[Payload]]
    first: bool = False


LOADS = (
    Load("stateless 1 kB", 204, 10, 250, stateless(1000)),
    Load("stateful 100 events", 200, 30, 50, stateful(100)),
    Load("first log-in", 200, 20, 15, FirstLogins(), first=True),
)


@dataclass
class Offered:
    """One load: all requests as ``[planned, latency, status]``."""

    rate: float
    seconds: float
    requests: list[list[float]]
    probes: list[list[float]]
    late: float
    cpu: float
    deliveries: list[float] = field(default_factory=list)

    def good(self, load: Load) -> list[float]:
        """Latencies of what was answered in time, of what was planned in the load's time."""
        return [latency for _, latency, status in self.requests if status == load.status and latency <= load.within]

    def goodput(self, load: Load, *, skip: float = 0.0) -> float:
        """Answers a second that came while the load lasted, after its first ``skip`` seconds."""
        ends = [
            planned + latency
            for planned, latency, status in self.requests
            if status == load.status and latency <= load.within
        ]
        return sum(skip <= end < self.seconds for end in ends) / (self.seconds - skip)

    def ends(self) -> str:
        names = {0: "closed", -1: "open"}
        counts = Counter(names.get(int(status), str(int(status))) for _, _, status in self.requests)
        return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


async def with_tokens(config: Path, agents: Sequence[Agent]) -> list[Agent]:
    """As the daemon would sign them: hundreds of log-ins take a while of hashing."""
    loaded = load_config(config).config
    keys = TokenKeys.from_pem(loaded.communications_api.ssl.key.read_bytes())
    made = []
    async with open_backends(loaded) as backends:
        for agent in agents:
            stored = await backends.agents.get(agent.uuid)
            assert stored is not None
            made.append(replace(agent, token=keys.mint(agent.uuid, stored.fingerprint, time.time())))
    return made


def at(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return 1000 * ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else math.inf


def cpu_seconds(pid: int) -> float:
    """What the process has had of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def offer(port: int, payloads: Sequence[Payload], rate: float, seconds: float, tail: float) -> Offered:
    requests = [[base64.b64encode(part).decode() for part in payload] for payload in payloads]
    (probe, _) = request("GET", "/api/v1/ready")
    job = {
        "port": port,
        "requests": requests,
        "rate": rate,
        "seconds": seconds,
        "tail": tail,
        "probe": base64.b64encode(probe).decode(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.overload.loader"],
        input=json.dumps(job).encode() + b"\n",
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=pinned(cores()[1]),
    )
    return Offered(rate, seconds, **json.loads(done.stdout))


class Parked:
    """Agents whose polls are parked, each for one command."""

    def __init__(self, service: Service, agents: Sequence[Agent]) -> None:
        self.service = service
        context = tls_context()
        self.polls: list[tuple[Agent, ssl.SSLSocket]] = []
        for agent, (head, _) in zip(agents, polls(agents, len(agents)), strict=True):
            sock = context.wrap_socket(socket.create_connection(("127.0.0.1", service.port), timeout=60))
            sock.sendall(head)
            self.polls.append((agent, sock))
        self._ids = count()

    def deliver(self) -> float:
        """Seconds from a post to its bytes at the agent."""
        agent, sock = self.polls.pop()
        command = {
            "document_id": f"c{time.time_ns()}",
            "request_id": "r",
            "order_id": "o",
            "source": "Users/Services",
            "user": "admin",
            "target": {"type": "agent", "id": agent.uuid},
            "action": {"name": "restart", "version": "v", "args": {}},
            "timeout": 100,
            "status": "pending",
        }
        body = json.dumps({"commands": [command]}).encode()
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.service.folder / "c.sock"))
        began = time.perf_counter()
        connection.request("POST", "/api/v1/commands", body)
        answer = sock.recv(65536)
        took = time.perf_counter() - began
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a poll was answered {answer[:40]!r}")
        sock.close()
        connection.getresponse().read()
        connection.close()
        return took

    @contextmanager
    def delivering(self, seconds: float) -> Iterator[list[float]]:
        """One a second while the block runs, for so long."""
        found: list[float] = []
        end = time.perf_counter() + seconds

        def deliver() -> None:
            if time.perf_counter() < end and self.polls:
                found.append(self.deliver())

        with repeating(deliver, 1.0):
            yield found

    def close(self) -> None:
        for _, sock in self.polls:
            sock.close()


@contextmanager
def watching_memory(pid: int) -> Iterator[list[int]]:
    """Of a process, five times a second, while the block runs."""
    found = [resident_bytes(pid)]
    with repeating(lambda: found.append(resident_bytes(pid)), 0.2):
        yield found


def best(service: Service, load: Load, agents: Sequence[Agent], seconds: float) -> float:
    """What it carries now, beside whatever else this machine does: the better goodput of two rates, the second one a
    little above what the first gave."""
    rate, most = load.guess, 0.0
    for _ in range(2):
        offered = offer(service.port, load.make(agents, int(rate * seconds) + 1), rate, seconds, 5)
        goodput = offered.goodput(load, skip=1)
        most = max(most, goodput)
        rate = 1.15 * goodput if goodput > 0 else rate / 2
    if not most:
        raise SystemExit(f"{load.name}: nothing was answered in time at {rate:.0f} a second: others take this machine")
    return most


def measure(service: Service, load: Load, agents: Sequence[Agent], times: Sequence[float], seconds: float,
            budget: int, share: float, how: How, period_ms: int) -> Iterator[dict[str, Any]]:  # fmt: skip
    pid = service.process.pid
    parked = Parked(service, agents[SENDERS : SENDERS + PARKED])
    senders = agents[SENDERS + PARKED :] if load.first else agents[:SENDERS]
    try:
        with held_down(pid, share, how, period_ms) as what:
            print(f"held down by {what}", file=sys.stderr)
            carried = 0.0
            for factor in times:
                if factor and not carried:
                    carried = best(service, load, senders, min(6, seconds))
                earlier, rate = carried, factor * carried
                payloads = load.make(senders, min(4000, int(rate * seconds) + 1))
                before, used = resident_bytes(pid), cpu_seconds(pid)
                with watching_memory(pid) as memory:
                    with parked.delivering(seconds - 1) as deliveries:
                        offered = offer(service.port, payloads, rate, seconds, 0)
                    had = (cpu_seconds(pid) - used) / seconds
                    time.sleep(2)
                    light = LIGHT * earlier
                    after = offer(service.port, load.make(senders, int(light * 5) + 1), light, 5, 10)
                    time.sleep(AFTER_S - 7 if factor else 0)
                if factor:
                    carried = best(service, load, senders, min(6, seconds))
                alone = (earlier + carried) / 2
                good = offered.good(load)
                yield {
                    "load": load.name,
                    "times": factor,
                    "carried": alone,
                    "offered": rate,
                    "goodput": offered.goodput(load, skip=2),
                    "p50_ms": at(good, 0.5),
                    "p99_ms": at(good, 0.99),
                    "ready_ms": [at([latency for _, latency, status in offered.probes if status == 200], part)
                                 for part in (0.5, 0.99)],
                    "ready_failed": sum(status != 200 and not (status == -1 and 1000 * latency < READY_MS)
                                        for _, latency, status in offered.probes),
                    "delivery_ms": [at(deliveries, part) for part in (0.5, 1.0)],
                    "memory": [before, max(memory), memory[-1]],
                    "budget": budget,
                    "after_ms": at([latency for _, latency, status in after.requests if status == load.status], 0.99),
                    "after_failed": sum(status != load.status for _, _, status in after.requests),
                    "ends": offered.ends(),
                    "late_ms": 1000 * offered.late,
                    "loader_cpu": offered.cpu,
                    "had": had,
                    "cpu_ms": 1000 * share / alone if alone else math.nan,
                    "share": share,
                }  # fmt: skip
    finally:
        parked.close()


HEAD = (
    "| load | offered | carried alone | goodput | p50 / p99 of what is taken | `ready` p50 / p99"
    " | a command, p50 / worst | memory | 2 s after | ends |\n|---|---|---|---|---|---|---|---|---|---|"
)


def line(found: dict[str, Any]) -> str:
    before, most, end = (size // MIB for size in found["memory"])
    ready = " / ".join(f"{value:.0f}" for value in found["ready_ms"])
    failed = f" ({found['ready_failed']} failed)" if found["ready_failed"] else ""
    after = f"p99 {found['after_ms']:.0f} ms" + (f", {found['after_failed']} failed" if found["after_failed"] else "")
    delivery = " / ".join(f"{value:.0f}" for value in found["delivery_ms"])
    part = 100 * found["goodput"] / found["carried"] if found["carried"] else math.nan
    return (
        f"| {found['load']} | {found['times']:g} x = {found['offered']:.0f}/s | {found['carried']:.0f}/s "
        f"| {found['goodput']:.0f}/s = {part:.0f} % "
        f"| {found['p50_ms']:.0f} / {found['p99_ms']:.0f} ms | {ready} ms{failed} | {delivery} ms "
        f"| {before} → {most} → {end} MiB | {after} | {found['ends']} |"
    )


def judge(found: dict[str, Any]) -> list[str]:
    wrong = []
    if found["times"] and found["had"] < 0.8 * found["share"]:
        wrong.append(f"it had {found['had']:.2f} of a core, not {found['share']}: others took it, this says nothing")
    if found["goodput"] < GOODPUT * found["carried"]:
        wrong.append(f"goodput is {100 * found['goodput'] / found['carried']:.0f} % of its best")
    if found["ready_ms"][1] > READY_MS or found["ready_failed"]:
        wrong.append(f"ready took {found['ready_ms'][1]:.0f} ms, {found['ready_failed']} failed")
    if found["delivery_ms"][1] > DELIVERY_MS:
        wrong.append(f"a command took {found['delivery_ms'][1]:.0f} ms")
    if found["memory"][1] > found["memory"][0] + found["budget"] + MEMORY:
        wrong.append("more memory than the budget")
    if found["memory"][2] > found["memory"][0] + MEMORY:
        wrong.append("memory wasn't given back")
    if found["after_failed"]:
        wrong.append(f"2 s after it {found['after_failed']} requests failed")
    return [f"{found['load']}, {found['times']:g} x: {what}" for what in wrong]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench overload", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="ten seconds of each load")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help="names, or parts of them, with commas")
    parser.add_argument("--times", default="2,5,10")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--backend", choices=("embedded", "wazuh"), default="embedded")
    parser.add_argument("--share", type=float, default=0.2, help="of a core")
    parser.add_argument("--held", choices=get_args(How), default="quota", help="what holds it to that")
    parser.add_argument("--period", type=int, default=PERIOD_MS, metavar="MS", help="of the quota")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (10 if arguments.quick else 20)
    wanted = arguments.only.split(",") if arguments.only else [""]
    for part in wanted:
        if not any(part in load.name for load in LOADS):
            parser.error(f"there is no {part!r}; there are {', '.join(load.name for load in LOADS)}")
    results: list[dict[str, Any]] = []
    wrong: list[str] = []
    if not arguments.json:
        print(HEAD, flush=True)
    for load in LOADS:
        if not any(part in load.name for part in wanted):
            continue
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            config = stack.enter_context(open_config(folder, arguments.backend))
            known = SENDERS + PARKED
            newcomers = FIRST_LOGINS if arguments.backend == "embedded" else FEWER_FIRST_LOGINS
            agents = trio.run(enrol, config, known + (newcomers if load.first else 0))
            agents[:known] = trio.run(with_tokens, config, agents[:known])
            with start(folder, 1) as service:
                times = [float(one) for one in arguments.times.split(",")]
                budget = 128 * MIB
                measured = measure(service, load, agents, times, seconds, budget, arguments.share,
                                   arguments.held, arguments.period)  # fmt: skip
                for found in measured:
                    results.append(found)
                    wrong += judge(found)
                    if not arguments.json:
                        print(line(found), flush=True)
                        print(f"each that is carried takes {found['cpu_ms']:.1f} ms of its share; "
                              f"loader: {found['loader_cpu']:.2f} of a core, {found['late_ms']:.0f} ms late at most",
                              file=sys.stderr, flush=True)  # fmt: skip
    if arguments.json:
        print(json.dumps(results, indent=1))
    for one in wrong:
        print(one, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
