"""A listener with more connections than are begun: on the mock clock with a fake listener, and over TCP with TLS."""

from __future__ import annotations

import ssl
import struct
from collections import deque
from contextlib import suppress
from itertools import count
from math import inf
from typing import Any, cast

import attrs
import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import LIMITS, Fakes, app_of, read_reply, serving, serving_tcp
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.http.server import accept_loop
from wazuh_comms_trio.http.server.accept_loop import (
    BACKLOG,
    LATE,
    QUEUE_TIMEOUT,
    SHORT_BACKLOG,
    Shortage,
    is_crowded,
    restore_backlog,
    serve_crowd,
)
from wazuh_comms_trio.http.server.crowd import TURN, Pace
from wazuh_comms_trio.http.server.giving_way import LONGEST_HOLD
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.streams.socket_stream import SocketListener
from wazuh_comms_trio.testing import throwaway_certificate
from wazuh_comms_trio.testing.agent.connection import agent_tls
from wazuh_comms_trio.testing.streams import MemoryStream, memory_connection

#: The beginning of a ClientHello that asks for HTTP, as far as it matters.
CHECK = b"\x16\x03\x01\x08http/1.1"
CHECKS_NUMBER = 30
GET = b"GET /api/v1/ HTTP/1.1\r\nHost: h\r\n\r\n"


@define(eq=False)
class Waiting:
    """An accepted socket, and the client's end of it. ``age`` in the kernel's queue, seconds."""

    number: int
    age: float = 0.0
    family: int = 2
    first: bytes = b"\x16"
    closed: bool = False
    ends: tuple[MemoryStream, MemoryStream] = field(init=False, factory=memory_connection)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return bytes(52) + struct.pack("=I", int(1000 * self.age))

    def recv(self, size: int, flags: int) -> bytes:
        return self.first

    def fileno(self) -> int:
        return 3

    def close(self) -> None:
        self.closed = True


@define(eq=False)
class FakeListener:
    waiting: deque[Waiting] = field(factory=deque)
    begun: list[int] = field(factory=list)
    backlog: int = BACKLOG
    family: int = 1
    is_pressed: bool = False

    @property
    def socket(self) -> FakeListener:
        return self

    def listen(self, backlog: int) -> None:
        self.backlog = backlog

    def queue(self) -> tuple[int, int]:
        return len(self.waiting), self.backlog

    def take_nowait(self) -> Waiting | None:
        return self.waiting.popleft() if self.waiting else None

    def stream(self, sock: Waiting) -> Any:
        self.begun.append(sock.number)
        return sock.ends[0]


def crowd(count: int, *, age: float = 0.0) -> tuple[FakeListener, list[Waiting]]:
    listener = FakeListener()
    waiting = [Waiting(number, age) for number in range(count)]
    listener.waiting.extend(waiting)
    return listener, waiting


async def serve(listener: FakeListener, nursery: trio.Nursery) -> list[tuple[str, int]]:
    context = ListenerContext(app_of(Fakes()), LIMITS, describe)
    refused: list[tuple[str, int]] = []
    context.refused = lambda what, count: refused.append((what, count))
    own = cast(SocketListener, listener)
    await serve_crowd(own, context, nursery, Shortage(own, context), Pace(context.capacity))
    return refused


@pytest.mark.parametrize(
    ("pressed", "age", "expected"), [(False, 0.0, False), (False, 2 * LATE, True), (True, 0.0, True)]
)
def test_one_that_had_to_wait_is_a_crowd(pressed: bool, age: float, expected: bool) -> None:
    """From the first long turn on: by their number it took a third of a second on a fifth of a core."""
    listener = cast(SocketListener, FakeListener(is_pressed=pressed))
    assert is_crowded(listener, Waiting(0, age)) == expected


async def test_all_are_begun_in_order_when_there_is_time(autojump_clock: MockClock) -> None:
    listener, _ = crowd(300)
    async with trio.open_nursery() as nursery:
        assert await serve(listener, nursery) == []
        nursery.cancel_scope.cancel()
    assert listener.begun == list(range(300))
    assert listener.backlog == BACKLOG


async def test_who_waited_too_long_in_the_kernels_queue_is_closed(autojump_clock: MockClock) -> None:
    """After a stop of the whole machine, for instance."""
    listener, waiting = crowd(5, age=QUEUE_TIMEOUT + 1)
    listener.waiting.extend(Waiting(number) for number in range(5, 8))
    async with trio.open_nursery() as nursery:
        refused = await serve(listener, nursery)
        nursery.cancel_scope.cancel()
    assert listener.begun == [5, 6, 7]
    assert all(one.closed for one in waiting)
    assert sum(count for _, count in refused) == 5
    assert {what for what, _ in refused} == {"connections that waited too long"}


