"""A stream of the simulated network takes as many turns as a socket does."""

from __future__ import annotations

from collections.abc import Awaitable

import trio

from tests.simulation.nodes.network import process_stream_pair
from wazuh_comms_trio.http.server.streams.socket_stream import CALLS_PER_YIELD
from wazuh_comms_trio.testing.streams import BUFFER_BYTES


async def turns_of(call: Awaitable[object]) -> int:
    task = trio.lowlevel.current_task()
    before = task._schedule_points
    await call
    return task._schedule_points - before


async def test_a_read_takes_one_turn_whether_or_not_it_waits() -> None:
    ours, theirs = process_stream_pair()
    await theirs.send_all(b"there")
    assert await turns_of(ours.receive_some()) == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, b"later")
        assert await turns_of(ours.receive_some()) == 1


async def test_a_cancelled_read_takes_nothing() -> None:
    ours, theirs = process_stream_pair()
    await theirs.send_all(b"there")
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.receive_some()
    assert scope.cancelled_caught
    assert await ours.receive_some() == b"there"


async def test_a_close_takes_no_turn() -> None:
    ours, theirs = process_stream_pair()
    assert await turns_of(ours.aclose()) == 0
    assert await theirs.receive_some() == b""


async def test_the_servers_end_takes_a_turn_on_each_eighth_call() -> None:
    """As its ``SocketStream``."""
    ours, theirs = process_stream_pair()
    ours.served = True
    turns = [await turns_of(ours.send_all(b"x")) for _ in range(2 * CALLS_PER_YIELD)]
    assert turns == 2 * [*(CALLS_PER_YIELD - 1) * [0], 1]
    await theirs.send_all(b"y" * CALLS_PER_YIELD)
    turns = [await turns_of(ours.receive_some(1)) for _ in range(CALLS_PER_YIELD)]
    assert turns == [*(CALLS_PER_YIELD - 1) * [0], 1]


async def test_it_waits_where_there_is_nothing_and_no_room() -> None:
    ours, theirs = process_stream_pair()
    ours.served = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, b"later")
        assert await turns_of(ours.receive_some()) == 1
        nursery.start_soon(theirs.receive_some)
        assert await turns_of(ours.send_all(bytes(BUFFER_BYTES + 1))) == 1
