"""Who reads a large reply slowly doesn't hold up those that wait for its room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from tests.http.server.listener import Fakes, FakeStateful, Server, app_of, request_bytes, serving
from wazuh_comms_trio.api.agent_api.base import AgentApi
from wazuh_comms_trio.http.server.body_budget import PATIENCE, SPARED, Share
from wazuh_comms_trio.http.server.room import SLOW_READERS

REQUEST = request_bytes("POST", "/api/v1/events/stateful", b"{}")
LIMIT = 2_000_000
RATE = 65536  # of `limits.body_rate`, a second


@define
class Reader:
    """Reads one reply, a 64th of ``rate`` at a time. ``received``: bytes, its head among them."""

    rate: float
    received: int = 0
    ended: float = field(default=0.0, init=False)

    async def run(self, server: Server) -> None:
        stream = await server.connect()
        await stream.send_all(REQUEST)
        piece = max(1, int(self.rate / 64))
        while data := await stream.receive_some(piece):
            self.received += len(data)
            await trio.sleep(len(data) / self.rate)
        self.ended = trio.current_time()


@asynccontextmanager
async def replies(*readers: Reader, size: int) -> AsyncIterator[AgentApi]:
    """While these read, each what it was answered, of so many bytes."""
    app = app_of(fakes := Fakes(stateful=FakeStateful(reply=b"x" * size)))
    assert isinstance(app, AgentApi)
    app.body_budget.limit_bytes = LIMIT
    async with serving(fakes, app=app, buffer_bytes=65536) as server, trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(reader.run, server)
        await trio.testing.wait_all_tasks_blocked()
        yield app
    assert app.body_budget.used_bytes == 0


async def have_room(app: AgentApi, owner: str, size: int = 200_000) -> float:
    """How long an agent waits for it."""
    began, share = trio.current_time(), Share(owner)
    await app.body_budget.take(share, size)
    app.body_budget.give_back(share)
    return trio.current_time() - began


async def test_one_that_is_read_slowly_makes_room(autojump_clock: MockClock) -> None:
    slow = Reader(1.1 * RATE)
    async with replies(slow, size=LIMIT + 1) as app:
        await trio.sleep(SPARED)
        assert await have_room(app, "somebody") == PATIENCE
        assert app.services.refusals.by_cause == {SLOW_READERS: 1}
    assert slow.received < LIMIT / 4


async def test_nobody_is_ended_while_nobody_waits(autojump_clock: MockClock) -> None:
    slow = Reader(1.1 * RATE)
    async with replies(slow, size=LIMIT + 1) as app:
        await trio.sleep(SPARED)
    assert slow.received > LIMIT
    assert not app.services.refusals.by_cause


async def test_the_slowest_go_first_and_no_more_than_are_needed(autojump_clock: MockClock) -> None:
    readers = [Reader(rate * RATE) for rate in (1.5, 1.1, 2.0)]
    async with replies(*readers, size=700_000) as app:
        await trio.sleep(SPARED)
        assert await have_room(app, "somebody") == PATIENCE
    assert [reader.received > 700_000 for reader in readers] == [True, False, True]


async def test_who_is_nearly_done_or_has_just_begun_is_waited_for(autojump_clock: MockClock) -> None:
    ends = Reader(700_000 / (2 * SPARED))
    async with replies(ends, size=LIMIT + 1) as app:
        with trio.move_on_after(SPARED - 0.01) as waiting:
            await have_room(app, "somebody")
        assert waiting.cancelled_caught
        app.body_budget.limit_bytes = 2 * LIMIT  # it ends by itself
    assert ends.received > LIMIT


async def test_it_makes_room_on_a_busy_worker_too(autojump_clock: MockClock) -> None:
    """Each request that ended woke those that wait, and their patience began anew."""
    slow = Reader(1.1 * RATE)
    async with replies(slow, size=LIMIT + 1) as app, trio.open_nursery() as nursery:

        async def end_requests() -> None:
            while True:
                with app.room("another"):
                    await trio.sleep(PATIENCE / 5)

        nursery.start_soon(end_requests)
        await trio.sleep(SPARED)
        assert await have_room(app, "somebody") == PATIENCE
        nursery.cancel_scope.cancel()
    assert slow.received < LIMIT / 4


async def test_what_is_nearly_read_is_waited_for_however_small_it_is(autojump_clock: MockClock) -> None:
    """A piece of a quarter of a megabyte counted as unread until all of it was read."""
    ends = Reader(1.2 * RATE)
    async with replies(ends, size=260_000) as app:
        app.body_budget.limit_bytes = 260_000
        app.body_budget.hold(other := Share("another"), 1)
        await trio.sleep(SPARED - PATIENCE / 2)
        assert await have_room(app, "somebody") > PATIENCE
        app.body_budget.give_back(other)
    assert ends.received > 260_000
    assert not app.services.refusals.by_cause


async def test_an_agent_ends_nobody_for_more_than_its_share(autojump_clock: MockClock) -> None:
    slow = Reader(1.1 * RATE)
    async with replies(slow, size=LIMIT + 1) as app:
        share = Share("somebody")
        app.body_budget.hold(share, LIMIT // 10)
        with trio.move_on_after(10):
            await app.body_budget.take(share, 1)
            pytest.fail("it has its share")
        app.body_budget.give_back(share)
    assert slow.received > LIMIT
