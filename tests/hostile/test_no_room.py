"""Connections beyond a limit: who has sent nothing goes, the others wait, and honest agents hardly notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from socket import AF_INET, AF_UNIX, socketpair
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import (
    AUTHORIZED,
    LIMITS,
    FakeOffer,
    Fakes,
    app_of,
    problem,
    read_reply,
    read_to_end,
    serving,
)
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.http.server import room
from wazuh_comms_trio.http.server.accept_loop import QUEUE_TIMEOUT
from wazuh_comms_trio.http.server.listener_context import ListenerContext
from wazuh_comms_trio.http.server.room import (
    ASKING,
    ASKING_SPARED,
    DRAINED,
    SILENT,
    SILENT_SPARED,
    SLOW_BODIES,
    SLOW_READERS,
    SPARED,
    idle_now,
)
from wazuh_comms_trio.metrics import families

GET = b"GET /api/v1/ HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /api/v1/events/stateful HTTP/1.1\r\nHost: h\r\n" + AUTHORIZED + b"\r\nContent-Length: %d\r\n\r\n"
FILE = b"GET /api/v1/files?file_name=big HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % AUTHORIZED
POLL = b"GET /api/v1/commands HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % AUTHORIZED


@contextmanager
def counted(context: ListenerContext) -> Iterator[list[tuple[str, int]]]:
    found: list[tuple[str, int]] = []
    context.refused = lambda what, count: found.append((what, count))
    yield found


async def test_silent_connections_make_room(autojump_clock: MockClock) -> None:
    limits = attrs.evolve(LIMITS, connections=5, handshake_timeout=1000, head_timeout=1000)
    async with serving(limits=limits) as server, trio.open_nursery() as nursery:
        with counted(server.context) as refused:
            flood = [await server.connect() for _ in range(5)]
            await trio.sleep(3)
            began = trio.current_time()
            stream = await server.connect()
            await stream.send_all(GET)
            assert (await read_reply(stream)).status == 200
            assert trio.current_time() - began < 0.5
            assert await read_to_end(flood[0]) == b""
            assert sum(count for what, count in refused if what == "silent connections") == 5
        nursery.cancel_scope.cancel()


async def test_handshakes_have_a_limit_of_their_own(autojump_clock: MockClock) -> None:
    limits = attrs.evolve(LIMITS, handshakes=3, handshake_timeout=1000, head_timeout=1000)
    async with serving(limits=limits) as server:
        polls = []
        for _ in range(10):  # with a request in flight they don't count
            polls.append(await server.connect())
            await polls[-1].send_all(POLL)
            await wait_all_tasks_blocked()
        assert server.context.connections == 10
        flood = []
        for _ in range(3):
            flood.append(await server.connect())
            await wait_all_tasks_blocked()
        await trio.sleep(3)
        assert [await read_to_end(stream) for stream in flood] == [b""] * 3
        assert server.context.connections == 10
        server.fakes.commands.closing.set()
        for poll in polls:
            assert problem(await read_reply(poll)) == (408, 408)


async def test_what_waits_too_long_is_closed_before_its_handshake(autojump_clock: MockClock) -> None:
    """An agent that is closed comes again in 30 s, perhaps elsewhere; one that waits in a queue for ever doesn't."""
    async with serving(limits=attrs.evolve(LIMITS, connections=2)) as server:
        with counted(server.context) as refused:
            for _ in range(2):
                await (await server.connect()).send_all(POLL)
                await wait_all_tasks_blocked()
            waiting = await server.connect()
            began = trio.current_time()
            with suppress(trio.BrokenResourceError):
                assert await waiting.receive_some() == b""
            assert QUEUE_TIMEOUT - 1 < trio.current_time() - began < QUEUE_TIMEOUT + 1
            await trio.sleep(0.1)
            assert refused == [("connections", 1)]
        server.fakes.commands.closing.set()


