"""What the services' tests share: agents, callers, bodies, and everything put together on memory backends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import trio
from attrs import define, field

from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.config.models import Batcher, Events
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers
from wazuh_comms_trio.services.stateful.events import StatefulEvents

T = TypeVar("T")

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
A2 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"
A3 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d3"
FIM = "wazuh-states-fim"
EPOCH = 1_750_000_000.0


def trio_wall_clock() -> float:
    """Goes with the mock clock."""
    return EPOCH + trio.current_time()


async def inline(fn: Callable[..., T], *args: object) -> T:
    """``run_blocking`` without a thread."""
    await trio.lowlevel.checkpoint()
    return fn(*args)


KEY = "0123456789abcdefghijABCDEFGHIJ01"
KEY_HASH = hash_key(KEY)


def agent(agent_id: str = A1, **changes: Any) -> Agent:
    return Agent(**{"id": agent_id, "name": "a1", "key_hash": KEY_HASH, **changes})


def caller(agent_id: str = A1, *, expires: float = 1e12, **changes: Any) -> Caller:
    return Caller(agent(agent_id, **changes), expires)


def metadata(agent_id: str = A1) -> bytes:
    return json.dumps({"agent": {"id": agent_id, "name": "a1"}}).encode()


def event(
    event_id: str = "e1", operation: str = "create", data: Any = None, *, module: str = "fim", **header: Any
) -> bytes:
    """Header line, and data line unless it is a delete; each with a newline before."""
    lines = b"\n" + json.dumps({"id": event_id, "module": module, "operation": operation, **header}).encode()
    if operation != "delete":
        lines += b"\n" + json.dumps({"file": {"path": event_id}} if data is None else data).encode()
    return lines


def body(*events: bytes, agent_id: str = A1) -> bytes:
    return metadata(agent_id) + b"".join(events)


def results(reply: bytes) -> list[tuple[str | None, int]]:
    """id and status of each."""
    return [(item["id"], item["status"]) for item in json.loads(reply)["results"]]


@define
class Stateful:
    service: StatefulEvents
    backends: MemoryBackends
    quarantine: MemoryQuarantine
    batcher: trio.CancelScope

    async def submit(
        self,
        packet: bytes,
        agent_id: str = A1,
        *,
        limit: float = 30.0,
        has_left: Callable[[], bool] | None = None,
        came: float | None = None,
    ) -> bytes:
        deadline = trio.current_time() + limit
        return await self.service.submit(caller(agent_id), packet, deadline=deadline, has_left=has_left, came=came)


@asynccontextmanager
async def open_stateful(
    *, events: Events | None = None, batcher: Batcher | None = None, max_bytes: int = 1024**3, seed: int = 0
) -> AsyncIterator[Stateful]:
    """With its batcher running; leaving drains it."""
    backends = memory_backends(wall_clock=trio_wall_clock)
    quarantine = MemoryQuarantine(max_bytes=max_bytes, wall_clock=trio_wall_clock)
    service = StatefulEvents(
        backends, quarantine, events=events or Events(), batcher=batcher or Batcher(), rng=Random(seed)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run_batcher)
        yield Stateful(service, backends, quarantine, nursery.cancel_scope)
        service.close()


def command(document_id: str, agent_id: str = A1, **changes: Any) -> Command:
    fields = {"document_id": document_id, "target": Target("agent", agent_id), "action": Action("restart"), **changes}
    return Command(**fields)


@define
class Dispatch:
    service: CommandDispatcher
    backends: MemoryBackends
    received: dict[str, list[str]] = field(factory=dict)

    async def poll(self, agent_id: str = A1, *, limit: float = 300.0, expires: float = 1e12) -> Sequence[str] | None:
        """One poll whose answer arrives; the ids of its commands."""
        offer = await self.service.poll(caller(agent_id, expires=expires), deadline=trio.current_time() + limit)
        if offer is None:
            return None
        ids = [item.document_id for item in offer.commands]
        self.received.setdefault(agent_id, []).extend(ids)
        await offer.confirm()
        return ids


@asynccontextmanager
async def open_dispatch(
    *, keeps_posted: bool = True, agents: Sequence[str] = (A1, A2), other_workers: OtherWorkers = NO_OTHER_WORKERS
) -> AsyncIterator[Dispatch]:
    backends = memory_backends(wall_clock=trio_wall_clock)
    backends.commands.keeps_posted = keeps_posted
    for agent_id in agents:
        await backends.agents.add(agent(agent_id, groups=("web",)))
    service = CommandDispatcher(
        backends.commands,
        backends.agents,
        poll_timeout=300.0,
        wall_clock=trio_wall_clock,
        rng=Random(0),
        other_workers=other_workers,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield Dispatch(service, backends)
        service.close()


def ids(commands: Sequence[Command]) -> list[str]:
    return [one.document_id for one in commands]


async def next_delivery(dispatch: Dispatch, agent_id: str = A1, *, limit: float = 300.0) -> CommandDelivery:
    delivery = await dispatch.service.poll(caller(agent_id), deadline=trio.current_time() + limit)
    assert delivery is not None
    return delivery


async def gather(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """The results of calls that run at the same time, in order."""
    found: dict[int, T] = {}

    async def run(position: int, call: Callable[[], Awaitable[T]]) -> None:
        found[position] = await call()

    async with trio.open_nursery() as nursery:
        for position, call in enumerate(calls):
            nursery.start_soon(run, position, call)
    return [found[position] for position in range(len(calls))]
