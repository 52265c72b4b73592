"""``scripts/soak hour``: a mixed load, and what grows, leaks or slows down under it.

A hundred agents poll, send events of both kinds, report commands, fetch files and log in again; beside them large
bodies, peers that break off, agents that come and go, and a log that is moved away every minute. The load's rate is
its own, not the daemon's: what a slower daemon answers later is seen in the times, not in fewer requests. What has its
effect only after its time is watched beside it (``watches.py``).
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final
from uuid import uuid4

import trio
from attrs import Factory, define

from tests.e2e.processes import Files, Running, start_daemon
from tests.supervisor.nodes import add_logged_in, ask, change, post, serving, status
from tests.supervisor.soak.figures import MEMORY_SAMPLE, Memory, Sample, busy, growth, load_of_machine, own_memory, p99
from tests.supervisor.soak.watches import WATCHDOG_USEC, OldToken, not_fed, not_seen
from tests.systemd.manager import open_manager
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, Reply, connect_tcp, stateful_event, stateless_event

WORKERS: Final = 2
AGENTS: Final = 100
#: Seconds, each more or less a half: between an agent's bodies, log-ins, files; between commands, large bodies, peers
#: that break off, changes of the registry, tokens that never were any.
BODY, LOG_IN, FILE, COMMAND, LARGE, BROKEN, CHANGE, REFUSED = 5.0, 400.0, 60.0, 0.5, 20.0, 2.0, 20.0, 15.0
POLL_LIMIT: Final = 60
LOG_MOVED: Final = 60.0
#: Of a large body. Few agents send them, so that all of their documents are soon there.
LARGE_EVENTS, LARGE_AGENTS = 10_000, 2
SAMPLE: Final = 10.0
#: Documents of an agent: their number stays, so that what grows is the daemon and not what it keeps.
DOCUMENTS: Final = 50
#: Seconds: of a load that warms everything up, and of quiet, after which only what stays is left.
WARM_UP, QUIET = 60.0, 20.0

GUEST_HASH: Final = hash_key("g" * 32)
EMBEDDED: Final = {"max_file_bytes": 16 << 20, "max_bytes": 128 << 20, "on_full": "delete_oldest"}

# What is asked of the daemon.
MOST_GROWTH: Final = 1.0  # MB an hour, of a worker, after SETTLED
SETTLED: Final = 20 * 60.0
MOST_LEFT: Final = 2  # descriptors and tasks
WINDOW: Final = 10 * 60.0
MOST_SLOWER: Final = 1.2


async def look(files: Files, began: float) -> list[Sample]:
    """Of the workers that serve."""
    samples = []
    for worker in (await status(files))["workers"]:
        if worker["state"] != "serving" or "pid" not in worker:
            continue  # another one was killed: it is missed at the end
        with suppress(OSError):
            pid = worker["pid"]
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            samples.append(Sample(time.monotonic() - began, pid, own_memory(pid), descriptors, worker["tasks"]))
    return samples


@define
class Load:
    files: Files
    daemon: Running
    agents: Sequence[AgentClient]
    rng: random.Random
    times: list[tuple[float, float]] = Factory(list)  # of small requests: the moment of the end, seconds
    done: Counter[str] = Factory(Counter)
    failed: Counter[str] = Factory(Counter)

    async def run(self, seconds: float) -> None:
        """Requests that are under way at the end are finished, polls cut off."""
        until = trio.current_time() + seconds

        async def every(interval: float, act: Callable[[], Awaitable[None]]) -> None:
            pause = self.rng.uniform(0, interval)
            while trio.current_time() + pause < until:
                await trio.sleep(pause)
                await act()
                pause = self.rng.uniform(0.5, 1.5) * interval

        async with trio.open_nursery() as polls:
            for agent in self.agents:
                polls.start_soon(self.poll, agent)
            async with trio.open_nursery() as nursery:
                for agent in self.agents:
                    documents: set[str] = set()
                    nursery.start_soon(every, BODY, partial(self.stateless, agent))
                    nursery.start_soon(every, BODY, partial(self.stateful, agent, documents))
                    nursery.start_soon(every, LOG_IN, partial(self.log_in, agent))
                    nursery.start_soon(every, FILE, partial(self.file, agent))
                for interval, act in (
                    (COMMAND, self.command),
                    (LARGE, self.large),
                    (BROKEN, self.broken),
                    (CHANGE, self.change),
                    (REFUSED, self.refused),
                    (LOG_MOVED, self.move_log),
                ):
                    nursery.start_soon(every, interval, act)
            polls.cancel_scope.cancel()

    # --- what is done, and how it has to be answered

    async def request(
        self, kind: str, call: Callable[[], Awaitable[Reply]], good: set[int], *, timed: bool
    ) -> Reply | None:
        began = time.monotonic()
        try:
            reply = await call()
        except ExchangeFailed as error:
            self.failed[f"{kind}: {error}"] += 1
            return None
        if reply.status not in good:
            self.failed[f"{kind}: {reply.status} {reply.body[:100]!r}"] += 1
            return None
        now = time.monotonic()
        if timed:
            self.times.append((now, now - began))
        self.done[kind] += 1
        return reply

    async def poll(self, agent: AgentClient) -> None:
        await trio.sleep(self.rng.uniform(0, 5))
        while True:
            reply = await self.request("poll", agent.poll, {200, 408}, timed=False)
            for command in [] if reply is None or reply.status == 408 else reply.json()["commands"]:
                name = command["document_id"]
                await self.request("report", partial(agent.report, name, 0), {200}, timed=True)
            await trio.sleep(1)

    async def stateless(self, agent: AgentClient) -> None:
        text = "x" * self.rng.choice([100, 1000, 10_000])
        events = [stateless_event("m", "c", {"n": n, "text": text}) for n in range(self.rng.randint(1, 10))]
        await self.request("stateless", lambda: agent.post_stateless(events), {204}, timed=True)

    async def stateful(self, agent: AgentClient, own: set[str]) -> None:
        events = []
        for _ in range(self.rng.randint(1, 5)):
            name = f"d{self.rng.randrange(DOCUMENTS)}"
            if name in own and self.rng.random() < 0.2:
                own.remove(name)
                events.append(stateful_event(name, "fim", "delete"))
            else:
                operation = "update" if name in own else "create"
                own.add(name)
                events.append(stateful_event(name, "fim", operation, {"n": self.rng.random()}))
        await self.request("stateful", lambda: agent.post_stateful(events), {200}, timed=True)

    async def log_in(self, agent: AgentClient) -> None:
        await self.request("log-in", agent.authenticate, {200}, timed=False)

    async def file(self, agent: AgentClient) -> None:
        await self.request("file", lambda: agent.get_file("default.conf"), {200}, timed=True)

    async def command(self) -> None:
        agent = self.rng.choice(self.agents)
        try:
            await post(self.files, [(str(uuid4()), agent.uuid)])
        except (AssertionError, ExchangeFailed) as error:
            self.failed[f"post: {error}"] += 1
        self.done["post"] += 1

    async def large(self) -> None:
        agent = self.rng.choice(self.agents[:LARGE_AGENTS])
        value = self.rng.random()
        data = {"n": value, "text": "x" * 400}
        events = [stateful_event(f"l{n}", "fim", "update", data) for n in range(LARGE_EVENTS)]
        await self.request("large", lambda: agent.post_stateful(events), {200}, timed=False)

    async def broken(self) -> None:
        """A peer that leaves in the middle: of the handshake, or of what it says instead."""
        with suppress(OSError, trio.BrokenResourceError):
            stream = await connect_tcp("127.0.0.1", self.daemon.port)()
            await stream.send_all(self.rng.choice([b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"]))
            await trio.sleep(self.rng.uniform(0, 3))
            await trio.aclose_forcefully(stream)
        self.done["broken"] += 1

    async def change(self) -> None:
        """An agent joins, and goes again."""
        agent = Agent(str(uuid4()), f"guest-{uuid4()}", GUEST_HASH)
        try:
            async with open_backends(load_config(self.files.config).config) as backends:
                await backends.agents.add(agent)
                await trio.sleep(1)
                await backends.agents.remove(agent.id)
        except* BackendUnavailable as error:
            self.failed[f"change: {error.exceptions[0]}"] += 1
        else:
            self.done["change"] += 1

    async def refused(self) -> None:
        """What is no token; the daemon's log says so."""
        stranger = self.daemon.client(str(uuid4()), "g" * 32)
        stranger.token = "no.to.ken"  # noqa: S105
        await self.request("refused", lambda: stranger.get_file("default.conf"), {403}, timed=False)

    async def move_log(self) -> None:
        log = self.files.folder / "daemon.log"
        await trio.lowlevel.checkpoint()
        try:
            log.rename(log.with_suffix(".log.1"))
        except FileNotFoundError:
            self.failed["the log didn't come back after it was moved"] += 1
        else:
            self.done["log moved"] += 1


