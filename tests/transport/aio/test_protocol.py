"""Requests and answers over one stream, for several tasks at once."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.transport.aio.streams import KINDS, Unhelpful, echo, state_of, stream_pair
from tests.transport.peers import Listening, frame, receive_frame, stream_frame
from wazuh_comms_trio.errors import PayloadTooLarge, WazuhError, WazuhException, WazuhInternalError
from wazuh_comms_trio.transport.aio.protocol import ConnectionState, WazuhAsyncProtocol
from wazuh_comms_trio.transport.errors import (
    TransportBroken,
    TransportClosed,
    TransportEmptyFrame,
    TransportPeerClosed,
    TransportTruncatedFrame,
    TrioOnly,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pipelining", [False, True])
async def test_client_and_server_for_many_tasks(kind: str, pipelining: bool) -> None:
    async with stream_pair(kind) as (left, right), trio.open_nursery() as nursery:
        client = WazuhAsyncProtocol(left, pipelining=pipelining)
        server = WazuhAsyncProtocol(right)
        nursery.start_soon(server.serve, echo)

        async def ask(task: int) -> None:
            for number in range(20):
                payload = f"{task}/{number}".encode() * (1 + 300 * (number % 3))
                assert await client.request(payload) == b"re:" + payload

        async with trio.open_nursery() as tasks:
            for task in range(10):
                tasks.start_soon(ask, task)
        statistics = client.statistics()
        assert (statistics.requests, statistics.replies, statistics.dropped) == (200, 200, 0)
        assert (statistics.in_flight, statistics.waiting) == (0, 0)
        assert statistics.bytes_received - statistics.bytes_sent == 200 * 3
        assert state_of(client) is ConnectionState.READY
        await client.aclose()
        assert state_of(client) is ConnectionState.CLOSED
        answered = server.statistics()
        assert (answered.requests, answered.replies) == (200, 200)


@pytest.mark.parametrize("kind", KINDS)
async def test_more_in_flight_than_any_buffer_holds(kind: str) -> None:
    """Both sides' buffers are full of large messages: whoever waits to send must go on reading."""
    payload = os.urandom(60_000)
    async with stream_pair(kind) as (left, right), trio.open_nursery() as nursery:
        client = WazuhAsyncProtocol(left, pipelining=True)
        nursery.start_soon(WazuhAsyncProtocol(right, max_send_bytes=100_000).serve, echo)

        async def ask() -> None:
            assert await client.request(payload) == b"re:" + payload

        async with trio.open_nursery() as tasks:
            for _ in range(60):
                tasks.start_soon(ask)
        await client.aclose()


async def test_requests_are_pipelined_where_that_is_allowed() -> None:
    for pipelining, expected in ((True, 3), (False, 1)):
        left, right = trio.testing.memory_stream_pair()
        client = WazuhAsyncProtocol(left, pipelining=pipelining)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(client.request, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            assert client.statistics().in_flight == expected
            assert client.statistics().waiting == 3 - expected
            assert state_of(client) is ConnectionState.BUSY
            for _ in range(3):
                await right.send_all(frame(await stream_frame(right)))
                await trio.testing.wait_all_tasks_blocked()
        assert state_of(client) is ConnectionState.READY


async def test_first_come_first_served() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(client.request, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
        seen = []
        for _ in range(10):
            seen.append(await stream_frame(right))
            await right.send_all(frame(b"ok"))
    assert seen == [b"%d" % number for number in range(10)]


async def test_states(server: Listening) -> None:
    protocol = WazuhAsyncProtocol()
    assert state_of(protocol) is ConnectionState.CONNECTING
    assert protocol.is_connection_lost()
    with pytest.raises(TransportClosed, match="not connected"):
        await protocol.request(b"x")
    with trio.testing.assert_checkpoints():
        await protocol.connect(server.path)
    with pytest.raises(WazuhInternalError, match="1013"):
        await protocol.connect(server.path)
    assert state_of(protocol) is ConnectionState.READY
    peer = server.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(protocol.request, b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert state_of(protocol) is ConnectionState.BUSY
        peer.sendall(frame(b"y"))
    assert state_of(protocol) is ConnectionState.READY
    assert protocol.peer_credentials().pid == os.getpid()
    peer.close()
    assert protocol.is_connection_lost()
    assert state_of(protocol) is ConnectionState.READY  # nobody has met it yet
    with pytest.raises(trio.BrokenResourceError) as caught:  # it closed without having read our request: a reset
        await protocol.request(b"x")
    assert isinstance(caught.value, TransportBroken)
    assert caught.value.bytes_sent == 0
    assert state_of(protocol) is ConnectionState.BROKEN
    assert "broken" in repr(protocol)
    with pytest.raises(trio.BrokenResourceError):
        await protocol.connect(server.path)
    with trio.testing.assert_checkpoints():
        await protocol.aclose()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", TransportPeerClosed),
        (b"\x05\0\0\0abc", TransportTruncatedFrame),
        (b"\0\0\0\0", TransportEmptyFrame),
    ],
)
@pytest.mark.parametrize("pipelining", [False, True])
async def test_everybody_learns_how_it_ended(answer: bytes, kind: type[TransportBroken], pipelining: bool) -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=pipelining)
    errors: list[TransportBroken] = []

    async def ask() -> None:
        with pytest.raises(kind) as caught:
            await client.request(b"x")
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await right.send_all(answer)
        await right.aclose()
    assert state_of(client) is ConnectionState.BROKEN
    assert len({id(error) for error in errors}) == 3
    assert {error.code for error in errors} == {1014}
    assert all(isinstance(error, WazuhError | trio.BrokenResourceError) for error in errors)
    sent = sorted(error.bytes_sent for error in errors)
    assert sent == ([5, 5, 5] if pipelining else [0, 0, 5])


