"""Who sends a body slowly, and has more than its share of what bodies may take, or has it for long, makes room for
those who wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from attrs import define, field
from trio.testing import MemoryReceiveStream, MockClock, wait_all_tasks_blocked

from tests.hostile.slow.test_slow_replies import have_room
from tests.http.server.listener import (
    CALLER,
    FakeAuthenticator,
    Fakes,
    Server,
    app_of,
    read_reply,
    request_bytes,
    serving,
)
from wazuh_comms_trio.api.agent_api.base import AgentApi
from wazuh_comms_trio.api.quart_application import ROOM_TIMEOUT
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.http.server.bodies import RequestRoom, Spill, collect_body
from wazuh_comms_trio.http.server.body_budget import HELD_FOR, LOOKS_APART, PATIENCE, SPARED, BodyBudget, Share
from wazuh_comms_trio.http.server.hypercorn_protocol import Message
from wazuh_comms_trio.http.server.room import SLOW_BODIES
from wazuh_comms_trio.http.server.streams.peer_progress import RATE_SECONDS, WAITING, BodyWaiting, PeerProgress
from wazuh_comms_trio.services.authentication.authenticator import Caller

LIMIT = 20_000_000
BATCH = 1_000_000
LEAST = 65536  # of `limits.body_rate`, bytes a second
#: 1 Mbit/s.
SLOW_LINE = 125_000
STEPS = 16  # a second


class ManyAgents(FakeAuthenticator):
    """Each token is another agent's."""

    async def verify(self, token: bytes | None) -> Caller:
        await trio.lowlevel.checkpoint()
        return attrs.evolve(CALLER, agent=attrs.evolve(CALLER.agent, id=(token or b"").decode()))


@define
class Sender:
    """Sends one body of ``size`` bytes, ``burst`` of them at once, the others at ``rate``, but never the last ones
    (``keeps``). ``status``: what it was answered, ``ended``: when."""

    rate: float
    owner: str = "thief"
    size: int = BATCH
    burst: int = 0
    keeps: int = 0
    pieces: bool = True
    path: str = "/api/v1/events/stateful"
    status: int = field(default=0, init=False)
    retry_after: str | None = field(default=None, init=False)
    ended: float = field(default=0.0, init=False)

    async def run(self, server: Server) -> None:
        stream = await server.connect()
        body = b" " * self.size
        head = request_bytes("POST", self.path, body, token=self.owner.encode())[: -self.size]
        await stream.send_all(head)

        async def write() -> None:
            await stream.send_all(body[: self.burst])
            piece = max(1, int(self.rate / STEPS))
            for start in range(self.burst, self.size - self.keeps, piece):
                await trio.sleep(1 / STEPS)
                await stream.send_all(body[start : min(start + piece, self.size - self.keeps)])
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            reply = await read_reply(stream)
            self.status, self.retry_after = reply.status, reply.header("retry-after")
            self.ended = trio.current_time()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def bodies(*senders: Sender, limit: int = LIMIT) -> AsyncIterator[tuple[AgentApi, Server]]:
    """While these send. At the end they are cut off."""
    app = app_of(fakes := Fakes(authentication=ManyAgents()), Limits(agent_uploads=1000))
    assert isinstance(app, AgentApi)
    app.body_budget.limit_bytes = limit
    async with serving(fakes, app=app, buffer_bytes=65536) as server, trio.open_nursery() as nursery:
        for sender in senders:
            nursery.start_soon(sender.run, server)
        await wait_all_tasks_blocked()
        yield app, server
        nursery.cancel_scope.cancel()


async def full(app: AgentApi) -> None:
    """Until it nearly is; the rest is somebody's whose reply comes late."""
    budget = app.body_budget
    with trio.fail_after(60):
        while budget.used_bytes < 0.9 * budget.limit_bytes:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.1)
    budget.hold(Share("a large reply"), max(1, budget.limit_bytes + 1 - budget.used_bytes))


async def test_a_thiefs_make_room_for_a_share(autojump_clock: MockClock) -> None:
    """Just fast enough for ``limits.body_rate``, of one token: they held all room, and nobody was ended."""
    thief = [Sender(1.1 * LEAST, size=4 * BATCH) for _ in range(25)]
    async with bodies(*thief) as (app, _):
        await full(app)
        assert await have_room(app, "somebody") == PATIENCE
        await wait_all_tasks_blocked()
        ended = [sender for sender in thief if sender.status]
        assert {(sender.status, sender.retry_after) for sender in ended} == {(503, "5")}
        assert app.services.refusals.by_cause[SLOW_BODIES] == len(ended)
        assert len(ended) == 3  # of some 0.7 MB each


