"""``scripts/soak hostile``: each attack beside honest agents, and a table of what these noticed."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import trio
from attrs import define, field, frozen

from tests.e2e.processes import KEY, Running, start_daemon, write_files
from tests.hostile.attacker import MIB, Job, Report
from tests.supervisor.nodes import add_logged_in
from wazuh_comms_trio.foundation.resources import private_bytes
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import (
    AgentClient,
    ExchangeFailed,
    stateful_event,
    stateless_event,
    throwaway_certificate,
)
from wazuh_comms_trio.testing.certificates import Certificate

Say = Callable[[str], None]

#: An honest load: so many agents, requests a second, each by another one.
HONEST_AGENTS: Final = 40
HONEST_RATE: Final = 20.0
#: Stolen tokens for the attack that takes many.
STOLEN: Final = 20
#: Files that the daemon may have open, in attacks that use them up.
FEW_FILES: Final = 600
#: What the events of all agents may take, in the attack that fills them; and what is written beside them.
QUOTA: Final = 3 * 1024 * MIB
SMALL_QUOTA: Final = 64 * MIB
#: What agents take a group's file of at most, bytes.
LARGE_FILE: Final = 8_000_000
#: Seconds that the answer for a user that there is may differ by from one for nobody, beside a half of them.
TOLD_APART: Final = 0.2
#: By how many answers more than twice as many one of them may be hashed for.
TOLD_APART_ANSWERS: Final = 3
#: Seconds after which an agent tries again.
COME_BACK: Final = 30.0
#: Seconds after which a daemon has given its memory back, up to so much.
GIVEN_BACK: Final = 30.0
KEPT: Final = 50 * MIB
#: What it may use meanwhile: the budget for bodies, five of the largest where the machine has that, and so much.
MOST_MEMORY: Final = 500 * MIB + KEPT


@frozen
class Row:
    """One attack. ``count``, ``seconds`` and ``size`` as in ``Job``, in full and small; ``limits`` of the daemon.
    ``gone_after``: seconds after which no connection of the attack may be open; None: it ends by itself.
    ``documents``: bytes that they may take, an agent a tenth of it. ``wanted``: an answer that there has to be.
    ``tries``: after how many an agent whose own key is guessed is let in, half a minute after each other."""

    name: str
    count: int
    seconds: float
    small: tuple[int, float]
    size: int = 0
    small_size: int = 0
    open_files: int | None = None
    limits: dict[str, Any] = field(factory=dict)
    gone_after: float | None = None
    never: frozenset[str] = frozenset({"500"})
    documents: int = 0
    wanted: str | None = None
    tries: int = 1


ROWS: Final = [
    Row("slow bodies", 700, 60, (60, 1.5), open_files=FEW_FILES, gone_after=35),
    Row("slow readers", 700, 60, (60, 1.5), open_files=FEW_FILES),
    Row("silent connections", 700, 60, (60, 1.5), open_files=FEW_FILES, gone_after=35),
    Row("half-begun connections", 700, 60, (60, 1.5), open_files=FEW_FILES, gone_after=35),
    Row("connections without a byte", 500, 60, (100, 1.5), open_files=FEW_FILES, gone_after=35),
    Row("strangers' log-in bodies", 620, 60, (60, 1), gone_after=35, never=frozenset({"500", "503"})),
    Row("large bodies at once", 50, 180, (8, 2), 95 * MIB, 4 * MIB),
    Row("unfinished uploads", 60, 60, (20, 1.5), 100 * MIB, 4 * MIB),
    Row("one token's polls", 5000, 60, (60, 1)),
    Row("wrong keys", 55, 30, (20, 1)),
    Row("wrong keys from everywhere", 200, 120, (10, 1), tries=2),
    Row("wrong passwords", 20, 30, (10, 1)),
    Row("wrong passwords from everywhere", 20, 30, (10, 1), wanted="401"),
    Row("100 times its share", 200, 30, (200, 1), limits={"agents": 100}),
    Row("documents without end", 20, 30, (10, 1), documents=MIB, wanted="503"),
]


@define
class Latencies:
    """Of honest requests, seconds; and what else they got than what they wanted."""

    good: list[float] = field(factory=list)
    bad: Counter[str] = field(factory=Counter)

    def at(self, share: float) -> float:
        ranked = sorted(self.good)
        return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)] if ranked else math.inf

    def __str__(self) -> str:
        return f"{self.at(0.5) * 1000:.0f}/{self.at(0.99) * 1000:.0f} ms"


@frozen
class Outcome:
    row: Row
    report: Report
    before: Latencies
    during: Latencies
    memory: tuple[int, int, int]
    disk: int
    log_in: float

    def line(self) -> str:
        disk, held = self.disk // MIB, self.report.longest
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.report.ends.items()))
        start, most, end = (size // MIB for size in self.memory)
        took = "".join(
            f"; {what} {median(seconds) * 1000:.0f} ms (of {len(seconds)})"
            for what, seconds in sorted(self.report.took.items())
        )
        bad = "".join(f", {count} {what}" for what, count in self.during.bad.items())
        return (
            f"| {self.row.name} | {self.report.tried} | {self.before} | {self.during}{bad} "
            f"| {self.log_in * 1000:.0f} ms | {start} → {most} → {end} MiB | {disk} MiB | {held:.0f} s | {ends}{took} |"
        )


HEAD: Final = (
    "| attack | tried | honest p50/p99 without | with | a log-in | memory: before, most, 30 s later | events on disk "
    "| longest | ends |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def memory_of(pid: int) -> int:
    """Bytes, without the pages of files, as of large bodies that are read: the kernel takes these back at any time."""
    return private_bytes(Path(f"/proc/{pid}/statm"))


@asynccontextmanager
async def honest_load(agents: Sequence[AgentClient], found: Latencies) -> AsyncIterator[None]:
    """Requests at their planned moments, whatever became of the others; latency counts from there."""
    event = stateful_event("doc", "fim", "create", {"file": {"path": "/etc/passwd"}})
    lines = [stateless_event("logcollector", "file", {"n": number}) for number in range(10)]

    async def one(number: int, planned: float) -> None:
        agent = agents[number % len(agents)]
        try:
            reply = await (agent.post_stateful([event]) if number % 2 else agent.post_stateless(lines))
        except ExchangeFailed as error:
            found.bad[str(error)[:40]] += 1
            return
        if reply.status in (200, 204):
            found.good.append(trio.current_time() - planned)
        else:
            found.bad[f"{reply.status}"] += 1

    async def load(nursery: trio.Nursery) -> None:
        began = trio.current_time()
        number = 0
        while True:
            planned = began + number / HONEST_RATE
            await trio.sleep_until(planned)
            nursery.start_soon(one, number, planned)
            number += 1

    async with trio.open_nursery() as requests, trio.open_nursery() as planning:
        planning.start_soon(load, requests)
        yield
        planning.cancel_scope.cancel()
        requests.cancel_scope.deadline = trio.current_time() + 60


async def attack(job: Job) -> Report:
    done = await trio.run_process(
        [sys.executable, "-m", "tests.hostile.attacks"], stdin=msgspec.json.encode(job), capture_stdout=True
    )
    return msgspec.json.decode(done.stdout, type=Report)


async def run_row(row: Row, folder: Path, certificate: Certificate, *, small: bool) -> Outcome:
    folder.mkdir()  # noqa: ASYNC240 - before anything runs
    events = {"max_bytes": SMALL_QUOTA if small else QUOTA, "max_file_bytes": 32 * MIB}
    documents = {"max_bytes": row.documents, "agent_percent": 10}
    files = write_files(
        folder,
        certificate.cert,
        certificate.key,
        limits=row.limits,
        logging={"level": "info"},
        shutdown={"grace": 1},
        embedded={"path": str(folder / "state"), "events": events, "documents": documents},
        enrollment={"host": "127.0.0.1", "port": 0, "users": {"admin": hash_key("secret")}},
    )
    (files.groups / "default.yml").write_bytes(b"x" * LARGE_FILE)
    async with start_daemon(files, limit=math.inf, expect_errors=True, open_files=row.open_files) as daemon:
        agents = await add_logged_in(daemon, HONEST_AGENTS + STOLEN + 1)
        honest, stolen = agents[:HONEST_AGENTS], agents[HONEST_AGENTS:-1]
        before, during = Latencies(), Latencies()
        async with honest_load(honest, before):
            await trio.sleep(0.5 if small else 10)
        count, seconds = row.small if small else (row.count, row.seconds)
        job = Job(
            name=row.name,
            port=daemon.port,
            enrollment_port=daemon.enrollment_port,
            uuid=agents[-1].uuid,
            tokens=[agent.token for agent in stolen if agent.token],
            count=count,
            seconds=seconds,
            size=row.small_size if small else row.size,
        )
        watched = _Watch(daemon)
        async with watched.watching():
            async with honest_load(honest, during):
                report, log_in = await _attack_and_log_in(job, daemon.client(agents[-1].uuid, KEY), row.tries)
            await trio.sleep(0.2 if small else GIVEN_BACK)
        tracebacks = [line for line in daemon.log if line.startswith("Traceback")]
        assert not tracebacks, "\n".join(daemon.log[-60:])
    return Outcome(row, report, before, during, watched.memory, watched.disk, log_in)


async def _attack_and_log_in(job: Job, agent: AgentClient, tries: int) -> tuple[Report, float]:
    """The attack, and in its middle the first log-in of an agent with its right key: how long the last of at most so
    many tries takes."""
    reports: list[Report] = []
    took = math.inf
    async with trio.open_nursery() as nursery:

        async def begin() -> None:
            reports.append(await attack(job))

        nursery.start_soon(begin)
        await trio.sleep(job.seconds / 2 / tries + 0.3)
        for left in reversed(range(tries)):
            began = time.monotonic()
            if (await agent.authenticate()).status == 200:
                took = time.monotonic() - began
                break
            await trio.sleep(COME_BACK if left else 0)
    return reports[0], took


@define
class _Watch:
    """A daemon's memory (before, at most, after) and what its events take on disk at most, bytes."""

    daemon: Running
    memory: tuple[int, int, int] = (0, 0, 0)
    disk: int = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        pid = self.daemon.process.pid
        start = most = memory_of(pid)
        events = self.daemon.files.state / "events"

        async def look() -> None:
            nonlocal most
            while True:
                most = max(most, memory_of(pid))
                files = await trio.to_thread.run_sync(lambda: list(events.rglob("*")) if events.is_dir() else [])
                self.disk = max(self.disk, sum(_size(path) for path in files))
                await trio.sleep(0.2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            yield
            nursery.cancel_scope.cancel()
        self.memory = (start, most, memory_of(pid))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def judge(outcome: Outcome, *, most_p99: float, most_log_in: float, quota: int, kept: float = math.inf) -> list[str]:
    """What isn't as it should be, a sentence each. ``kept``: of memory, bytes; in seconds none can be given back."""
    row, report, during = outcome.row, outcome.report, outcome.during
    found = [f"{count} answers {end}" for end, count in report.ends.items() if end in row.never]
    if row.wanted is not None and row.wanted not in report.ends:
        found.append(f"nothing was answered {row.wanted}: this says nothing")
    found += [f"honest agents got {count} {what}" for what, count in during.bad.items()]
    if during.at(0.99) > most_p99:
        found.append(f"honest agents waited {during}")
    if outcome.log_in > most_log_in:
        found.append(f"a right key waited {outcome.log_in:.1f} s")
    if row.gone_after is not None and report.longest > row.gone_after:
        found.append(f"a connection was held for {report.longest:.0f} s")
    if outcome.disk > quota:
        found.append(f"events took {outcome.disk} bytes of {quota}")
    before, most, after = outcome.memory
    if most - before > MOST_MEMORY:
        found.append(f"{(most - before) // MIB} MiB were used at once")
    if after - before > kept:
        found.append(f"{(after - before) // MIB} MiB weren't given back")
    return found + told_apart(report.took)


def told_apart(took: Mapping[str, Sequence[float]]) -> list[str]:
    """Whether answers to wrong passwords say who there is: by what was hashed for each, and by how long that took."""
    hashed = [took.get(f"{who}: 401", ()) for who in ("a user", "nobody")]
    few, many = sorted(len(seconds) for seconds in hashed)
    found = []
    if many > 2 * few + TOLD_APART_ANSWERS:
        found.append(f"answers tell apart who there is: {few} and {many} of them are 401")
    medians = sorted(median(seconds) for seconds in hashed if seconds)
    if medians and medians[-1] > 2 * medians[0] + TOLD_APART:
        found.append(f"answers tell apart who there is: {medians}")
    return found


async def hostile(folder: Path, say: Say, *, only: str | None = None) -> None:
    """Raises ``AssertionError`` where honest agents noticed too much."""
    outcomes = []
    certificate = throwaway_certificate()
    for number, row in enumerate(ROWS):
        if only is None or only in row.name:
            say(f"{row.name}: {row.count}, for {row.seconds:.0f} s")
            outcomes.append(await run_row(row, folder / f"{number}", certificate, small=False))
            say(outcomes[-1].line())
    print("\n".join([HEAD, *(outcome.line() for outcome in outcomes)]), flush=True)
    wrong = {one.row.name: judge(one, most_p99=1.0, most_log_in=2.0, quota=QUOTA, kept=KEPT) for one in outcomes}
    assert not any(wrong.values()), {name: what for name, what in wrong.items() if what}
