"""``scripts/soak leases``: what is somebody's for a while, in real time and past it, at the product's own times.

A command is claimed for an agent that doesn't read its answer, and whoever holds the claim is killed, stopped, or
ended: the command comes to the agent's next poll, when its time has come and not before it.
"""

from __future__ import annotations

import json
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from tests.e2e.processes import Files, Running, start_daemon, tool, write_files
from tests.engine.fake import FakeEngine, fake_engine
from tests.indexer.cluster import PLAIN, shared_node
from tests.indexer.daemons import wazuh_files
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.harness import call
from tests.supervisor.nodes import add_logged_in, kill, parked, serving, status
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.config.backend_models import IndexerCommands
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.daemon.supervisor.generation import HUNG_AFTER
from wazuh_comms_trio.services.presence.watch import LEASE, LOOK
from wazuh_comms_trio.testing import AgentClient, Certificate, ExchangeFailed, throwaway_certificate

WORKERS = 2
#: More than the buffers of a peer that doesn't read take.
LARGE = 500_000
#: Seconds: for a process's start and a busy machine, beside what is waited for.
SPARE = 15.0
#: ``limits.send_timeout``.
SEND_TIMEOUT = 30.0
#: A command is waited for as long as all of it takes.
TIMEOUT = 3600

Say = Callable[[str], None]


class DeafStream(trio.abc.Stream):
    """Reads until ``deaf``; what comes then is seen, and stays where it is."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.deaf = False
        self.came = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.wait_readable(self.stream.socket)
        if self.deaf:
            self.came.set()
            await trio.sleep_forever()
        return bytes(await self.stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def deaf_poll(
    agent: AgentClient, port: int, is_parked: Callable[[], Awaitable[None]]
) -> AsyncIterator[DeafStream]:
    """A parked poll of the agent's whose answer won't be read. ``is_parked`` is awaited before that."""
    opened: list[DeafStream] = []

    async def connect() -> trio.abc.Stream:
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", port))
        opened.append(DeafStream(trio.SocketStream(sock)))
        return opened[0]

    hears = agent._connect
    agent._connect = connect

    async def poll() -> None:
        with suppress(ExchangeFailed):
            await agent.poll()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await is_parked()
        agent._connect = hears
        (stream,) = opened
        stream.deaf = True
        yield stream
        nursery.cancel_scope.cancel()


async def store_large(files: Files, name: str, agent: AgentClient) -> None:
    """As another process does."""
    action = Action("restart", args={"text": "x" * LARGE})
    command = Command(name, Target("agent", agent.uuid), action, timeout=TIMEOUT)
    async with open_backends(load_config(files.config).config) as backends:
        await backends.commands.add([command])


async def received(agent: AgentClient) -> Sequence[str]:
    """As an agent does: again after every answer without commands, and after every failure."""
    while True:
        try:
            reply = await agent.poll()
        except ExchangeFailed:
            await trio.sleep(0.05)
            continue
        assert reply.status in (200, 408, 503), reply
        if reply.status == 200:
            return [command["document_id"] for command in reply.json()["commands"]]
        await trio.sleep(0.05)


async def after(what: str, agent: AgentClient, name: str, say: Say, *, least: float, most: float) -> None:
    """From now on the agent polls: the command comes, once, after ``least`` to ``most`` seconds."""
    began = time.monotonic()
    with trio.move_on_after(most):
        got = await received(agent)
        took = time.monotonic() - began
        say(f"{what}: its command comes after {took:.1f} s")
        assert got == [name]
        assert took >= least
        return
    raise AssertionError(f"{what}: its command didn't come within {most:.0f} s")


async def leases(folder: Path, say: Say) -> None:
    """With a real OpenSearch where ``tests/indexer/setup`` was run, else with the tests' own. Raises
    ``AssertionError``, ``TooSlowError``."""
    certificate = throwaway_certificate()
    (folder / "embedded").mkdir()
    await embedded(write_files(folder / "embedded", certificate.cert, certificate.key, workers=WORKERS), say)
    if (PLAIN.folder / "lib").is_dir():
        node = shared_node()  # it ends with the thread that began it
        say("two nodes on a real OpenSearch")
        await two_nodes(folder, certificate, node.port, say)
        return
    say("two nodes on the tests' own indexer: tests/indexer/setup wasn't run")
    async with fake_indexer() as own:
        await two_nodes(folder, certificate, own, say)


# --- one node, embedded


async def embedded(files: Files, say: Say) -> None:
    async with start_daemon(files, expect_errors=True, limit=math.inf) as daemon:
        for watch in (unread, killed, hung, leaders):
            await serving(files, WORKERS)
            await watch(files, daemon, say)
        async with unread_command(files, daemon, "killed-daemon") as agent:
            pids = await serving(files, WORKERS)
            daemon.process.kill()
            await daemon.process.wait()
            for pid in pids:
                kill(pid)
    async with start_daemon(files, limit=math.inf) as daemon:
        await serving(files, WORKERS)
        agent._connect = daemon.connect
        await after("the daemon was killed", agent, "killed-daemon", say, least=0, most=SPARE)


@asynccontextmanager
async def unread_command(files: Files, daemon: Running, name: str) -> AsyncIterator[AgentClient]:
    """A new agent to which its command ``name`` has begun to come, and that doesn't read it."""
    (agent,) = await add_logged_in(daemon, 1)
    async with deaf_poll(agent, daemon.port, lambda: parked(files, 1)) as poll:
        await store_large(files, name, agent)
        await poll.came.wait()
        yield agent


