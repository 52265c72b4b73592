"""What a stop does to requests in flight, on the mock clock."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import (
    LIMITS,
    SHORT_LIMITS,
    FakeOffer,
    Fakes,
    app_of,
    problem,
    read_reply,
    read_to_end,
    request_bytes,
    serving,
)
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.http.server.accept_loop import serve_listeners
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.streams.socket_stream import CALLS_PER_YIELD


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


@pytest.mark.real_clock
async def test_stop_serves_those_whom_the_kernel_told_connected() -> None:
    """They wait in the listener's queue, and closing it would reset them."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    context = ListenerContext(app_of(Fakes(), LIMITS), LIMITS, describe)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_listeners, context, [listener], stop=stop, grace=10))
        # Without a pause, so that no accept loop runs meanwhile; and more than one takes at a time.
        waiting = [socket.create_connection(listener.socket.getsockname()) for _ in range(3 * CALLS_PER_YIELD)]
        for sock in waiting:
            sock.sendall(request_bytes("GET", "/nowhere"))
        stop.set()
        for sock in waiting:
            sock.setblocking(False)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                assert (await read_reply(stream)).status == 404
