"""Connections beyond a limit: who has sent nothing goes, the others wait, and honest agents hardly notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import AUTHORIZED, LIMITS, problem, read_reply, read_to_end, serving
from wazuh_comms_trio.http.server.accept_loop import QUEUE_TIMEOUT
from wazuh_comms_trio.http.server.listener_context import ListenerContext

GET = b"GET /api/v1/ HTTP/1.1\r\nHost: h\r\n\r\n"
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
            assert sum(count for what, count in refused if what == "connections") == 5
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