async def test_nobody_is_ended_while_nobody_waits(autojump_clock: MockClock) -> None:
    thief = [Sender(1.1 * LEAST) for _ in range(15)]
    async with bodies(*thief) as (app, _):
        await trio.sleep(BATCH / LEAST)
        assert [sender.status for sender in thief] == [200] * 15
        assert not app.services.refusals.by_cause


@pytest.mark.parametrize("thieves", [1, 40], ids=["one-token", "many"])
async def test_an_honest_batch_on_a_slow_line_is_taken(thieves: int, autojump_clock: MockClock) -> None:
    """Also where it is the slowest, and each thief has less than a tenth."""
    thief = [Sender(2 * SLOW_LINE, f"thief{number % thieves}", size=5 * BATCH) for number in range(40)]
    honest = [Sender(SLOW_LINE, f"honest{number}") for number in range(5)]
    async with bodies(*thief, *honest):
        await trio.sleep(10)
        assert [sender.status for sender in honest] == [200] * 5
        assert max(sender.ended for sender in honest) < 9
        assert {503} < {sender.status for sender in thief}


async def test_several_thieves_with_a_share_each(autojump_clock: MockClock) -> None:
    """Those that would take long are ended, the slowest first."""
    thieves = [Sender((1 + number / 20) * LEAST, f"thief{number}", size=8 * BATCH) for number in range(20)]
    async with bodies(*thieves) as (app, _):
        await full(app)
        assert await have_room(app, "somebody") == PATIENCE
        await wait_all_tasks_blocked()
        assert [sender.status for sender in thieves[:5]] == [503, 503, 503, 503, 0]


@pytest.mark.parametrize(("keeps", "rate"), [(1, 100 * LEAST), (0, LEAST / 1000)], ids=["stalls", "trickles"])
async def test_what_came_fast_and_is_slow_now_is_slow(keeps: int, rate: float, autojump_clock: MockClock) -> None:
    senders = [Sender(rate, f"thief{number}", burst=BATCH - 50_000, keeps=keeps) for number in range(23)]
    async with bodies(*senders) as (app, _):
        await trio.sleep(1)
        await full(app)
        await trio.sleep(SPARED)
        assert await have_room(app, "somebody") <= RATE_SECONDS + PATIENCE
        await wait_all_tasks_blocked()
        assert 503 in {sender.status for sender in senders}


async def test_a_body_in_pieces_is_whole_in_time(autojump_clock: MockClock) -> None:
    """Its first piece had room, and a thief's bodies, which waited for it, took all the rest before its second came."""
    thief = [Sender(3 * LEAST, size=BATCH) for _ in range(200)]
    honest = Sender(40 * LEAST, "honest")
    async with bodies(*thief) as (app, server):
        await full(app)
        await trio.sleep(SPARED)
        began = trio.current_time()
        with trio.fail_after(5):
            await honest.run(server)
        assert honest.status == 200
        assert honest.ended - began < ROOM_TIMEOUT
        assert app.body_budget.used_bytes <= app.body_budget.limit_bytes


async def test_what_waits_for_us_is_not_ended(autojump_clock: MockClock) -> None:
    """A whole body whose event is written has no peer to be slow."""
    sender = Sender(BATCH)
    async with bodies(sender, limit=BATCH // 2) as (app, server):
        server.fakes.stateful.takes = 20
        await trio.sleep(SPARED + 1)
        with trio.move_on_after(10) as waiting:
            await have_room(app, "somebody")
        assert waiting.cancelled_caught
        await trio.sleep(10)
        assert sender.status == 200


async def test_a_whole_body_that_waits_for_its_replys_room_is_not_ended(autojump_clock: MockClock) -> None:
    """One in chunks, whose size nobody knows before its end, counted as one that would never be there."""
    ended: list[str] = []
    budget = BodyBudget(BATCH, ended=ended.append)
    room, waiting = RequestRoom(budget, "honest", ROOM_TIMEOUT), BodyWaiting(120.0, LEAST, 30.0, {}, None)
    parts = [b" " * LEAST] * 10

    async def receive() -> Message:
        with waiting.begun() as scope:
            await trio.sleep(SPARED / 5)
        waiting.over(scope, LEAST)
        return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts), WAITING: waiting}

    async with (
        collect_body(receive, limit=BATCH, budget=budget, room_timeout=ROOM_TIMEOUT, share=room.share),
        trio.open_nursery() as nursery,
    ):
        budget.hold(other := Share("another"), BATCH + 1 - budget.used_bytes)
        nursery.start_soon(budget.take, Share("somebody"), LEAST)
        nursery.start_soon(room.reserve, BATCH)
        await trio.sleep(ROOM_TIMEOUT - 0.1)
        assert not ended
        budget.give_back(other)
    assert room.share.held_bytes


