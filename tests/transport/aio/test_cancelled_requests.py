"""Requests that are cancelled: answers stay with those who asked, and nothing waits for them."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from tests.transport.aio.cancelled import cancelled_at_once, cancelled_when_blocked, fill
from tests.transport.peers import Listening, frame, receive_exactly, receive_frame, stream_frame
from wazuh_comms_trio.transport.aio.protocol import ConnectionState, WazuhAsyncProtocol
from wazuh_comms_trio.transport.errors import TransportBroken

# --- the protocol ---


async def test_a_late_answer_reaches_nobody_else() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=True)
    await cancelled_when_blocked(lambda: client.request(b"one"))
    assert client.state is ConnectionState.BUSY
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
        await client.request(b"two")
    answers: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def third() -> None:
            answers.append(await client.request(b"three"))

        nursery.start_soon(third)
        for payload in (b"one", b"two", b"three"):
            assert await stream_frame(right) == payload
            await right.send_all(frame(b"to " + payload))
    assert answers == [b"to three"]
    assert (client.statistics().dropped, client.statistics().in_flight) == (2, 0)


async def test_without_pipelining_the_connection_is_given_up() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left)
    await cancelled_when_blocked(lambda: client.request(b"one"))
    assert client.state is ConnectionState.CLOSED
    with pytest.raises(trio.ClosedResourceError, match="cancelled before its answer"):
        await client.request(b"two")
    assert await stream_frame(right) == b"one"
    assert await right.receive_some() == b""


async def test_a_request_that_waits_for_its_turn_leaves_nothing_behind() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.request, b"one")
        await trio.testing.wait_all_tasks_blocked()
        await cancelled_when_blocked(lambda: client.request(b"never"))
        assert client.statistics().waiting == 0
        await right.send_all(frame(b"ok"))
    assert await stream_frame(right) == b"one"
    await right.send_all(frame(b"ok"))
    assert await client.request(b"two") == b"ok"
    assert await stream_frame(right) == b"two"


async def test_the_one_who_reads_for_all_is_cancelled() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=True)
    answers: list[bytes] = []

    async def ask(payload: bytes) -> None:
        answers.append(await client.request(payload))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(ask, b"reader")
                await trio.testing.wait_all_tasks_blocked()
                for payload in (b"a", b"b"):
                    nursery.start_soon(ask, payload)
                    await trio.testing.wait_all_tasks_blocked()
                await right.send_all(frame(b"late")[:3])
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await right.send_all(frame(b"late")[3:] + frame(b"to a") + frame(b"to b"))
    assert sorted(answers) == [b"to a", b"to b"]


async def test_a_request_cancelled_before_its_first_byte(server: Listening) -> None:
    for pipelining in (False, True):
        async with await WazuhAsyncProtocol.from_path(server.path, pipelining=pipelining) as client:
            peer = server.accept()
            never = partial(client.request, b"never")
            await cancelled_at_once(never)
            filled = fill(client._io.sock)  # type: ignore[union-attr]
            await cancelled_when_blocked(never)
            assert client.state is ConnectionState.READY
            receive_exactly(peer, filled)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.request, b"but this")
                await trio.testing.wait_all_tasks_blocked()
                assert receive_frame(peer) == b"but this"
                peer.sendall(frame(b"ok"))


async def test_a_request_cancelled_half_way_ends_it_for_all(server: Listening) -> None:
    client = await WazuhAsyncProtocol.from_path(server.path, pipelining=True, max_send_bytes=10_000_000)
    ends: list[str] = []

    async def ask() -> None:
        with pytest.raises(trio.ClosedResourceError, match="went out only in part") as caught:
            await client.request(b"small")
        ends.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await cancelled_when_blocked(lambda: client.request(bytes(9_000_000)))
    assert len(ends) == 1
    assert client.state is ConnectionState.CLOSED


async def test_all_readers_are_cancelled_while_a_sender_waits(server: Listening) -> None:
    """The peer takes no request before its answer is taken: with no reader left, the sender has to be one."""
    client = await WazuhAsyncProtocol.from_path(server.path, pipelining=True, max_send_bytes=10_000_000)
    peer = server.accept()
    large = bytes(3_000_000)
    answers: list[bytes] = []

    def serve() -> None:
        assert receive_frame(peer) == b"first"
        peer.sendall(frame(large))
        assert receive_frame(peer) == large
        peer.sendall(frame(b"done"))

    async def ask() -> None:
        answers.append(await client.request(large))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(client.request, b"first")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        nursery.start_soon(trio.to_thread.run_sync, serve)
    assert answers == [b"done"]
    assert client.statistics().dropped == 1
    await client.aclose()


async def test_an_exchange_that_is_cancelled_closes_the_connection() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=True)
    await right.send_all(frame(b"due"))
    taken: list[bytes] = []

    async def take() -> None:
        async with client.open_exchange(b"rows", is_last=lambda payload: payload != b"due") as answers:
            async for answer in answers:
                taken.append(answer)

    await cancelled_when_blocked(take)
    assert taken == [b"due"]
    assert client.state is ConnectionState.CLOSED


async def test_server_side() -> None:
    left, right = trio.testing.memory_stream_pair()
    server = WazuhAsyncProtocol(right)
    await left.send_all(frame(b"request")[:6])
    await cancelled_when_blocked(server.receive_request)
    await left.send_all(frame(b"request")[6:])
    await cancelled_at_once(server.receive_request)
    assert await server.receive_request() == b"request"
    await cancelled_at_once(lambda: server.send_reply(b"never"))
    await server.send_reply(b"answer")
    assert await stream_frame(left) == b"answer"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pipelining", [False, True])
async def test_whatever_is_cancelled_answers_stay_with_their_requests(
    seed: int, pipelining: bool, autojump_clock: trio.testing.MockClock
) -> None:
    chance = random.Random(seed)
    left, right = trio.testing.memory_stream_pair()
    client, server = WazuhAsyncProtocol(left, pipelining=pipelining), WazuhAsyncProtocol(right)
    outcomes = {"answered": 0, "late": 0, "closed": 0}

    async def slow(payload: bytes) -> bytes:
        await trio.sleep(chance.random())
        return b"re:" + payload

    async def ask(payload: bytes, time_limit: float) -> None:
        try:
            with trio.fail_after(time_limit):
                assert await client.request(payload) == b"re:" + payload
            outcomes["answered"] += 1
        except trio.TooSlowError:
            outcomes["late"] += 1
        except trio.ClosedResourceError:
            outcomes["closed"] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, slow)
        async with trio.open_nursery() as tasks:
            for number in range(60):
                tasks.start_soon(ask, b"%d" % number, chance.uniform(0, 40))
        if pipelining:
            assert await client.request(b"last") == b"re:last"
        await client.aclose()
        with suppress(TransportBroken):
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sum(outcomes.values()) == 60
    if pipelining:
        assert outcomes["closed"] == 0
        assert outcomes["late"] > 0
        assert outcomes["answered"] > 0
