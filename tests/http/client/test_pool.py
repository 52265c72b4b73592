"""Kept connections to one server, in memory: which are used again, which not, and what is sent again."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import h11
import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, memory_stream_pair

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.http.client.connecting import connect_tcp, describe_cause
from wazuh_comms_trio.http.client.connection import HttpFailure
from wazuh_comms_trio.http.client.pool import HttpPool


@define
class Server:
    """Answers each request with its number, after ``delay`` seconds. ``close_after``: the requests of a connection
    after which it is closed without a word."""

    nursery: trio.Nursery
    delay: float = 0.0
    close_after: int = 1000
    connections: int = 0
    requests: list[bytes] = field(factory=list)
    refuse: bool = False

    async def connect(self) -> trio.abc.Stream:
        if self.refuse:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = memory_stream_pair()
        self.connections += 1
        self.nursery.start_soon(self._serve_client, theirs)
        return ours

    async def _serve_client(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):  # the client left
            await self._serve(stream)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        http = h11.Connection(h11.SERVER)
        for _ in range(self.close_after):
            body = b""
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(65536)))
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.ConnectionClosed):
                    await stream.aclose()
                    return
                elif isinstance(event, h11.EndOfMessage):
                    break
            await trio.sleep(self.delay)
            self.requests.append(body)
            text = str(len(self.requests)).encode()
            reply = h11.Response(status_code=200, headers=[("Content-Length", str(len(text)))])
            data = (http.send(reply) or b"") + (http.send(h11.Data(data=text)) or b"")
            await stream.send_all(data + (http.send(h11.EndOfMessage()) or b""))
            http.start_next_cycle()
        await stream.aclose()


@asynccontextmanager
async def serving(*, keepalive: float = 10.0, **more: object) -> AsyncIterator[tuple[Server, HttpPool]]:
    async with BackgroundNursery() as nursery:
        server = Server(nursery)
        pool = HttpPool(server.connect, host="localhost", keepalive=keepalive, **more)  # type: ignore[arg-type]
        yield server, pool
        await pool.aclose()


async def ask(pool: HttpPool, *, again: bool = False) -> bytes:
    was_unseen = (lambda failure: not failure.heard) if again else None
    return (await pool.request("GET", "/", [], was_unseen=was_unseen)).body


async def test_one_connection_serves_one_request_after_the_other(autojump_clock: MockClock) -> None:
    async with serving() as (server, pool):
        assert [await ask(pool) for _ in range(3)] == [b"1", b"2", b"3"]
        assert (server.connections, pool.idle) == (1, 1)
        async with pool.connection() as connection:
            assert (await connection.exchange("GET", "/", [])).body == b"4"
            assert pool.idle == 0
        assert (server.connections, pool.idle) == (1, 1)


async def test_no_more_are_kept_than_is_said(autojump_clock: MockClock) -> None:
    async with serving(most_idle=2) as (server, pool):
        server.delay = 1
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, pool)
        assert (server.connections, pool.idle) == (5, 2)


async def test_an_old_one_is_not_used_again(autojump_clock: MockClock) -> None:
    async with serving(keepalive=10.0) as (server, pool):
        await ask(pool)
        await trio.sleep(9)
        await ask(pool)
        assert server.connections == 1
        await trio.sleep(11)
        await ask(pool)
        assert (server.connections, pool.idle) == (2, 1)


async def test_what_a_closed_one_took_goes_over_a_new_one_where_that_is_allowed(autojump_clock: MockClock) -> None:
    async with serving() as (server, pool):
        server.close_after = 1
        await ask(pool)
        assert await ask(pool, again=True) == b"2"
        with pytest.raises(HttpFailure):
            await ask(pool)
        assert len(server.requests) == 2


async def test_a_new_connection_that_fails_is_not_replaced(autojump_clock: MockClock) -> None:
    async with serving() as (server, pool):
        server.close_after = 0
        with pytest.raises(HttpFailure) as caught:
            await ask(pool, again=True)
        assert (server.connections, caught.value.sent, pool.idle) == (1, True, 0)


async def test_a_server_that_cannot_be_reached(autojump_clock: MockClock) -> None:
    async with serving() as (server, pool):
        server.refuse = True
        with pytest.raises(HttpFailure, match="no connection: Connection refused") as caught:
            await ask(pool)
        assert not caught.value.sent


async def test_connecting_has_its_limit(autojump_clock: MockClock) -> None:
    pool = HttpPool(trio.sleep_forever, host="localhost", keepalive=1.0, connect_timeout=3.0)  # type: ignore[arg-type]
    with pytest.raises(HttpFailure, match="no connection within 3 s") as caught:
        await ask(pool)
    assert (caught.value.sent, caught.value.timed_out) == (False, True)
    assert trio.current_time() == pytest.approx(3.0)


async def test_a_request_has_a_limit_of_its_own(autojump_clock: MockClock) -> None:
    async with serving(read_timeout=10.0) as (server, pool):
        server.delay = 5
        assert await ask(pool) == b"1"
        with pytest.raises(HttpFailure, match="no answer within 2 s"):
            await pool.request("GET", "/", [], read_timeout=2.0)
        assert await ask(pool) == b"3", "the pool's limit holds again"


async def test_a_request_that_is_cancelled_leaves_no_connection(autojump_clock: MockClock) -> None:
    async with serving() as (server, pool):
        await ask(pool)
        server.delay = 5
        with trio.move_on_after(1) as scope:
            await ask(pool)
        assert scope.cancelled_caught
        assert pool.idle == 0
        with trio.move_on_after(1):
            async with pool.connection() as connection:
                await connection.exchange("GET", "/", [])
        assert pool.idle == 0


async def test_what_connecting_raises_of_its_own_goes_through(autojump_clock: MockClock) -> None:
    async def connect() -> trio.abc.Stream:
        raise LookupError("ours")

    with pytest.raises(LookupError):
        await ask(HttpPool(connect, host="localhost", keepalive=1.0))


async def test_after_closing_nothing_is_kept(autojump_clock: MockClock) -> None:
    async with serving() as (server, pool):
        await ask(pool)
        await pool.aclose()
        assert pool.idle == 0
        assert await ask(pool) == b"2"
        assert server.connections == 2


@pytest.mark.real_clock
async def test_a_port_that_nobody_listens_on_is_said_once() -> None:
    """trio's own reason names the address as Python writes a tuple."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its text is the matter
            await connect_tcp("127.0.0.1", port)
        assert describe_cause(caught.value) == "Connection refused"
