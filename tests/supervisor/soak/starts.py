"""One start and one stop, of every kind: at any moment, in any state. Nothing may hang, and nothing may be left."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import trio
from attrs import frozen

from tests.e2e.processes import KEY, START_LIMIT, Files, command_line
from tests.supervisor.nodes import change, kill, status
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, Reply, connect_tcp

#: Hurried or not; the grace period is 10 s, and nothing here needs it.
STOP_LIMIT: Final = 15.0
POLL_INTERVAL: Final = 0.02
#: Nobody who has come so far has anything to lose.
EARLY: Final = 1.0


@frozen
class Started:
    """A daemon in a session of its own: every process of it is known by that, also one that isn't its child."""

    files: Files
    process: trio.Process
    workers: int
    log: Path

    def term(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def up(self) -> list[int]:
        """The workers' process ids once all of them serve."""
        with trio.fail_after(START_LIMIT):
            while True:
                assert self.process.returncode is None, f"it ended with status {self.process.returncode}"
                try:
                    workers = (await status(self.files))["workers"]
                except (OSError, ExchangeFailed):  # it doesn't listen yet
                    workers = []
                pids = [worker["pid"] for worker in workers if worker["state"] == "serving" and "pid" in worker]
                if len(pids) == self.workers:
                    return pids
                await trio.sleep(POLL_INTERVAL)

    async def children(self, count: int) -> None:
        """Returns once it has started so many workers, which needn't serve."""
        with trio.fail_after(START_LIMIT):
            while len(session(self.process.pid)) <= count:  # noqa: ASYNC110
                await trio.sleep(POLL_INTERVAL)

    async def ended(self) -> int:
        """Its exit status, once no process of it is left."""
        with trio.fail_after(STOP_LIMIT):
            code = await self.process.wait()
            while session(self.process.pid):  # noqa: ASYNC110
                await trio.sleep(POLL_INTERVAL)
        return code


def session(leader: int) -> list[int]:
    """Processes of a session that are still at work."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found


#: Takes rights away, and becomes the program.
LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
os.execv(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def started(files: Files, workers: int, *, open_files: int | None = None) -> AsyncIterator[Started]:
    """Whatever is left at the end of the block is killed. ``open_files``: no process of it may have more."""
    limited = [] if open_files is None else [sys.executable, "-c", LIMITED, str(open_files)]
    log = files.folder / "start.log"
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [*limited, *command_line(files)], stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
    try:
        yield Started(files, process, workers, log)
    finally:
        for pid in {process.pid, *session(process.pid)}:
            kill(pid)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await process.wait()


# --- kinds: each returns once the end has begun, with the exit statuses that are right

Kind = Callable[[Started, random.Random, AgentClient], Coroutine[Any, Any, set[int]]]
KINDS: Final[dict[str, Kind]] = {}


def kind(fn: Kind) -> Kind:
    KINDS[fn.__name__] = fn
    return fn


@kind
async def orderly(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    await daemon.up()
    daemon.term()
    return {0}


@kind
async def early(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    """While it starts. Before Python runs there is nobody to obey a signal: it does what it does to any process."""
    await trio.sleep(rng.random() * EARLY)
    daemon.term()
    return {0, -signal.SIGTERM} if not daemon.log.stat().st_size else {0}


@kind
async def early_twice(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    allowed = await early(daemon, rng, agent)
    await trio.sleep(rng.random() * 0.1)
    daemon.term()
    return allowed


@kind
async def twice(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    await daemon.up()
    daemon.term()
    await trio.sleep(rng.random() * 0.1)
    daemon.process.send_signal(signal.SIGINT if rng.random() < 0.5 else signal.SIGTERM)
    return {0}


@kind
async def parked(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    """A poll waits, and is answered."""
    await daemon.up()
    replies: list[Reply] = []

    async def poll() -> None:
        replies.append(await agent.poll())

    with trio.fail_after(STOP_LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            while sum(worker.get("parked", 0) for worker in (await status(daemon.files))["workers"]) != 1:  # noqa: ASYNC110
                await trio.sleep(POLL_INTERVAL)
            daemon.term()
    assert [reply.status for reply in replies] == [408]
    return {0}


@kind
async def worker_killed(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    pids = await daemon.up()
    if daemon.workers == 1:
        kill(daemon.process.pid)
        return {-signal.SIGKILL}
    kill(rng.choice(pids))
    await trio.sleep(rng.random())
    daemon.term()
    return {0}


@kind
async def reloading(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    await daemon.up()
    daemon.process.send_signal(signal.SIGHUP)
    await trio.sleep(rng.random())
    daemon.term()
    return {0}


@kind
async def killed(daemon: Started, rng: random.Random, agent: AgentClient) -> set[int]:
    """At any moment, also while it starts or reloads."""
    if rng.random() < 0.6:
        await daemon.up()
        if rng.random() < 0.5:
            daemon.process.send_signal(signal.SIGHUP)
            await trio.sleep(rng.random())
    else:
        await trio.sleep(rng.random() * EARLY)
    daemon.process.kill()
    return {-signal.SIGKILL}


@frozen
class Place:
    """Where daemons are started one after the other, with one agent."""

    files: Files
    agent: AgentClient
    mint: Callable[[], str]

    async def start_and_stop(self, name: str, workers: int, rng: random.Random) -> None:
        """Raises when anything isn't as it should be, with the log."""
        change(self.files, workers=workers)
        self.agent.token = self.mint()
        async with started(self.files, workers) as daemon:
            try:
                allowed = await KINDS[name](daemon, rng, self.agent)
                code = await daemon.ended()
                assert code in allowed, f"status {code}"
                assert "Traceback" not in daemon.log.read_text()
            except Exception as error:
                left = session(daemon.process.pid)
                says = f"{name}, {workers} workers, processes left: {left}\n{daemon.log.read_text()[-20_000:]}"
                raise AssertionError(says) from error


async def prepare(files: Files) -> Place:
    """The port is always the same: whoever leaves something behind keeps the next one from starting."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    change(files, port=port)
    config = load_config(files.config).config
    keys = TokenKeys.from_pem(config.communications_api.ssl.key.read_bytes())
    known = Agent(str(uuid4()), "a", hash_key(KEY))
    async with open_backends(config) as backends:
        await backends.agents.add(known)
    agent = AgentClient(connect_tcp("127.0.0.1", port), uuid=known.id, key=KEY)
    return Place(files, agent, lambda: keys.mint(known.id, known.fingerprint, time.time()))