async def unread(files: Files, daemon: Running, say: Say) -> None:
    """Nobody else gets it while it may still arrive."""
    async with unread_command(files, daemon, "unread") as agent:
        least, most = SEND_TIMEOUT - 3, SEND_TIMEOUT + SPARE
        await after("an answer isn't read", agent, "unread", say, least=least, most=most)


async def killed(files: Files, daemon: Running, say: Say) -> None:
    async with unread_command(files, daemon, "killed") as agent:
        for pid in await serving(files, WORKERS):
            kill(pid)
        await after("its worker was killed", agent, "killed", say, least=0, most=SPARE)


async def hung(files: Files, daemon: Running, say: Say) -> None:
    async with unread_command(files, daemon, "hung") as agent:
        for pid in await serving(files, WORKERS):
            kill(pid, signal.SIGSTOP)
        await after("its worker hangs", agent, "hung", say, least=HUNG_AFTER - 2, most=HUNG_AFTER + SPARE)


async def leaders(files: Files, daemon: Running, say: Say) -> None:
    """One worker after the other hangs, and so the leader, which alone looks for what another process has stored: the
    agents of the worker that is left get it before the one that hangs is replaced."""
    for turn in range(WORKERS):
        pid = (await serving(files, WORKERS))[turn]
        agents = await add_logged_in(daemon, 20)
        got: list[float] = []

        async def poll(agent: AgentClient, got: list[float] = got) -> None:
            assert len(await received(agent)) == 1
            got.append(time.monotonic())

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await parked(files, len(agents))
            workers = (await status(files))["workers"]
            others = sum(worker["parked"] for worker in workers if worker["pid"] != pid)
            kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            await tool(files, "commands", "send", "--all", "--yes", "restart")
            with trio.fail_after(HUNG_AFTER + 2 * SPARE):
                while len(got) < others:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                first = time.monotonic() - began
                while len(got) < len(agents):  # noqa: ASYNC110
                    await trio.sleep(0.01)
        say(
            f"a worker hangs: the others' agents have commands after {first:.1f} s, its own after {got[-1] - began:.1f}"
        )


# --- two nodes on an indexer

#: Seconds of silence after which an agent is lost; more than a poll.
POLL, LOST_AFTER = 10.0, 90.0


@asynccontextmanager
async def fake_indexer() -> AsyncIterator[int]:
    """Its port."""
    async with trio.open_nursery() as nursery:
        indexer = FakeOpenSearch(nursery)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, indexer.serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def two_nodes(folder: Path, certificate: Certificate, port: int, say: Say) -> None:
    """One is killed that holds the claim of a command, and the right to tell which agents are lost."""
    of_node = {
        "indexer": {"commands": {}},  # the product's own times
        "timeouts": {"commands": POLL},
        "presence": {"events": True, "disconnected_after": LOST_AFTER},
    }
    first, second = (wazuh_files(folder / name, certificate, [port], **of_node) for name in ("first", "second"))
    async with (
        fake_engine(first.folder),
        fake_engine(second.folder) as engine,
        start_daemon(first, expect_errors=True, limit=math.inf) as doomed,
    ):
        with trio.fail_after(LOOK + SPARE):
            while (held_by := await holder(port)) is None:  # noqa: ASYNC110  # nothing tells
                await trio.sleep(0.2)
        async with start_daemon(second, limit=math.inf) as left:
            await take_over(doomed, left, engine, say)
            assert await holder(port) not in (None, held_by)


async def take_over(doomed: Running, left: Running, engine: FakeEngine, say: Say) -> None:
    lease, idle = IndexerCommands().lease, IndexerCommands().idle_interval
    agent, silent = await add_logged_in(left, 2)
    async with deaf_poll(agent, doomed.port, lambda: parked(doomed.files, 1)) as poll:
        await store_large(doomed.files, "claimed", agent)
        await poll.came.wait()
        claimed = time.monotonic()
        while time.monotonic() - claimed < lease + idle:  # it is renewed meanwhile
            assert (await silent.get_file("missing.yml")).status == 404
            with trio.move_on_after(1):
                raise AssertionError(f"claimed by a node that is there, and given to {await received(agent)}")
        doomed.process.kill()
        killed = time.monotonic()
        # Renewed in a round of that node's, when a third of the lease is over: every second one at the least.
        least, most = lease - 2.5 * idle, lease + 2 * idle + SPARE
        await after("its node was killed", agent, "claimed", say, least=least, most=most)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(received, agent)  # it is there: one alone is told of by its own name
        with trio.fail_after(LEASE + 2 * LOOK + SPARE):
            while not lost_of(engine, silent):  # noqa: ASYNC110
                await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    took = time.monotonic() - killed
    say(f"the node that tells of lost agents was killed: another one tells after {took:.1f} s")
    assert took >= LEASE - LOOK - 1
    (event,) = lost_of(engine, silent)
    assert event["event"]["action"] == "agent-lost"
    assert event["presence"]["seconds"] >= LOST_AFTER


async def holder(port: int) -> str | None:
    """The node that has the right to tell of lost agents."""
    found = await trio.to_thread.run_sync(call, port, "GET", "/wazuh-comms-presence/_doc/watch")
    return found["_source"]["holder"] if found.get("found") else None


def lost_of(engine: FakeEngine, agent: AgentClient) -> Sequence[Any]:
    """What the engine was told of it."""
    told = []
    for _, _, body in engine.requests:
        about, *events = map(json.loads, body.splitlines())
        told += [event for event in events if "event" in event and about["agent"]["id"] == agent.uuid]
    return told