async def test_the_kernels_queue_is_short_for_a_while(autojump_clock: MockClock) -> None:
    listener, _ = crowd(300)
    seen: set[int] = set()
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while True:
                seen.add(listener.backlog)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(watch)
        await serve(listener, nursery)
        nursery.cancel_scope.cancel()
    assert SHORT_BACKLOG in seen
    assert listener.backlog == BACKLOG


async def test_at_stop_all_that_wait_are_begun(autojump_clock: MockClock) -> None:
    listener, _ = crowd(300)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as stop:
            stop.cancel()
            await serve(listener, nursery)
        left = len(listener.waiting)
        assert left + len(listener.begun) == 300
        assert listener.begun
        nursery.cancel_scope.cancel()
    assert listener.backlog == BACKLOG


async def test_without_room_they_wait_and_go_when_it_was_too_long(autojump_clock: MockClock) -> None:
    listener, waiting = crowd(10)
    context = ListenerContext(app_of(Fakes()), attrs.evolve(LIMITS, connections=1), describe)
    context.connections = 1  # for ever
    refused: list[int] = []
    context.refused = lambda what, count: refused.append(count)
    own = cast(SocketListener, listener)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(QUEUE_TIMEOUT + 1):
            await serve_crowd(own, context, nursery, Shortage(own, context), Pace(context.capacity))
        nursery.cancel_scope.cancel()
    assert listener.begun == []
    assert all(one.closed for one in waiting)
    assert sum(refused) == 10


async def test_while_there_is_no_room_those_that_gave_way_go_on(autojump_clock: MockClock) -> None:
    """What was urgent is over soon; the shortage isn't, and requests go on coming."""
    listener, _ = crowd(10)
    began = trio.current_time()
    limits = attrs.evolve(LIMITS, connections=1)
    urgent = Urgent(began + LONGEST_HOLD / 2)
    context = ListenerContext(app_of(Fakes()), limits, describe, urgent=urgent)
    context.connections = 1  # for ever
    waits: list[float] = []

    async def make_steps() -> None:
        for _ in range(100):
            nursery.start_soon(make_step, trio.current_time())
            await trio.sleep(0.01)

    async def make_step(since: float) -> None:
        await context.giving_way.before_long_step()
        if since > began + LONGEST_HOLD:
            waits.append(trio.current_time() - since)

    own = cast(SocketListener, listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_steps)
        with trio.move_on_after(2), context.giving_way.crowded():
            await serve_crowd(own, context, nursery, Shortage(own, context), Pace(context.capacity))
        nursery.cancel_scope.cancel()
    assert len(waits) > 80
    assert sum(waits) / len(waits) < 0.01


@define
class Urgent:
    until: float

    def __call__(self) -> bool:
        return trio.current_time() < self.until


@define
class Hashing:
    """No place until ``free_at``, on trio's clock, and what is begun of agents is refused."""

    listener: FakeListener
    free_at: float

    @property
    def refused(self) -> int:
        return sum(number != CHECKS_NUMBER for number in self.listener.begun)

    def room(self, *, late: bool = False) -> float:
        return inf if trio.current_time() >= self.free_at else 0


async def test_while_there_is_no_room_for_what_agents_ask_for_checks_alone_are_begun(autojump_clock: MockClock) -> None:
    listener, waiting = crowd(40)
    waiting[CHECKS_NUMBER].first = CHECK
    hashing = Hashing(listener, trio.current_time() + 3)
    context = ListenerContext(app_of(Fakes()), LIMITS, describe, capacity=hashing)
    own = cast(SocketListener, listener)
    async with trio.open_nursery() as nursery:
        begun: list[int] = []

        async def look() -> None:
            await trio.sleep(1.5)
            begun.extend(listener.begun)

        nursery.start_soon(look)
        with trio.move_on_after(2) as patience:
            await serve_crowd(own, context, nursery, Shortage(own, context), Pace(context.capacity))
        assert patience.cancelled_caught
        nursery.cancel_scope.cancel()
    assert begun == [CHECKS_NUMBER, 0]  # one agent's, since the check came to something
    assert sorted(listener.begun) == list(range(40))  # at stop nobody is left


