"""Large bodies that come together: one of them is read in a turn of the event loop, and of long ones the oldest."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import AUTHORIZED, Server, problem, read_reply, serving
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_reply
from wazuh_comms_trio.http.server.streams.reading_turns import (
    LONG_BYTES,
    LONGEST_WAIT,
    PIECE_BYTES,
    Place,
    ReadingTurns,
)

LONG = LONG_BYTES + 4 * PIECE_BYTES
MEDIUM = 8 * PIECE_BYTES
HEAD = b"POST /api/v1/events/stateful HTTP/1.1\r\nHost: localhost\r\n" + AUTHORIZED + b"\r\nContent-Length: %d\r\n\r\n"


@define(eq=False)
class TurnsOfTheLoop(trio.abc.Instrument):
    count: int = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@define
class Readers:
    """Bodies of which all is there already; ``pieces``: which was read in which turn of the event loop."""

    turns: ReadingTurns = field(factory=ReadingTurns)
    loop: TurnsOfTheLoop = field(factory=TurnsOfTheLoop)
    pieces: list[tuple[int, str]] = field(factory=list)

    async def read(self, name: str, place: Place, size: int) -> None:
        received = PIECE_BYTES
        while received < size:
            await place.next_piece(received, size)
            self.pieces.append((self.loop.count, name))
            received += PIECE_BYTES

    async def read_together(self, **bodies: int) -> None:
        """In the order in which they are named."""
        trio.lowlevel.add_instrument(self.loop)
        try:
            async with trio.open_nursery() as nursery:
                for name, size in bodies.items():
                    nursery.start_soon(self.read, name, Place(self.turns), size)
        finally:
            trio.lowlevel.remove_instrument(self.loop)

    @property
    def ends(self) -> list[str]:
        """The bodies in the order in which they were whole."""
        last = {name: place for place, (_, name) in enumerate(self.pieces)}
        return sorted(last, key=last.__getitem__)


async def test_one_piece_is_read_in_a_turn_of_the_event_loop() -> None:
    readers = Readers()
    await readers.read_together(**{f"{number}": LONG for number in range(20)})
    assert len(readers.pieces) == 20 * (LONG // PIECE_BYTES - 1)
    by_turn = Counter(turn for turn, _ in readers.pieces)
    # When one ends, the next may be begun in the same turn.
    assert max(by_turn.values()) <= 2
    assert sum(by_turn.values()) / len(by_turn) < 1.1


async def test_of_long_ones_the_oldest_are_whole_first() -> None:
    """Two of them go in turn: one is called while the other has its piece."""
    readers = Readers()
    await readers.read_together(a=LONG, b=LONG, c=LONG, d=LONG, e=LONG, f=LONG)
    assert [set(readers.ends[place : place + 2]) for place in (0, 2, 4)] == [{"a", "b"}, {"c", "d"}, {"e", "f"}]


async def test_others_go_in_turn_and_have_every_second_piece() -> None:
    readers = Readers()
    await readers.read_together(long=LONG, longer=LONG, a=MEDIUM, b=MEDIUM)
    assert set(readers.ends[:2]) == {"a", "b"}
    names = [name for _, name in readers.pieces]
    both = len(names) - names[::-1].index("a") - 1, len(names) - names[::-1].index("b") - 1
    assert abs(both[0] - both[1]) <= 2  # in turn: they end together
    assert max(both) <= 2 * 2 * (MEDIUM // PIECE_BYTES - 1) + 4


async def test_who_is_alone_waits_for_nobody() -> None:
    readers = Readers()
    await readers.read_together(alone=LONG)
    assert len({turn for turn, _ in readers.pieces}) == 1


async def test_who_waits_for_its_peer_holds_nobody_up() -> None:
    """Between its pieces a sender may be silent for as long as it is allowed to be."""
    readers = Readers()
    await Place(readers.turns).next_piece(PIECE_BYTES, LONG)
    await readers.read_together(other=LONG)
    assert len(readers.pieces) == LONG // PIECE_BYTES - 1


@define
class Counting:
    """An application that takes bodies; ``most``: bytes of all of them in one turn of the event loop, once each of
    them could have had its first piece."""

    bodies: int
    loop: TurnsOfTheLoop = field(factory=TurnsOfTheLoop)
    most: int = 0
    taken: int = 0
    _turn: tuple[int, int] = (0, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            turn, so_far = self._turn
            size = len(message["body"])
            self._turn = self.loop.count, size + (so_far if turn == self.loop.count else 0)
            self.taken += size
            if self.taken > self.bodies * PIECE_BYTES:
                self.most = max(self.most, self._turn[1])
        await send_reply(send, 200, b"{}")


async def test_connections_with_large_bodies_share_the_event_loop() -> None:
    app, body = Counting(30), b"x" * 8 * PIECE_BYTES

    async def post(server: Server) -> None:
        assert (await server.ask(HEAD % len(body) + body)).status == 200

    trio.lowlevel.add_instrument(app.loop)
    async with serving(app=app, limits=Limits(body_bytes=len(body))) as server, trio.open_nursery() as nursery:
        for _ in range(app.bodies):
            nursery.start_soon(post, server)
    trio.lowlevel.remove_instrument(app.loop)
    assert app.taken == app.bodies * len(body)
    # In memory each part of 64 KiB takes a turn of its own, so that some pieces are under way at a time.
    assert app.most <= 3 * PIECE_BYTES


async def hold_up(turns: ReadingTurns, released: trio.Event) -> None:
    """Has the turn until then, which nobody has for longer than a turn of the event loop otherwise."""
    turns._called = True
    await released.wait()
    turns._call_next()


async def test_what_waits_for_too_long_is_refused(autojump_clock: MockClock) -> None:
    refused: list[int] = []
    turns, released = ReadingTurns(refused.append), trio.Event()
    place = Place(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold_up, turns, released)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(Overloaded):
            await place.next_piece(PIECE_BYTES, LONG)
        assert trio.current_time() - began == pytest.approx(LONGEST_WAIT)
        assert refused == [1]
        released.set()
    await Place(turns).next_piece(PIECE_BYTES, LONG)  # the turn wasn't left with who is gone


@pytest.mark.parametrize("first", ["called", "cancelled"])
async def test_a_cancelled_one_passes_its_turn_on(autojump_clock: MockClock, first: str) -> None:
    turns, released = ReadingTurns(), trio.Event()
    served: list[str] = []
    cancelled = trio.CancelScope()

    async def wait(name: str, scope: trio.CancelScope, place: Place) -> None:
        with scope:
            await place.next_piece(PIECE_BYTES, LONG)
            served.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold_up, turns, released)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, "first", cancelled, Place(turns))
        nursery.start_soon(wait, "second", trio.CancelScope(), Place(turns))
        await wait_all_tasks_blocked()
        if first == "cancelled":
            cancelled.cancel()
            turns._call_next()  # before its task has run again
        else:
            turns._call_next()
            cancelled.cancel()
        await wait_all_tasks_blocked()
        released.set()
    assert served[-1] == "second"


async def test_waiting_for_its_turn_is_not_the_peers_time(autojump_clock: MockClock) -> None:
    """A body whose turn comes late is whole all the same, also where its own time would have been over."""
    limits = Limits(body_timeout=2, stall_timeout=2)
    async with serving(limits=limits) as server:
        stream = await server.connect()
        turns, released = server.context.reading_turns, trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_up, turns, released)
            await wait_all_tasks_blocked()
            body = b"x" * 3 * PIECE_BYTES
            nursery.start_soon(stream.send_all, HEAD % len(body) + body)
            await trio.sleep(LONGEST_WAIT - 1)
            assert server.fakes.stateful.bodies == []
            released.set()
            assert (await read_reply(stream)).status == 200
    assert server.fakes.stateful.bodies == [body]


async def test_one_that_waited_too_long_is_503(autojump_clock: MockClock) -> None:
    async with serving() as server:
        stream = await server.connect()
        released = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold_up, server.context.reading_turns, released)
            await wait_all_tasks_blocked()
            await stream.send_all(HEAD % (3 * PIECE_BYTES) + b"x" * PIECE_BYTES)
            reply = await read_reply(stream)
            assert problem(reply)[0] == 503
            assert reply.header("retry-after")
            released.set()
    assert server.fakes.stateful.bodies == []