async def test_answers_before_the_end_are_handed_out() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=True)
    ends: list[Any] = []

    async def ask(number: int) -> None:
        try:
            ends.append(await client.request(b"%d" % number))
        except TransportBroken as exc:
            ends.append(type(exc))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        await right.send_all(frame(b"a") + frame(b"b") + b"\x01")
        await right.aclose()
    assert sorted(ends, key=str) == [TransportTruncatedFrame, b"a", b"b"]


async def test_what_nobody_asked_for_ends_the_connection(server: Listening) -> None:
    protocol = await WazuhAsyncProtocol.from_path(server.path)
    peer = server.accept()
    peer.sendall(frame(b"unasked"))
    with pytest.raises(TransportBroken, match="nobody had asked for"):
        await protocol.request(b"x")
    assert peer.recv(10) == b""
    assert state_of(protocol) is ConnectionState.BROKEN


async def test_an_answer_too_many_ends_the_connection() -> None:
    left, right = trio.testing.memory_stream_pair()
    protocol = WazuhAsyncProtocol(left)
    await right.send_all(frame(b"answer") + frame(b"another"))
    assert await protocol.request(b"x") == b"answer"
    with pytest.raises(TransportBroken, match="nobody had asked for"):
        await protocol.request(b"x")


async def test_limits(server: Listening) -> None:
    async with await WazuhAsyncProtocol.from_path(server.path, max_send_bytes=10, max_receive_bytes=10) as protocol:
        peer = server.accept()
        for payload, kind in ((bytes(11), PayloadTooLarge), (b"", WazuhError), ("x", WazuhException)):
            with pytest.raises(kind):
                await protocol.request(payload)  # type: ignore[arg-type]
        assert state_of(protocol) is ConnectionState.READY
        async with trio.open_nursery() as nursery:
            nursery.start_soon(protocol.request, b"0123456789")
            await trio.testing.wait_all_tasks_blocked()
            assert receive_frame(peer) == b"0123456789"
            peer.sendall(frame(bytes(10)))


async def test_closing_wakes_everybody(server: Listening) -> None:
    for pipelining in (False, True):
        protocol = await WazuhAsyncProtocol.from_path(server.path, pipelining=pipelining)
        woken = 0

        async def ask(protocol: WazuhAsyncProtocol = protocol) -> None:
            nonlocal woken
            with pytest.raises(trio.ClosedResourceError):
                await protocol.request(b"x")
            woken += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await protocol.aclose()
        assert woken == 4
        assert state_of(protocol) is ConnectionState.CLOSED
        with pytest.raises(trio.ClosedResourceError):
            await protocol.request(b"x")


async def test_what_may_have_gone_out_is_told() -> None:
    """A stream that doesn't count: what it failed to send must not be sent a second time."""
    async with stream_pair("tls") as (left, right):
        client = WazuhAsyncProtocol(left)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(WazuhAsyncProtocol(right).serve, echo)
            assert await client.request(b"x") == b"re:x"
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(right)
        with pytest.raises(TransportBroken) as caught:
            await client.request(b"y")
        assert caught.value.bytes_sent == 0  # its end was seen before
    left, right = trio.testing.lockstep_stream_pair()
    client = WazuhAsyncProtocol(Unhelpful(left))
    await right.aclose()
    with pytest.raises(TransportBroken) as caught:
        await client.request(b"y")
    assert caught.value.bytes_sent == 5


async def test_other_headers() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, header_format=">H")
    await right.send_all(b"\0\x02ok")
    assert await client.request(b"abc") == b"ok"
    assert await right.receive_some() == b"\0\x03abc"


def test_outside_trio_it_says_so(home: Path) -> None:
    coroutine = WazuhAsyncProtocol().request(b"x")
    with pytest.raises(TrioOnly):
        coroutine.send(None)


async def test_every_method_is_a_checkpoint_even_when_it_fails_at_once(server: Listening) -> None:
    protocol = await WazuhAsyncProtocol.from_path(server.path)
    calls: list[Callable[[], Awaitable[Any]]] = [lambda: protocol.request(b"x"), protocol.aclose]
    for call in calls:
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught
    assert state_of(protocol) is ConnectionState.CLOSED