async def test_while_something_is_urgent_turns_are_short(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn takes some CPU: only checks are begun, for a while."""
    listener, waiting = crowd(40)
    waiting[CHECKS_NUMBER].first = CHECK
    context = ListenerContext(app_of(Fakes()), LIMITS, describe, urgent=lambda: True)
    own = cast(SocketListener, listener)
    monkeypatch.setattr(accept_loop.time, "thread_time", count(step=TURN / 2).__next__)
    async with trio.open_nursery() as nursery:
        begun: list[int] = []

        async def look() -> None:
            await trio.sleep(0.9 * LONGEST_HOLD)
            begun.extend(listener.begun)

        nursery.start_soon(look)
        await serve_crowd(own, context, nursery, Shortage(own, context), Pace(context.capacity))
        nursery.cancel_scope.cancel()
    assert begun == [CHECKS_NUMBER]
    assert sorted(listener.begun) == list(range(40))


@define
class Full:
    """No place until it is told."""

    free: bool = False
    refused: int = 0
    asked: trio.Event = field(init=False, factory=trio.Event)

    def room(self, *, late: bool = False) -> float:
        self.asked.set()
        return inf if self.free else 0


async def test_over_tcp_who_is_not_begun_with_waits_before_its_handshake() -> None:
    """Also where nobody else waits: the event loop has time for handshakes, which the processor hasn't."""
    certificate = throwaway_certificate()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate.cert, certificate.key)
    as_check = agent_tls()
    as_check.set_alpn_protocols(["http/1.1"])
    full = Full()
    statuses: dict[str, int] = {}
    async with serving_tcp(Fakes(), ssl_context=server_side, capacity=full) as address, trio.open_nursery() as nursery:

        async def ask(who: str, context: ssl.SSLContext) -> None:
            stream = trio.SSLStream(await trio.open_tcp_stream(*address), context, https_compatible=True)
            await stream.send_all(GET)
            statuses[who] = (await read_reply(stream)).status
            with suppress(trio.BrokenResourceError):
                await stream.aclose()

        nursery.start_soon(ask, "agent", agent_tls())
        await full.asked.wait()
        full.refused = 100  # of earlier ones
        await ask("check", as_check)
        assert statuses == {"check": 200}
        full.free = True
    assert statuses == {"check": 200, "agent": 200}


async def test_when_there_is_room_again_all_are_begun(autojump_clock: MockClock) -> None:
    listener, waiting = crowd(40)
    began = trio.current_time()
    context = ListenerContext(app_of(Fakes()), LIMITS, describe, capacity=Hashing(listener, began + 3))
    own = cast(SocketListener, listener)
    async with trio.open_nursery() as nursery:
        await serve_crowd(own, context, nursery, Shortage(own, context), Pace(context.capacity))
        assert 3 <= trio.current_time() - began < 3.1
        nursery.cancel_scope.cancel()
    assert listener.begun == list(reversed(range(40)))  # they have waited, so the newest first
    assert not any(one.closed for one in waiting)


async def test_a_queue_that_a_killed_worker_left_short_is_long_again() -> None:
    """It is the socket's, which others have inherited."""
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=SHORT_BACKLOG)
    listener = SocketListener(tcp)
    assert listener.queue() == (0, SHORT_BACKLOG)
    restore_backlog(listener)
    assert listener.queue()[1] > SHORT_BACKLOG
    tcp.socket.listen(100)  # as the service manager has it
    restore_backlog(listener)
    assert listener.queue()[1] == 100
    await listener.aclose()


async def test_over_tcp_with_tls_nobody_is_lost() -> None:
    """So many at once that there is a crowd, agents and checks."""
    certificate = throwaway_certificate()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate.cert, certificate.key)
    as_agent, as_check = agent_tls(), agent_tls()
    as_check.set_alpn_protocols(["http/1.1"])
    statuses: list[int] = []
    async with serving_tcp(Fakes(), ssl_context=server_side) as address, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            tcp = await trio.open_tcp_stream(*address)
            context = as_agent if number % 10 else as_check
            stream = trio.SSLStream(tcp, context, https_compatible=True)
            await stream.send_all(GET)
            statuses.append((await read_reply(stream)).status)
            with suppress(trio.BrokenResourceError):
                await stream.aclose()

        for number in range(200):
            nursery.start_soon(ask, number)
    assert statuses == [200] * 200


async def test_a_connection_is_left_in_the_queue_while_others_may_take_it(autojump_clock: MockClock) -> None:
    async with serving() as server:
        turn = trio.Event()
        await wait_all_tasks_blocked()
        server.context.before_accepting = turn.wait
        for served in (True, False):  # the first was being waited for already
            stream = await server.connect()
            await stream.send_all(GET)
            with trio.move_on_after(60) as scope:
                assert (await read_reply(stream)).status == 200
            assert scope.cancelled_caught is not served
        turn.set()
        assert (await read_reply(stream)).status == 200
