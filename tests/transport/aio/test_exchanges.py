"""Exchanges of several frames among the requests over one stream."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.transport.aio.streams import KINDS, state_of, stream_pair
from tests.transport.peers import frame
from wazuh_comms_trio.transport.aio.protocol import ConnectionState, WazuhAsyncProtocol

# --- several answers to one request ---


def is_last(payload: bytes) -> bool:
    return not payload.startswith(b"due")


async def rows(protocol: WazuhAsyncProtocol, payload: bytes) -> list[bytes]:
    async with protocol.open_exchange(payload, is_last=is_last) as answers:
        return [answer async for answer in answers]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pipelining", [False, True])
async def test_exchanges_among_requests(kind: str, pipelining: bool) -> None:
    async with stream_pair(kind) as (left, right), trio.open_nursery() as nursery:
        client = WazuhAsyncProtocol(left, pipelining=pipelining)
        server = WazuhAsyncProtocol(right)

        async def serve() -> None:
            async for payload in server.requests():
                if payload.startswith(b"rows"):
                    for number in range(int(payload[5:])):
                        await server.send_reply(b"due %d" % number, last=False)
                await server.send_reply(b"ok")

        nursery.start_soon(serve)

        async def ask(number: int) -> None:
            expected = [b"due %d" % row for row in range(number * 50)]
            assert await rows(client, b"rows %d" % (number * 50)) == [*expected, b"ok"]
            assert await client.request(b"one") == b"ok"

        async with trio.open_nursery() as tasks:
            for number in range(8):
                tasks.start_soon(ask, number)
        assert state_of(client) is ConnectionState.READY
        await client.aclose()


async def test_an_exchange_that_is_left_early_closes_the_connection() -> None:
    for pipelining in (False, True):
        left, right = trio.testing.memory_stream_pair()
        client = WazuhAsyncProtocol(left, pipelining=pipelining)
        await right.send_all(frame(b"due 1") + frame(b"due 2"))
        async with client.open_exchange(b"rows", is_last=is_last) as answers:
            assert await anext(answers) == b"due 1"
        assert state_of(client) is ConnectionState.CLOSED
        with pytest.raises(trio.ClosedResourceError, match="left before its last answer"):
            await client.request(b"x")


@pytest.mark.parametrize("pipelining", [False, True])
async def test_asking_inside_an_exchange_is_misuse(pipelining: bool) -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=pipelining)
    await right.send_all(frame(b"due 1") + frame(b"ok"))
    async with client.open_exchange(b"rows", is_last=is_last) as answers:
        with pytest.raises(trio.BusyResourceError):
            await client.request(b"x")
        assert [answer async for answer in answers] == [b"due 1", b"ok"]
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
    assert state_of(client) is ConnectionState.READY


async def test_a_predicate_that_fails_reaches_the_one_who_gave_it() -> None:
    left, right = trio.testing.memory_stream_pair()
    client = WazuhAsyncProtocol(left, pipelining=True)
    results: list[Any] = []

    async def first() -> None:
        results.append(await client.request(b"first"))

    def fails(payload: bytes) -> bool:
        raise ValueError("of the caller")

    async def exchange() -> None:
        with pytest.raises(ValueError, match="of the caller"):
            async with client.open_exchange(b"rows", is_last=fails) as answers:
                await anext(answers)
        results.append("raised")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(exchange)
        await trio.testing.wait_all_tasks_blocked()
        await right.send_all(frame(b"one") + frame(b"two"))
    assert sorted(results, key=str) == [b"one", "raised"]
