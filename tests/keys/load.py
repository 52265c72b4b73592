"""Agents at work on one node or several while keys change: what they are answered, and that none logs in again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from tests.e2e.processes import KEY, Files, Running
from tests.supervisor.nodes import each_sending, status
from wazuh_comms_trio.testing import AgentClient, connect_tcp, stateful_event
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

PAUSE = 0.02


@define
class Nodes:
    """Those that serve now; a connection goes to any of them."""

    ports: list[int] = field(factory=list)

    async def connect(self) -> trio.abc.Stream:
        if not self.ports:
            raise OSError("no node serves")
        return await connect_tcp("127.0.0.1", random.choice(self.ports))()


@define
class Work:
    """``refused``: statuses that weren't a success. ``served``: requests that were, in all."""

    served: int = 0
    refused: list[str] = field(factory=list)

    async def more(self, count: int) -> None:
        wanted = self.served + count
        while self.served < wanted and not self.refused:  # noqa: ASYNC110
            await trio.sleep(PAUSE)


async def keys_in_force(files: Files) -> dict[str, Any]:
    """Of the first worker, once it has told its supervisor of itself: it serves a moment before."""
    with trio.fail_after(20):
        while "keys" not in (worker := (await status(files))["workers"][0]):  # noqa: ASYNC110  # nothing tells
            await trio.sleep(PAUSE)
    found: dict[str, Any] = worker["keys"]
    return found


async def logged_in(daemon: Running, nodes: Nodes, count: int) -> list[AgentClient]:
    """Agents that have their one token."""
    clients = [
        AgentClient(nodes.connect, uuid=client.uuid, key=KEY, name="a") for client in await daemon.add_agents(count)
    ]
    for client in clients:
        assert (await client.authenticate()).status == 200
    return clients


@asynccontextmanager
async def at_work(clients: Sequence[AgentClient]) -> AsyncIterator[Work]:
    """Each sends one event after the other while the block runs. A connection that fails is tried again, as agents
    do; whatever else isn't a success is noted. None of them logs in."""
    work, tokens = Work(), [client.token for client in clients]

    async def send(number: int, client: AgentClient) -> None:
        try:
            reply = await client.post_stateful([stateful_event(f"id{number}", "fim", "create", {"n": number})])
        except (OSError, ExchangeFailed, trio.BrokenResourceError):
            await trio.sleep(PAUSE)
            return
        if reply.status == 200:
            work.served += 1
        else:
            work.refused.append(f"{reply.status} {reply.body!r}")

    async with each_sending(clients, send):
        yield work
    assert [client.token for client in clients] == tokens
