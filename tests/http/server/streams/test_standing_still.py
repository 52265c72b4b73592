"""This process was stopped, or its machine was: peers don't pay for it, on the mock clock. What tells of it is
``daemon.worker.heartbeat.LoopLag``."""

from __future__ import annotations

from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import (
    AUTHORIZED,
    SHORT_LIMITS,
    Fakes,
    Server,
    problem,
    read_reply,
    request_bytes,
    serving,
)

HEAD = b"POST /api/v1/events/stateful HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED + b"\r\nContent-Length: 1000\r\n\r\n"


async def stand_still(server: Server, clock: MockClock, seconds: float) -> None:
    """As after a wait of the event loop that ended so much later than it should."""
    await wait_all_tasks_blocked()
    server.context.stood_still(seconds)
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def test_what_a_peer_sent_meanwhile_is_read(mock_clock: MockClock) -> None:
    """The rest of a body and of a head, and the first bytes."""
    async with serving(limits=SHORT_LIMITS) as server:
        body, head, silent = [await server.connect() for _ in range(3)]
        await body.send_all(HEAD + b"x" * 500)
        await head.send_all(b"GET /api/v1/ HTTP/1.1\r\n")
        await stand_still(server, mock_clock, 20)
        await body.send_all(b"x" * 400)
        await wait_all_tasks_blocked()
        mock_clock.jump(SHORT_LIMITS.head_timeout - 0.1)  # of which nothing is used up yet
        await body.send_all(b"x" * 100)
        await head.send_all(b"Host: localhost\r\n\r\n")
        await silent.send_all(request_bytes("GET", "/api/v1/"))
        assert [(await read_reply(stream)).status for stream in (body, head, silent)] == [200, 200, 200]


async def test_who_reads_a_reply_has_longer(mock_clock: MockClock) -> None:
    fakes = Fakes()
    fakes.files.files[b"big"] = content = b"x" * 1_000_000
    async with serving(fakes, limits=SHORT_LIMITS, buffer_bytes=100_000) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/files?file_name=big"))
        await stand_still(server, mock_clock, 20)
        assert (await read_reply(stream)).body == content


async def test_it_is_no_credit(mock_clock: MockClock) -> None:
    """A peer that was silent before and after it has no more time than else."""
    async with serving(limits=SHORT_LIMITS) as server:
        stream = await server.connect()
        await stream.send_all(HEAD + b"x" * 500)
        await wait_all_tasks_blocked()
        mock_clock.jump(6)
        await stand_still(server, mock_clock, 20)
        await stream.send_all(b"x")
        await wait_all_tasks_blocked()
        mock_clock.jump(3.9)
        await wait_all_tasks_blocked()
        await stream.send_all(b"x")
        await wait_all_tasks_blocked()
        mock_clock.jump(0.2)
        assert problem(await read_reply(stream)) == (408, 408)