async def test_memory_that_runs_short(autojump_clock: MockClock) -> None:
    """The same as for descriptors, in the same order."""
    short = False
    async with serving(limits=attrs.evolve(LIMITS, handshake_timeout=1000, head_timeout=1000)) as server:
        server.context.memory_short = lambda: short
        flood = [await server.connect() for _ in range(10)]
        await trio.sleep(3)
        short = True

        async def recover() -> None:
            nonlocal short
            for stream in flood:
                assert await read_to_end(stream) == b""
            short = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(recover)
            # Memory is looked at with every 64th connection.
            more = [await server.connect() for _ in range(64)]
            for stream in more:
                await stream.send_all(GET)
                assert (await read_reply(stream)).status == 200


async def test_an_enrolment_listeners_flood_is_ended_before_honest_polls(autojump_clock: MockClock) -> None:
    limits = attrs.evolve(LIMITS, handshake_timeout=1000, head_timeout=1000)
    async with serving(limits=limits) as api, serving(limits=limits) as enrolment:
        answered: list[int] = []
        api.context.answer_oldest = lambda count: answered.append(count) or 0
        api.context.beside = [enrolment.context]
        flood = [await enrolment.connect() for _ in range(3)]
        await trio.sleep(3)
        assert api.context.make_room(2) == 2
        assert api.context.make_room(2) == 1
        assert [await read_to_end(stream) for stream in flood] == [b""] * 3
        assert answered == []
        assert api.context.make_room(2) == 0
        assert answered == [2]


async def test_who_has_said_nothing_goes_before_older_ones_that_have(autojump_clock: MockClock) -> None:
    limits = attrs.evolve(LIMITS, handshake_timeout=1000, head_timeout=1000)
    async with serving(limits=limits) as server:
        asking = await server.connect()
        await asking.send_all(GET[:20])
        await trio.sleep(0.1)
        silent = await server.connect()
        await trio.sleep(SILENT_SPARED / 2)
        assert server.context.end_idle(1) == 0
        await trio.sleep(ASKING_SPARED)
        assert server.context.end_idle(1) == 1
        assert await read_to_end(silent) == b""
        await asking.send_all(GET[20:])
        assert (await read_reply(asking)).status == 200


async def test_a_head_byte_by_byte_is_no_step(autojump_clock: MockClock) -> None:
    limits = attrs.evolve(LIMITS, handshake_timeout=1000, head_timeout=1000)
    async with serving(limits=limits) as server:
        stream = await server.connect()
        for place in range(20):
            await stream.send_all(GET[place : place + 1])
            await trio.sleep(0.1)
        assert server.context.end_idle(1) == 1
        assert await read_to_end(stream) == b""


