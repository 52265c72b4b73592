"""Stateful requests whose connection is cut at every stage, with two workers and embedded stores: the agent sends
again, and goes on, wherever it lands. The same documents, the newest ones, and nothing leaks."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import apsw
import msgspec
import pytest
import trio
import trio.lowlevel

from tests.e2e.processes import Files, Running, start_daemon
from tests.supervisor.nodes import POLL_INTERVAL, add_logged_in, serving, status
from wazuh_comms_trio.testing import AgentClient, request_head, stateful_event
from wazuh_comms_trio.testing.agent.connection import close_as_agent

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]
Close = Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]

MIB: Final = 1024 * 1024
EVENTS: Final = 9


async def reset(stream: trio.SSLStream[trio.SocketStream]) -> None:
    stream.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


CLOSES: Final = {"reset": reset, "as agents do": close_as_agent}


def packet(agent: AgentClient, version: int, size: int) -> bytes:
    """Creates that replace, so many bytes together; one event has nothing to change when it comes again."""
    events = [
        stateful_event(f"d{number}", "fim", "create", {"v": version, "x": "x" * (size // EVENTS)})
        for number in range(EVENTS)
    ]
    return agent.metadata + b"".join(events)


def head(agent: AgentClient, body: bytes) -> bytes:
    names = [("Host", agent.host), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", str(len(body)))]
    return request_head("POST", "/api/v1/events/stateful", names)


async def send(agent: AgentClient, body: bytes) -> list[tuple[str, int]]:
    """Until it is taken, as an agent does; the results."""
    while True:
        reply = await agent.request("POST", "/api/v1/events/stateful", body)
        if reply.status == 200:
            return [(result["result"], result["status"]) for result in reply.json()["results"]]
        assert reply.status == 503
        await trio.sleep(0.05)


def versions(files: Files, agent: AgentClient) -> set[int]:
    connection = apsw.Connection(str(files.state / "state.db"), apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5000)
        bodies = connection.execute("SELECT body FROM documents WHERE id LIKE ? || '%'", (agent.uuid,)).fetchall()
        assert len(bodies) == EVENTS
        return {msgspec.json.decode(body)["v"] for (body,) in bodies}
    finally:
        connection.close()


@asynccontextmanager
async def locked(files: Files) -> AsyncIterator[None]:
    """Nothing is written meanwhile: who waits for an answer waits on."""
    connection = apsw.Connection(str(files.state / "state.db"))
    try:
        connection.set_busy_timeout(5000)
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def descriptors(pids: Sequence[int]) -> list[int]:
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]


def nameless(pids: Sequence[int], folder: Path) -> list[str]:
    """Files of the state that have no name, and what of temporary ones has one."""
    links = []
    for pid in pids:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return [link for link in links if link.startswith(str(folder)) and link.endswith("(deleted)")]


async def idle(files: Files) -> None:
    """Returns once no worker has anything to write."""
    while True:
        reports = [worker["batcher"] for worker in (await status(files))["workers"]]
        if not any(
            report["waiting"] or report["batches_in_flight"] or report["pieces_in_flight"] for report in reports
        ):
            return
        await trio.sleep(POLL_INTERVAL)


async def waiting(files: Files) -> None:
    """Returns once a worker has something to write."""
    while not any(worker["batcher"]["waiting"] for worker in (await status(files))["workers"]):  # noqa: ASYNC110
        await trio.sleep(POLL_INTERVAL)


class Attack:
    """One agent's requests, cut in the way that ``close`` is; each is sent again, and the next one after it."""

    def __init__(self, files: Files, agent: AgentClient, size: int, close: Close) -> None:
        self._files = files
        self._agent = agent
        self._size = size
        self._close = close
        self._version = 0

    async def cut_before_the_answer(self, part: Callable[[bytes, bytes], bytes]) -> None:
        """After so much of head and body."""
        body = self._next()
        await self._send_some(part(head(self._agent, body), body))
        await self._go_on(body)

    async def cut_while_the_answer_is_waited_for(self) -> None:
        body = self._next()
        async with trio.open_nursery() as nursery, locked(self._files):
            stream = await self._open(head(self._agent, body) + body)
            await waiting(self._files)
            await self._close(stream)
            nursery.start_soon(send, self._agent, body)  # to one that waits as well
            await trio.lowlevel.checkpoint()
        await self._go_on(body)

    async def cut_in_the_answer(self) -> None:
        body = self._next()
        stream = await self._open(head(self._agent, body) + body)
        assert await stream.receive_some(1) == b"H"
        await self._close(stream)
        assert [status for _, status in await send(self._agent, body)] == [200] * EVENTS
        await self._go_on(body)

    async def _go_on(self, body: bytes) -> None:
        """It sends again until it is answered, then the next packet, which is what counts in the end."""
        await send(self._agent, body)
        assert await send(self._agent, body) == [("noop", 200)] * EVENTS
        following = self._next()
        assert await send(self._agent, following) == [("updated", 200)] * EVENTS
        await idle(self._files)
        assert versions(self._files, self._agent) == {self._version}
        assert await send(self._agent, following) == [("noop", 200)] * EVENTS

    def _next(self) -> bytes:
        self._version += 1
        return packet(self._agent, self._version, self._size)

    async def _send_some(self, data: bytes) -> None:
        await self._close(await self._open(data))

    async def _open(self, data: bytes) -> trio.SSLStream[trio.SocketStream]:
        stream = await self._agent._open()
        with suppress(trio.BrokenResourceError):  # it may be refused
            await stream.send_all(data)
        return stream  # type: ignore[return-value]


