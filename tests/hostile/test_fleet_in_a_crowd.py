"""A fleet whose keys all have to be hashed comes at once, through the kernel's queue, the crowd and the hashing: nobody
is told to come again at the same moment as all others, so that hashing is busy nearly all the time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.http.server import accept_loop
from wazuh_comms_trio.http.server.accept_loop import BACKLOG, serve_crowd
from wazuh_comms_trio.http.server.crowd import Pace
from wazuh_comms_trio.http.server.giving_way import GivingWay
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

AGENTS, HASH, HANDSHAKE, WAIT_LIMIT, PAUSE, PATIENCE = 600, 0.25, 0.005, 15.6, 30.0, 60.0


@define(eq=False)
class Connection:
    """A socket before and after it was accepted. ``ended`` with a token or without."""

    name: str
    logged_in: bool = False
    ended: trio.Event = field(factory=trio.Event)
    family: int = 1

    def recv(self, size: int, flags: int) -> bytes:
        return b"\x16"

    def close(self) -> None:
        self.ended.set()


@define(eq=False)
class Node:
    """A listener and what is behind it. The processor does one handshake at a time."""

    waiting: deque[Connection] = field(factory=deque)
    backlog: int = BACKLOG
    undecided: int = 0
    handshake: trio.Lock = field(factory=trio.Lock)
    hashed: int = 0
    secrets: VerifiedSecrets = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.secrets = VerifiedSecrets(self.hash, at_once=1)

    @property
    def socket(self) -> Node:
        return self

    def listen(self, backlog: int) -> None:
        self.backlog = backlog

    def queue(self) -> tuple[int, int]:
        return len(self.waiting), self.backlog

    def take_nowait(self) -> Connection | None:
        return self.waiting.popleft() if self.waiting else None

    def stream(self, connection: Connection) -> Connection:
        return connection

    async def hash(self, fn: Callable[..., Any], *args: object) -> Any:
        self.hashed += 1
        await trio.sleep(HASH)
        return True

    async def log_in(self, connection: Connection, context: object) -> None:
        self.undecided += 1
        async with self.handshake:
            await trio.sleep(HANDSHAKE)
        self.undecided -= 1
        with suppress(Overloaded):
            connection.logged_in = await self.secrets.matches(connection.name, "", "key", wait_limit=WAIT_LIMIT)
        connection.close()

    async def serve(self, nursery: trio.Nursery) -> None:
        context = SimpleNamespace(
            capacity=self.secrets,
            undecided=lambda: self.undecided,
            refused=lambda *_: None,
            giving_way=GivingWay(lambda: False),
        )
        room = SimpleNamespace(shortage=lambda accepted: None)
        shortage = SimpleNamespace(highest=inf, room=room, of_descriptors=lambda sock: False)
        pace = Pace(self.secrets)
        while True:
            if self.waiting:
                await serve_crowd(cast(Any, self), cast(Any, context), nursery, cast(Any, shortage), pace)
            await trio.sleep(0.01)


async def come_until_logged_in(node: Node, name: str, rng: random.Random) -> None:
    """As an agent's kernel does it, and the agent."""
    await trio.sleep(rng.random() / 2)
    while True:
        tries = 0
        while len(node.waiting) >= node.backlog and 2**tries < PATIENCE:
            await trio.sleep(2**tries)
            tries += 1
        if len(node.waiting) < node.backlog:
            connection = Connection(name)
            node.waiting.append(connection)
            await connection.ended.wait()
            if connection.logged_in:
                return
        await trio.sleep(PAUSE)


async def test_hashing_is_busy_until_all_are_served(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    node, rng = Node(), random.Random(1)
    monkeypatch.setattr(accept_loop, "serve_connection", node.log_in)
    began = trio.current_time()
    async with trio.open_nursery() as serving:
        serving.start_soon(node.serve, serving)
        async with trio.open_nursery() as agents:
            for number in range(AGENTS):
                agents.start_soon(come_until_logged_in, node, f"agent {number}", rng)
        serving.cancel_scope.cancel()
    assert node.hashed == AGENTS
    assert trio.current_time() - began < AGENTS * HASH * 1.2 + 60
