"""What a worker's status says of stores' calls that go on failing, also of a store that is well enough to be ready."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.daemon.worker.service_gauges import read_service_gauges
from wazuh_comms_trio.errors import EngineRefused, EngineRequestError
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.families import WARNINGS
from wazuh_comms_trio.services.failing_calls import FailingCalls
from wazuh_comms_trio.services.measured_backends import measured
from wazuh_comms_trio.testing import stateful_event, stateless_event
from wazuh_comms_trio.testing.node.daemon import open_daemon

BLOCKED = ItemResult(403, "index read-only / allow delete (api)", Outcome.PASSING)
ENGINE = "engine.send_events has failed 11 times in 10 s: Error 2803 - The request to the engine failed"


class Stores:
    """Stores in memory, ``made``, whose calls go through ``used``."""

    def __init__(self) -> None:
        self.made: MemoryBackends = memory_backends()
        self.failing = FailingCalls()
        self.used = measured(self.made, Metrics(), self.failing)

    async def send(self) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"agent":{}}\n{"module":"m","collector":"c"}\n{}\n'

        await self.used.engine.send_events(body(), agent_id="a", length=None)

    async def fail(self, seconds: int) -> None:
        """Once a second."""
        for _ in range(seconds):
            with pytest.raises(EngineRequestError):
                await self.send()
            await trio.sleep(1)

    async def write(self, *verdicts: ItemResult | None) -> None:
        given = iter(verdicts)
        self.made.events.judge = lambda operation: next(given)
        await self.used.events.bulk([DocumentOperation("create", "i", str(n), b"{}") for n in range(len(verdicts))])


async def test_while_it_fails(autojump_clock: MockClock) -> None:
    stores = Stores()
    stores.made.engine.faults.error = EngineRequestError()
    await stores.fail(4)
    assert stores.failing.lines() == []  # it may be a moment
    await stores.fail(7)
    assert stores.failing.lines() == [ENGINE]
    stores.made.engine.faults.error = None
    await stores.send()
    assert stores.failing.lines() == []


async def test_until_nobody_has_tried_for_a_minute(autojump_clock: MockClock) -> None:
    stores = Stores()
    stores.made.engine.faults.error = EngineRequestError()
    await stores.fail(11)
    await trio.sleep(58)
    assert stores.failing.lines() == [ENGINE]
    await trio.sleep(2)
    assert stores.failing.lines() == []


async def test_a_body_that_is_refused_is_no_failure(autojump_clock: MockClock) -> None:
    stores = Stores()
    stores.made.engine.faults.error = EngineRequestError()
    await stores.fail(11)
    stores.made.engine.faults.error = EngineRefused()
    with pytest.raises(EngineRefused):
        await stores.send()
    assert stores.failing.lines() == []


async def test_a_bulk_call_of_which_nothing_was_taken(autojump_clock: MockClock) -> None:
    busy = ItemResult(429, "rejected execution", Outcome.PASSING)
    stores = Stores()
    for _ in range(3):
        await stores.write(busy, busy)
        await trio.sleep(5)
    assert stores.failing.lines() == ["events.bulk has failed 3 times in 10 s: 429 rejected execution"]
    await stores.write(busy, None)
    assert stores.failing.lines() == []


async def test_a_call_that_is_given_up_each_time(autojump_clock: MockClock) -> None:
    """A probe of the same store may be answered meanwhile."""
    stores = Stores()
    stores.made.events.faults.hang()
    for _ in range(2):
        with trio.move_on_after(30):
            await stores.write(None)
    assert stores.failing.lines() == ["events.bulk has failed 2 times in 30 s: no answer for 30.0 s"]


async def test_what_is_given_up_soon_or_for_its_agent_is_no_failure(autojump_clock: MockClock) -> None:
    """An agent goes; or it is slow to send the body that the engine waits for."""
    stores = Stores()
    stores.made.events.faults.hang()
    stores.made.engine.faults.hang()
    for _ in range(10):
        with trio.move_on_after(1):
            await stores.write(None)
        with trio.move_on_after(30):
            await stores.send()
    assert stores.failing.lines() == []


async def test_agents_that_leave_are_no_failure(autojump_clock: MockClock) -> None:
    """Long after what is prompt, and before the time of their request is over."""
    stores = Stores()
    stores.made.engine.faults.hang()
    stores.made.events.faults.hang()

    async def leave(ask: Callable[[], Awaitable[object]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(20)
            nursery.cancel_scope.cancel()

    with trio.move_on_after(1000):
        for _ in range(5):
            await leave(partial(stores.used.engine.scan, b"{}"))
            await leave(partial(stores.write, None))
    assert stores.failing.lines() == []
    with trio.move_on_after(20):
        await stores.used.engine.scan(b"{}")
    with trio.move_on_after(20):
        await stores.used.engine.scan(b"{}")
    assert stores.failing.lines() == ["engine.scan has failed 2 times in 20 s: no answer for 20.0 s"]


async def test_an_index_that_takes_nothing_beside_others(autojump_clock: MockClock) -> None:
    """Calls in which other indices' events are taken are no failures of the store."""
    async with open_daemon() as daemon:
        agent, other = await daemon.enrol_agent(), await daemon.enrol_agent()

        def judge(operation: DocumentOperation) -> ItemResult | None:
            return BLOCKED if operation.index == "wazuh-states-sca" else None

        async def post(module: str) -> int:
            return (await agent.post_stateful([stateful_event("e", module, "create", {"n": 1})])).status

        async def others() -> None:
            while True:
                assert (await other.post_stateful([stateful_event("e", "fim", "create", {"n": 1})])).status == 200
                await trio.sleep(1)

        def lines() -> list[str]:
            return Heartbeat(daemon.worker, LastError(mask)).report().warnings

        def gauge() -> float:
            readings = list(read_service_gauges(daemon.worker.services, daemon.worker.contexts[0].app))
            return next(value for family, labels, value in readings if (family, labels) == (WARNINGS, ("calls",)))

        assert (await agent.authenticate()).status == 200
        assert (await other.authenticate()).status == 200
        daemon.backends.events.judge = judge
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            assert (lines(), gauge()) == ([], 0)
            assert await post("sca") == 503
            (line,) = lines()
            assert line.startswith("storing events for wazuh-states-sca has failed ")
            assert line.endswith(": index read-only / allow delete (api)")
            assert gauge() == 1
            daemon.backends.events.judge = lambda operation: None
            assert await post("sca") == 200
            assert (lines(), gauge()) == ([], 0)
            nursery.cancel_scope.cancel()


async def test_the_worker_reports_it(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent()
        assert (await agent.authenticate()).status == 200
        daemon.backends.engine.faults.error = EngineRequestError()
        for _ in range(11):
            assert (await agent.post_stateless([stateless_event("m", "c", {"n": 1})])).status == 503
            await trio.sleep(1)
        assert Heartbeat(daemon.worker, LastError(mask)).report().warnings == [ENGINE]