# --- the verdict


def judge(
    load: Load,
    began: float,
    seconds: float,
    window: float,
    samples: Sequence[Memory],
    before: Sequence[Sample],
    after: Sequence[Sample],
    say: Callable[[str], None],
) -> list[str]:
    """``samples`` are those after memory had settled; ``before`` and ``after`` are of quiet moments."""
    wrong = []
    say(", ".join(f"{kind} {count}" for kind, count in sorted(load.done.items())))
    if load.failed:
        wrong.append("failed: " + ", ".join(f"{times} x {what}" for what, times in load.failed.most_common(20)))
    first = [took for moment, took in load.times if moment - began < window]
    last = [took for moment, took in load.times if seconds - window <= moment - began]
    ratio = p99(last) / p99(first)
    say(
        f"p99, first {window / 60:.1f} minutes {1000 * p99(first):.1f} ms, last {1000 * p99(last):.1f} ms: "
        f"{ratio:.2f} x; medians {1000 * statistics.median(first):.1f} and {1000 * statistics.median(last):.1f} ms"
    )
    if ratio > MOST_SLOWER:
        wrong.append(f"p99 grew to {ratio:.2f} x")
    if {sample.pid for sample in before} != {sample.pid for sample in after}:
        wrong.append("a worker was replaced")
        return wrong
    for old, new in zip(sorted(before, key=by_pid), sorted(after, key=by_pid), strict=True):
        own = [sample for sample in samples if sample.pid == new.pid]
        grew = growth(own)
        hours = (own[-1].time - own[0].time) / 3600
        say(
            f"worker {new.pid}: descriptors {old.descriptors} -> {new.descriptors}, tasks {old.tasks} -> {new.tasks}; "
            f"memory, over the last {60 * hours:.0f} minutes: {grew:+.2f} MB an hour"
        )
        # In minutes less than an hour's limit can't be told from noise: then it is what was seen that is limited.
        if grew * min(1.0, 2 * hours) >= MOST_GROWTH:
            wrong.append(f"worker {new.pid} grew by {grew:.2f} MB an hour")
        if abs(new.descriptors - old.descriptors) > MOST_LEFT or abs(new.tasks - old.tasks) > MOST_LEFT:
            wrong.append(f"worker {new.pid} kept descriptors or tasks")
    return wrong