async def test_what_is_ended_is_counted_by_its_kind(autojump_clock: MockClock) -> None:
    limits = attrs.evolve(LIMITS, handshake_timeout=1000, head_timeout=1000, body_timeout=1000, stall_timeout=1000)
    async with serving(limits=limits) as server:
        context = server.context
        with counted(context) as refused:
            slow, answered = [await server.connect() for _ in range(2)]
            await slow.send_all(POST % 1000)
            await answered.send_all(b"PUT /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
            assert (await read_reply(answered)).status == 404
            silent, asking = [await server.connect() for _ in range(2)]
            await asking.send_all(GET[:20])
            for _ in range(4):  # in silence it would have been closed by itself
                await answered.send_all(b"x")
                await trio.sleep(SPARED / 3)
            await wait_all_tasks_blocked()
            assert [context.make_room(1) for _ in range(4)] == [1, 1, 1, 1]
            assert refused == [
                ("silent connections", 1),
                ("connections without a complete head", 1),
                ("connections that were answered", 1),
                ("slow bodies", 1),
            ]
            assert context.make_room(1) == 0
            assert (await read_reply(slow)).status == 408
            for stream in (silent, asking, answered):
                assert await read_to_end(stream) == b""
            refused.clear()
            more = [await server.connect() for _ in range(2)]
            await more[1].send_all(GET[:20])
            await trio.sleep(SPARED + 1)
            assert context.end_idle(5) == 2
            assert refused == [("silent connections", 1), ("connections without a complete head", 1)]


async def test_who_reads_slowly_goes_before_parked_polls(autojump_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.files.files[b"big"] = content = b"x" * 20_000_000
    limits = attrs.evolve(LIMITS, send_timeout=1000)
    async with serving(fakes, limits=limits, buffer_bytes=65536) as server, trio.open_nursery() as nursery:
        context = server.context
        polls: list[int] = []
        context.answer_oldest = lambda count: polls.append(count) or 1
        with counted(context) as refused:
            slow, quick = [await server.connect() for _ in range(2)]
            for reader in (slow, quick):
                await reader.send_all(FILE)
            received, read_all = bytearray(), trio.Event()

            async def read() -> None:
                while piece := await quick.receive_some(65536):
                    received.extend(piece)
                    await trio.sleep(0.1)
                read_all.set()

            nursery.start_soon(read)
            await trio.sleep(SPARED + 1)
            assert [context.make_room(1) for _ in range(2)] == [1, 1]
            assert (refused, polls) == ([("slow readers", 1)], [1])
            await trio.sleep(1)
            assert len(await read_to_end(slow)) < len(content)
            await read_all.wait()
            assert len(received) > len(content)


async def test_who_leaves_the_end_of_a_reply_unread_goes_too(autojump_clock: MockClock) -> None:
    """However small the piece is that is left."""
    fakes = Fakes()
    fakes.files.files[b"big"] = content = bytes(3 * (65536 + 10_000))  # the fake has it in three parts
    limits = attrs.evolve(LIMITS, send_timeout=1000)
    async with serving(fakes, limits=limits, buffer_bytes=65536) as server:
        reader = await server.connect()
        await reader.send_all(FILE)
        received = 0
        while received < len(content) - 65536 - 5000:
            received += len(await reader.receive_some(1000))
            await wait_all_tasks_blocked()
        await trio.sleep(SPARED + 1)
        with counted(server.context) as refused:
            assert server.context.make_room(1) == 1
            assert refused == [("slow readers", 1)]


async def test_who_acknowledges_nothing_goes_too(autojump_clock: MockClock) -> None:
    """Its reply is with the kernel, and its commands are given back."""
    fakes = Fakes()
    fakes.commands.offers.append(offer := FakeOffer())
    async with serving(fakes, limits=attrs.evolve(LIMITS, send_timeout=1000)) as server:
        reader = await server.listener.connect()
        await reader.send_all(POLL)
        reader.fall_silent()
        await trio.sleep(SPARED - 0.5)
        with counted(server.context) as refused:
            assert server.context.make_room(1) == 0
            await trio.sleep(1)
            assert [server.context.make_room(1) for _ in range(2)] == [1, 0]
            assert refused == [("slow readers", 1)]
        await wait_all_tasks_blocked()
        assert offer.fate == ["released"]
        assert not server.context.reply_scopes
        reader.wake_up()
        with pytest.raises(trio.BrokenResourceError):
            await reader.receive_some()


def test_each_kind_is_in_the_metrics_page() -> None:
    for kind in (SILENT.name, ASKING.name, DRAINED.name, SLOW_BODIES, SLOW_READERS):
        assert f"`{kind.replace(' ', '_')}`" in families.SHED_BY_CAUSE.help


async def test_what_has_come_and_wasnt_read_isnt_the_peers_delay(autojump_clock: MockClock) -> None:
    """The event loop was busy for a second, and is told of a shortage before it reads."""
    context = ListenerContext(app_of(Fakes()), LIMITS, describe)
    pairs = [socketpair() for _ in range(2)]
    scopes = [trio.CancelScope() for _ in pairs]
    for scope, (ours, _) in zip(scopes, pairs, strict=True):
        context.idle_scopes[scope] = idle_now(ours)
    pairs[0][1].send(b"GET ")
    await trio.sleep(1)
    with closing(pairs[0][0]), closing(pairs[0][1]), closing(pairs[1][0]), closing(pairs[1][1]):
        assert context.end_idle(2) == 1
    assert [scope.cancel_called for scope in scopes] == [False, True]
    assert list(context.idle_scopes) == scopes[:1]


def test_local_programs_leave_the_last_descriptors_to_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "descriptor_limit", lambda: 600)
    listeners = [SimpleNamespace(socket=SimpleNamespace(family=family)) for family in (AF_INET, AF_UNIX)]
    agents, local = map(room.highest_descriptor, cast(list[Any], listeners))
    assert agents < local <= 600 - 16