@pytest.mark.parametrize("_", range(10))
async def test_what_came_while_we_stood_still_is_read_first(_: int, autojump_clock: MockClock) -> None:
    """All seemed to have sent nothing for as long. Who is first in the turn after that is chance."""
    ended: list[str] = []
    budget = BodyBudget(LIMIT, ended=ended.append)
    lines = [MemoryReceiveStream() for _ in range(5)]

    async def read(number: int) -> None:
        waiting = BodyWaiting(120.0, LEAST, 30.0, {}, 8 * BATCH)
        share = Share(f"honest{number}", waiting)
        while not waiting.makes_room:
            data = b""
            with waiting.begun() as scope:
                try:
                    data = bytes(await lines[number].receive_some(LIMIT))
                finally:
                    waiting.over(scope, len(data))
            budget.take_now(share, len(data) // 10)  # less than an agent's share

    def write(size: int) -> None:
        for line in lines:
            line.put_data(b" " * size)

    async with trio.open_nursery() as nursery:
        for number in range(len(lines)):
            nursery.start_soon(read, number)
        for _ in range(STEPS * 3):
            write(BATCH // STEPS)
            await trio.sleep(1 / STEPS)
        budget.hold(Share("a large reply"), LIMIT + 1 - budget.used_bytes)
        nursery.start_soon(budget.take, Share("somebody"), LEAST)
        await trio.sleep(PATIENCE / 2)
        write(BATCH * 2)
        autojump_clock.jump(RATE_SECONDS + 1)
        await trio.sleep(PATIENCE / 2)
        assert not ended
        nursery.cancel_scope.cancel()


async def test_files_make_room_likewise(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    """Threads aren't waited for by the mock clock."""

    async def write(spill: Spill, file: object, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Spill, "write", write)
    monkeypatch.setattr(trio.to_thread, "run_sync", in_place)
    thief = Sender(2 * LEAST, size=100 * BATCH, burst=10 * BATCH)
    async with bodies(thief, limit=1000 * BATCH) as (app, _):
        budget = app.spill.budget
        budget.limit_bytes = 9 * BATCH
        await trio.sleep(RATE_SECONDS * 2)
        assert budget.used_bytes > budget.limit_bytes
        budget.hold(Share("another"), BATCH)
        began = trio.current_time()
        await budget.wait_for_room(Share("somebody"), BATCH)
        assert trio.current_time() - began == PATIENCE
        await wait_all_tasks_blocked()
        assert thief.status == 503
        assert app.services.refusals.by_cause == {SLOW_BODIES: 1}


async def in_place(function: object, *args: object, **_: object) -> object:
    await trio.lowlevel.checkpoint()
    assert callable(function)
    return function(*args)


async def test_many_who_wait_look_seldom(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    app = app_of(Fakes())
    assert isinstance(app, AgentApi)
    budget = app.body_budget
    budget.limit_bytes = 1000
    budget.hold(Share("thief"), 1001)
    monkeypatch.setattr(budget, "_end_slow", lambda size: looks.append(trio.current_time()))

    async def wait(number: int) -> None:
        await trio.sleep(number / 1000)
        with trio.move_on_after(ROOM_TIMEOUT):
            await budget.take(Share(f"{number}"), 10)

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(wait, number)
    assert 10 < len(looks) <= (1 + ROOM_TIMEOUT) / LOOKS_APART


class TestProgress:
    async def moved(self, progress: PeerProgress, *steps: tuple[float, int]) -> None:
        for seconds, size in steps:
            progress.begin(trio.CancelScope())
            await trio.sleep(seconds)
            progress.end(size)

    async def test_the_rate_is_that_of_the_last_seconds(self, autojump_clock: MockClock) -> None:
        progress = PeerProgress()
        await self.moved(progress, (1, 1_000_000), *[(1, 100)] * 5)
        assert progress.needs(1000, trio.current_time()) == pytest.approx(10)

    async def test_time_in_which_we_do_not_wait_is_none(self, autojump_clock: MockClock) -> None:
        progress = PeerProgress()
        for _ in range(5):
            await self.moved(progress, (1, 100))
            await trio.sleep(100)
        assert progress.waited(trio.current_time()) == 5
        assert progress.needs(1000, trio.current_time()) == pytest.approx(10)

    async def test_who_has_moved_nothing_lately_never_will(self, autojump_clock: MockClock) -> None:
        progress = PeerProgress()
        await self.moved(progress, (1, 1_000_000))
        progress.begin(trio.CancelScope())
        await trio.sleep(RATE_SECONDS - 0.1)
        assert progress.needs(1, trio.current_time()) < 1
        await trio.sleep(0.1)
        assert progress.needs(1, trio.current_time()) == float("inf")


def test_an_honest_batch_has_time_to_spare() -> None:
    assert BATCH / SLOW_LINE * 2 <= HELD_FOR
