"""An engine and an indexer that become half as fast in the middle of a run: our clients of them, the batcher, and the
services above, on the mock clock. What they can do is done, and who is refused is refused because of that alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock, memory_stream_pair

from tests.engine.fake import FakeEngine
from tests.indexer.bench import stores_of
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.fake_bodies import Answer
from tests.services.bench import body, caller, event, trio_wall_clock
from wazuh_comms_trio.backends.engine import client
from wazuh_comms_trio.backends.engine.client import open_engine_client
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.backend_models import EngineClient
from wazuh_comms_trio.config.models import Batcher, Events
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.services.stateful.events import StatefulEvents
from wazuh_comms_trio.services.stateless.events import StatelessEvents

#: Seconds: of a run, and after which the backend is half as fast; then some in which it has noticed.
RUN, CHANGE, NOTICED = 120, 40, 20
STATELESS_S, STATEFUL_S = 10.0, 30.0  # the routes' limits
EVENTS = b'\n{"module":"logcollector","collector":"file"}\n{"event":{"original":"x"}}'
ITEMS = 20  # events of a stateful body

Send = Callable[[int], Awaitable[object]]


@define
class Work:
    """What a backend does: so many calls at a time, each for ``takes`` seconds for a piece of work; others wait, in
    order."""

    parallel: int
    takes: float
    _free: trio.Semaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free = trio.Semaphore(self.parallel)

    @property
    def capacity(self) -> float:
        return self.parallel / self.takes

    async def do(self, pieces: float = 1.0) -> None:
        with trio.CancelScope(shield=True):  # also what nobody waits for any more
            async with self._free:
                await trio.sleep(pieces * self.takes)


@define
class WorkingEngine(FakeEngine):
    work: Work = field(kw_only=True)

    async def _answer(self, *args: Any) -> None:
        await self.work.do()
        await super()._answer(*args)


class WorkingIndexer(FakeOpenSearch):
    """Takes as long as there are documents in a bulk call."""

    work: Work

    async def _answer(self, method: str, target: str, body: bytes) -> Answer:
        if "_bulk" in target:
            await self.work.do(body.count(b"\n") / 2 / ITEMS)
        return await super()._answer(method, target, body)


@asynccontextmanager
async def stateless(work: Work, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Send]:
    engine = WorkingEngine(Path("engine"), work=work)
    async with trio.open_nursery() as nursery, open_engine_client(EngineClient()) as ours:

        async def connect(path: str) -> trio.abc.Stream:
            near, far = memory_stream_pair()
            nursery.start_soon(engine._handle, far)
            await trio.lowlevel.checkpoint()
            return near

        monkeypatch.setattr(client, "connect_unix", connect)
        backends = evolve(memory_backends(wall_clock=trio_wall_clock), engine=ours)
        quarantine = MemoryQuarantine(wall_clock=trio_wall_clock)
        service = StatelessEvents(backends.engine, quarantine, settings=Events(), run_blocking=run_inline)

        async def send(number: int) -> None:
            uuid = agent(number)
            whole = body(agent_id=uuid) + EVENTS
            async with aclosing(one_chunk(whole)) as chunks:
                await service.forward(caller(uuid), chunks, length=len(whole), limit=STATELESS_S)

        yield send
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stateful(work: Work, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Send]:
    async with trio.open_nursery() as nursery:
        indexer = WorkingIndexer(nursery)
        indexer.work = work
        async with stores_of(indexer) as stores:
            backends = evolve(memory_backends(wall_clock=trio_wall_clock), events=stores.events)
            service = StatefulEvents(
                backends,
                MemoryQuarantine(wall_clock=trio_wall_clock),
                events=Events(),
                batcher=Batcher(),
                rng=random.Random(1),
            )
            await nursery.start(service.run_batcher)

            async def send(number: int) -> None:
                events = [event(f"e{number}-{item}") for item in range(ITEMS)]
                whole = body(*events, agent_id=agent(number))
                await service.submit(caller(agent(number)), whole, deadline=trio.current_time() + STATEFUL_S)

            yield send
            service.close()
        nursery.cancel_scope.cancel()


def agent(number: int) -> str:
    return f"0194857f-39b5-7bfb-a7bc-{number:012}"


async def one_chunk(whole: bytes) -> AsyncIterator[bytes]:
    yield whole


async def run_inline(fn: Callable[..., Any], *args: object) -> Any:
    await trio.lowlevel.checkpoint()
    return fn(*args)


@define
class Offered:
    """Requests of an open loop by the second in which they ended."""

    served: Counter[int] = field(factory=Counter)
    refused: Counter[int] = field(factory=Counter)

    async def offer(self, send: Send, rate: float) -> None:
        began = trio.current_time()

        async def one(number: int) -> None:
            try:
                await send(number)
            except BackendUnavailable:
                self.refused[int(trio.current_time() - began)] += 1
            else:
                self.served[int(trio.current_time() - began)] += 1

        async with trio.open_nursery() as nursery:
            for number in range(int(rate * RUN)):
                await trio.sleep_until(began + number / rate)
                nursery.start_soon(one, number)

    def rate(self, start: int, end: int) -> float:
        return sum(self.served[second] for second in range(start, end)) / (end - start)


BACKENDS = {"engine": (stateless, Work(8, 0.4)), "indexer": (stateful, Work(4, 0.2))}


@pytest.mark.parametrize("name", BACKENDS)
async def test_it_does_what_it_can(name: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offered nearly all that it could do at first, afterwards twice what it can: half has to be refused, by and by."""
    service, work = BACKENDS[name]
    work = Work(work.parallel, work.takes)
    rate = 0.95 * work.capacity
    offered = Offered()
    async with service(work, monkeypatch) as send, trio.open_nursery() as nursery:
        nursery.start_soon(offered.offer, send, rate)
        await trio.sleep(CHANGE)
        assert not offered.refused
        work.takes *= 2
    assert offered.rate(CHANGE + NOTICED, RUN) >= 0.9 * work.capacity
    late = [offered.refused[second] for second in range(CHANGE + NOTICED, RUN)]
    assert sum(late) <= 1.1 * (rate - 0.9 * work.capacity) * len(late)
    assert max(late) < 4 * sum(late) / len(late) + 4  # no storm


@pytest.mark.parametrize("name", BACKENDS)
async def test_nobody_is_refused_where_it_is_still_fast_enough(
    name: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered 90 % of what it can do afterwards."""
    service, work = BACKENDS[name]
    work = Work(work.parallel, work.takes)
    rate, offered = 0.45 * work.capacity, Offered()
    async with service(work, monkeypatch) as send, trio.open_nursery() as nursery:
        nursery.start_soon(offered.offer, send, rate)
        await trio.sleep(CHANGE)
        work.takes *= 2
    assert not offered.refused
    assert offered.served.total() == int(rate * RUN)
