"""What a stop does to requests in flight, on the mock clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import (
    SHORT_LIMITS,
    FakeOffer,
    Fakes,
    problem,
    read_reply,
    read_to_end,
    request_bytes,
    serving,
)


async def test_stop_with_nothing_in_flight_is_quick(autojump_clock: MockClock) -> None:
    async with serving(limits=SHORT_LIMITS) as server:
        silent = await server.connect()
        begun = await server.connect()
        await begun.send_all(b"GET /api")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        server.stop.set()
        assert await read_to_end(silent) == b""
        await server.stopped.wait()
        assert trio.current_time() - began < 1
        with pytest.raises(OSError, match="refused"):
            await server.connect()


async def test_stop_lets_requests_finish(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.stateful.takes = 6
    async with serving(fakes, grace=10) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"x"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        server.stop.set()
        assert (await read_reply(stream)).status == 200
        await server.stopped.wait()
        assert trio.current_time() - began == pytest.approx(6)


async def test_stop_cancels_after_the_grace_period(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.stateful.takes = 20
    async with serving(fakes, grace=10) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"x"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        server.stop.set()
        assert await read_to_end(stream) == b""
        await server.stopped.wait()
        assert trio.current_time() - began == pytest.approx(10)


async def test_stop_answers_parked_polls_at_once(autojump_clock: MockClock) -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/commands"))
        await wait_all_tasks_blocked()
        assert server.fakes.commands.parked == 1
        server.stop.set()
        server.fakes.commands.closing.set()  # which is the worker's to do
        assert problem(await read_reply(stream)) == (408, 408)
        began = trio.current_time()
        await server.stopped.wait()
        assert trio.current_time() == began


async def test_cancelled_deliveries_are_released(autojump_clock: MockClock) -> None:
    """The grace period ends while a command's answer isn't acknowledged."""
    fakes = Fakes()
    fakes.commands.offers.append(offer := FakeOffer())
    async with serving(fakes, grace=1) as server:
        stream = await server.listener.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/commands"))
        stream.fall_silent()
        await wait_all_tasks_blocked()
        server.stop.set()
        await server.stopped.wait()
        assert offer.fate == ["released"]