def by_pid(sample: Sample) -> int:
    return sample.pid


# --- the whole


async def hour(files: Files, minutes: float, say: Callable[[str], None]) -> list[str]:
    """What isn't as it should be, a sentence each."""
    change(
        files,
        embedded={"path": str(files.state), "events": EMBEDDED},
        timeouts={"commands": POLL_LIMIT},
    )
    (files.groups / "default.conf").write_text("<agent_config/>")
    seconds = 60 * minutes
    settled, window = min(SETTLED, seconds / 3), min(WINDOW, seconds / 4)
    async with (
        open_manager(files.folder) as manager,
        start_daemon(
            files,
            limit=math.inf,
            environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": WATCHDOG_USEC},
        ) as daemon,
    ):
        await serving(files, WORKERS)
        # From now on into a file, of which moving it away is a part of the load.
        change(files, logging={"level": "info", "file": str(files.folder / "daemon.log")})
        assert (await ask(files, "POST", "/api/v1/reload")).json()["reloaded"]
        await serving(files, WORKERS, generation=2)
        load = Load(files, daemon, await add_logged_in(daemon, AGENTS), random.Random(1))
        [keeper] = await daemon.add_agents(1)
        old_token = OldToken(keeper)
        await load.run(WARM_UP)
        await trio.sleep(QUIET)
        before = await look(files, time.monotonic())
        load.times.clear()
        load.done.clear()
        began, memory, busy_at = time.monotonic(), list[Memory](), [busy()]
        pids = [sample.pid for sample in before]
        say(f"{AGENTS} agents for {minutes:g} minutes")

        async def watch() -> None:
            while True:
                await trio.sleep(SAMPLE)
                samples = await look(files, began)
                now = time.monotonic() - began
                if now // 60 != (now - SAMPLE) // 60:
                    newest = [f"{s.memory / 1e6:.1f} MB {s.descriptors} fd {s.tasks} tasks" for s in samples]
                    say(f"{now / 60:3.0f} min: {len(load.times)} requests; " + "; ".join(newest))

        async def watch_memory() -> None:
            while True:
                now = time.monotonic() - began
                with suppress(OSError):  # a worker that is gone is missed at the end
                    memory.extend([Memory(now, pid, own_memory(pid)) for pid in pids])
                await trio.sleep(MEMORY_SAMPLE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(watch_memory)
            nursery.start_soon(old_token.run)

            async def mark(moment: float) -> None:
                await trio.sleep(moment)
                busy_at.append(busy())

            for moment in (window, seconds - window, seconds):
                nursery.start_soon(mark, moment)
            await load.run(seconds)
            await trio.sleep(QUIET)
            nursery.cancel_scope.cancel()
        after = await look(files, time.monotonic())
        settled_memory = [sample for sample in memory if settled <= sample.time <= seconds]
        wrong = judge(load, began, seconds, window, settled_memory, before, after, say)
        fed, pause = manager.fed(trio.current_time())
        wrong += [*not_fed(pause), *old_token.wrong, *await not_seen(files, load.agents)]
        say(
            f"the watchdog was fed {fed} times, {pause:.1f} s apart at most; "
            f"{old_token.renewed} tokens were used until their end, "
            + ", ".join(f"{times} x {status}" for status, times in sorted(old_token.answers.items()))
        )
        say(
            f"the machine was busy {load_of_machine(busy_at[0], busy_at[1]):.0f} % in the first window, "
            f"{load_of_machine(busy_at[-2], busy_at[-1]):.0f} % in the last"
        )
    return wrong