STAGES: Final[dict[str, Callable[[bytes, bytes], bytes]]] = {
    "nothing": lambda head, body: b"",
    "a part of the head": lambda head, body: head[: len(head) // 2],
    "the head": lambda head, body: head,
    "a part of the body": lambda head, body: head + body[: len(body) * 3 // 4],
    "all but a byte": lambda head, body: head + body[:-1],
    "all of it": lambda head, body: head + body,
}


@pytest.mark.parametrize("close", CLOSES)
async def test_small_ones(close: str, make_files: MakeFiles) -> None:
    await attack(make_files(workers=2), CLOSES[close], 4000, list(STAGES))


async def test_ones_that_lie_in_files(make_files: MakeFiles) -> None:
    """Their files have no names, and room for few of them is there."""
    files = make_files(workers=2, limits={"body_bytes": 10 * MIB, "agent_uploads": 2})
    await attack(files, reset, 9 * MIB, ["a part of the body"])


async def attack(files: Files, close: Close, size: int, stages: Sequence[str]) -> None:
    async with start_daemon(files) as daemon:
        pids = await serving(files, 2)
        (agent,) = await add_logged_in(daemon, 1)
        one = Attack(files, agent, size, close)
        for _ in range(2):
            await one.cut_before_the_answer(STAGES["all of it"])  # makes what stays open
        before = await settled(daemon, pids)
        for stage in stages:
            await one.cut_before_the_answer(STAGES[stage])
        await one.cut_while_the_answer_is_waited_for()
        await one.cut_in_the_answer()
        with trio.fail_after(60):  # what a busy machine closes late isn't left
            after = await settled(daemon, pids)
            while any(now > then + 2 for now, then in zip(after, before, strict=True)):  # many more were cut
                after = await settled(daemon, pids)


async def settled(daemon: Running, pids: Sequence[int]) -> list[int]:
    """How many descriptors the workers have, once no connection is left and no file without a name."""
    with trio.fail_after(30):
        await idle(daemon.files)
        while nameless(pids, daemon.files.folder):  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL)
        previous: list[int] = []
        while (now := descriptors(pids)) != previous:
            previous = now
            await trio.sleep(0.3)
    return now
