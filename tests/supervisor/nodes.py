"""A daemon of several workers, looked at from outside: its status, its processes, and agents at work."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio
import yaml
from attrs import define, field

from tests.e2e.processes import KEY, Files, Running
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.testing import AgentClient, Reply, exchange, request_head, stateful_event, stateless_event

POLL_INTERVAL = 0.02


async def ask(files: Files, method: str, path: str, body: bytes = b"") -> Reply:
    """One request on the command socket."""
    head = request_head(method, path, [("Host", "h"), ("Content-Length", str(len(body)))])
    async with await trio.open_unix_socket(str(files.socket)) as stream:
        return await exchange(stream, head, (body,) if body else ())


async def status(files: Files) -> dict[str, Any]:
    reply = await ask(files, "GET", "/api/v1/status")
    assert reply.status == 200
    found: dict[str, Any] = reply.json()
    return found


async def serving(files: Files, count: int, *, generation: int | None = None, but: int | None = None) -> list[int]:
    """The process ids of the workers, once so many serve (of that generation; without the process ``but``), and no
    others are there."""
    while True:
        found = await status(files)
        workers = [w for w in found["workers"] if generation in (None, w["generation"]) and w.get("pid") != but]
        pids = [w["pid"] for w in workers if w["state"] == "serving" and "pid" in w]
        if len(pids) == count == len(found["workers"]):
            return pids
        await trio.sleep(POLL_INTERVAL)


async def parked(files: Files, count: int) -> None:
    """Returns once so many polls wait, on all workers together. (They say so once a second.)"""
    while sum(worker.get("parked", 0) for worker in (await status(files))["workers"]) != count:  # noqa: ASYNC110
        await trio.sleep(POLL_INTERVAL)


async def ended(pid: int) -> None:
    """Returns once the process is no more, or only waits to be reaped by whoever adopted it."""
    while is_alive(pid):  # noqa: ASYNC110
        await trio.sleep(POLL_INTERVAL)


def is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def change(files: Files, **changes: Any) -> None:
    """Other keys of ``communications_api`` in the file."""
    document = yaml.safe_load(files.config.read_text())
    document["communications_api"].update(changes)
    files.config.write_text(yaml.safe_dump(document))


@define
class Load:
    """Agents that send one event after the other. ``acknowledged``: what they were told is stored; ``failed``: requests
    without a good answer."""

    acknowledged: set[str] = field(factory=set)
    stateless: set[int] = field(factory=set)
    failed: list[str] = field(factory=list)
    requests: int = 0

    async def more(self, count: int) -> None:
        """Returns after so many more requests."""
        wanted = self.requests + count
        while self.requests < wanted:  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL)


@asynccontextmanager
async def each_sending(
    clients: Sequence[AgentClient], send: Callable[[int, AgentClient], Awaitable[None]]
) -> AsyncIterator[None]:
    """``send`` is called for each agent, one call after the other, while the block runs; the last ones end. Its number
    is another one each time, an odd one first."""
    done = trio.Event()

    async def work(first: int, client: AgentClient) -> None:
        for number in count(first):
            if done.is_set():
                return
            await send(number, client)

    async with trio.open_nursery() as nursery:
        for position, client in enumerate(clients):
            nursery.start_soon(work, position * 1_000_000 + 1, client)
        try:
            yield
        finally:
            done.set()


@asynccontextmanager
async def under_load(daemon: Running, agents: int | Sequence[AgentClient] = 4) -> AsyncIterator[Load]:
    """Agents, so many new ones or those that are enrolled, work while the block runs, and finish what they are at."""
    load = Load()
    clients = await daemon.add_agents(agents) if isinstance(agents, int) else agents
    for client in clients:
        assert (await client.authenticate()).status == 200

    async def send(n: int, client: AgentClient) -> None:
        try:
            if n % 2:
                reply = await client.post_stateful([stateful_event(f"id{n}", "fim", "create", {"n": n})])
            else:
                reply = await client.post_stateless([stateless_event("m", "c", {"n": n})])
        except Exception as error:
            load.failed.append(repr(error))
            return
        finally:
            load.requests += 1
        if reply.status == 200 and reply.json()["results"][0]["status"] in (200, 201):
            load.acknowledged.add(f"{client.uuid}_id{n}")
        elif reply.status == 204:
            load.stateless.add(n)
        else:
            load.failed.append(f"{reply.status} {reply.body!r}")

    async with each_sending(clients, send):
        yield load


async def add_logged_in(daemon: Running, count: int) -> list[AgentClient]:
    """Enrolled, with tokens as the daemon would sign them: hundreds of log-ins would take seconds of hashing."""
    settings = load_config(daemon.files.config).config.communications_api
    keys = TokenKeys.from_pem(settings.ssl.key.read_bytes())
    hashed = hash_key(KEY)
    agents = [Agent(str(uuid4()), f"a{number}", hashed) for number in range(count)]
    async with open_backends(load_config(daemon.files.config).config) as backends:
        for agent in agents:
            await backends.agents.add(agent)
    clients = []
    for agent in agents:
        client = daemon.client(agent.id, KEY)
        client.token = keys.mint(agent.id, agent.fingerprint, time.time())
        clients.append(client)
    return clients


async def post(files: Files, commands: Sequence[tuple[str, str]]) -> set[str]:
    """Posts ``(document id, agent)``; the ids that the poster is told were taken. Raises ``AssertionError`` on a
    refusal."""
    document = [
        {"document_id": name, "target": {"type": "agent", "id": agent}, "action": {"name": "x"}}
        for name, agent in commands
    ]
    reply = await ask(files, "POST", "/api/v1/commands", json.dumps({"commands": document}).encode())
    assert reply.status == 200, reply
    return {command["document_id"] for command in reply.json()["commands"]}


async def reload(files: Files) -> dict[str, Any]:
    """The daemon's answer to a reload through the command socket."""
    reply: dict[str, Any] = (await ask(files, "POST", "/api/v1/reload")).json()
    return reply
