"""What each method leaves behind when it is cancelled, and that nothing leaks."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.transport.peers import (
    Listening,
    descriptors,
    frame,
    listening,
    queue_socket,
    receive_exactly,
    receive_frame,
    stream_frame,
)
from wazuh_comms_trio.errors import BacklogFull, WazuhException
from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncQueue
from wazuh_comms_trio.transport.aio.protocol import ConnectionState, WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket, WazuhAsyncSocketJSON
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed


async def cancelled_when_blocked(call: Callable[[], Awaitable[Any]]) -> None:
    """Cancel ``call()`` once it waits and nothing else can happen."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await call()
                pytest.fail("it came to an end by itself")

            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


async def cancelled_at_once(call: Callable[[], Awaitable[Any]]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught


def fill(sock: socket.socket) -> int:
    """Fill a socket's buffer; returns with how many bytes."""
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += sock.send(bytes(1000))
    return filled


def socket_of(sock: WazuhAsyncSocket) -> socket.socket:
    found = sock._io.sock  # type: ignore[union-attr]
    assert isinstance(found, socket.socket)
    return found


# --- connect ---


async def test_connect_before_anything() -> None:
    sock = WazuhAsyncSocket()
    await cancelled_at_once(lambda: sock.connect("/nowhere"))


async def test_connect_that_waits_for_room(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        first = await WazuhAsyncSocket.from_path(server.path)
        before = descriptors()
        sock = WazuhAsyncSocket()
        with trio.move_on_after(0.1) as scope:
            await sock.connect(server.path)
        assert scope.cancelled_caught
        assert descriptors() == before
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await sock.connect(server.path)
        server.accept()
        await sock.connect(server.path)
        await sock.send(b"usable")
        assert receive_frame(server.accept()) == b"usable"
        await sock.aclose()
        await first.aclose()


# --- receive ---


async def test_receive_keeps_what_came(server: Listening) -> None:
    async with await WazuhAsyncSocket.from_path(server.path) as sock:
        peer = server.accept()
        data = frame(b"0123456789") + frame(b"next")
        for cut in range(1, 14):
            peer.sendall(data[:cut])
            await cancelled_when_blocked(sock.receive)
            await cancelled_at_once(sock.receive)
            peer.sendall(data[cut:])
            await cancelled_at_once(sock.receive)
            assert await sock.receive() == b"0123456789"
            await cancelled_at_once(sock.receive)
            assert await sock.receive() == b"next"
        await cancelled_when_blocked(sock.receive_raw)
        peer.sendall(b"raw")
        assert await sock.receive_raw() == b"raw"
        with pytest.raises(trio.TooSlowError), trio.fail_after(0):
            await sock.receive()


# --- send ---


async def test_send_before_its_first_byte(server: Listening) -> None:
    async with await WazuhAsyncSocket.from_path(server.path) as sock:
        peer = server.accept()
        await cancelled_at_once(lambda: sock.send(b"never"))
        filled = fill(socket_of(sock))
        await cancelled_when_blocked(lambda: sock.send(b"never"))
        assert not sock.is_connection_lost()
        receive_exactly(peer, filled)
        await sock.send(b"but this")
        assert receive_frame(peer) == b"but this"


async def test_send_after_its_first_byte(server: Listening) -> None:
    class Large(WazuhAsyncSocket):
        MAX_SIZE = 10_000_000

    async with await Large.from_path(server.path) as sock:
        peer = server.accept()
        await cancelled_when_blocked(lambda: sock.send(bytes(9_000_000)))
        assert sock.is_connection_lost()
        with pytest.raises(trio.ClosedResourceError, match="went out only in part"):
            await sock.send(b"x")
        with pytest.raises(TransportClosed):
            await sock.receive()
        received = 0
        while data := peer.recv(1_000_000):
            received += len(data)
        assert 0 < received < 9_000_000
        await sock.connect(server.path)


async def test_send_over_a_stream_that_does_not_count() -> None:
    left, right = trio.testing.lockstep_stream_pair()
    sock = WazuhAsyncSocket.from_stream(left)
    await cancelled_at_once(lambda: sock.send(b"never"))
    assert not sock.is_connection_lost()
    await cancelled_when_blocked(lambda: sock.send(b"maybe"))
    with pytest.raises(trio.ClosedResourceError, match="went out only in part"):
        await sock.send(b"x")
    await right.aclose()


@pytest.mark.parametrize("over_stream", [False, True])
async def test_closing_while_cancelled_closes(server: Listening, over_stream: bool) -> None:
    if over_stream:
        sock = WazuhAsyncSocket.from_stream(await trio.open_unix_socket(server.path))
    else:
        sock = await WazuhAsyncSocket.from_path(server.path)
    peer = server.accept()
    await cancelled_at_once(sock.aclose)
    assert peer.recv(1) == b""
    with pytest.raises(trio.ClosedResourceError):
        await sock.send(b"x")


async def test_a_json_request_gives_its_connection_up(server: Listening) -> None:
    async with await WazuhAsyncSocketJSON.from_path(server.path) as sock:
        peer = server.accept()
        await cancelled_at_once(lambda: sock.request({"command": "x"}))
        assert not sock.is_connection_lost()
        await cancelled_when_blocked(lambda: sock.request({"command": "x"}))
        assert receive_frame(peer) == b'{"command": "x"}'
        assert peer.recv(1) == b""
        with pytest.raises(trio.ClosedResourceError, match="before its answer came"):
            await sock.receive()


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

    async def ask(payload: bytes, patience: float) -> None:
        try:
            with trio.fail_after(patience):
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


# --- queues ---


async def test_a_full_queue(home: Path) -> None:
    with queue_socket(home / "q") as reader:
        async with await WazuhAsyncQueue.from_path(str(home / "q")) as queue:
            sent = 0

            async def send_for_ever() -> None:
                nonlocal sent
                while True:
                    await queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, f"{sent:03}")
                    sent += 1

            await cancelled_when_blocked(send_for_ever)
            await cancelled_when_blocked(lambda: queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, "999"))
            seen = [reader.recv(1000).split()[3] for _ in range(sent)]
            assert seen == [b"%03d" % number for number in range(sent)]
            await queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, "777")
            assert reader.recv(1000).split()[3] == b"777"


# --- leaks ---


async def test_ten_thousand_rounds_leak_no_descriptor(home: Path) -> None:
    with listening(home / "s") as server:
        server.sock.setblocking(False)
        before = descriptors()
        for number in range(10_000):
            how = number % 5
            with suppress(WazuhException, trio.TooSlowError), trio.fail_after(0 if how == 1 else 10):
                if how == 2:
                    await WazuhAsyncSocket().connect(str(home / "none"))
                elif how == 3:
                    protocol = await WazuhAsyncProtocol.from_path(server.path, pipelining=number % 2 == 0)
                    with trio.move_on_after(0):
                        await protocol.request(b"x")
                    await protocol.aclose()
                else:
                    async with await WazuhAsyncSocket.from_path(server.path) as sock:
                        await sock.send(b"x")
                        if how == 4:
                            server.sock.accept()[0].close()
                            await sock.receive()
            with suppress(BlockingIOError):
                server.sock.accept()[0].close()
        assert descriptors() == before


async def test_a_full_backlog_leaks_no_descriptor(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        async with await WazuhAsyncSocket.from_path(server.path):
            before = descriptors()
            for _ in range(50):
                with pytest.raises(BacklogFull):
                    await WazuhAsyncSocket().connect(server.path)
            assert descriptors() == before
