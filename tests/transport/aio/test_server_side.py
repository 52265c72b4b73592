"""The server's side of requests and answers over one stream."""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing

from tests.transport.aio.streams import echo, state_of
from tests.transport.peers import frame, stream_frame
from wazuh_comms_trio.errors import PeerClosed, WazuhInternalError
from wazuh_comms_trio.transport.aio.protocol import ConnectionState, WazuhAsyncProtocol

# --- as server ---


async def test_server_side_by_hand() -> None:
    left, right = trio.testing.memory_stream_pair()
    server = WazuhAsyncProtocol(right)
    await left.send_all(frame(b"one") + frame(b"two"))
    with trio.testing.assert_checkpoints():
        assert await server.receive_request() == b"one"
    with trio.testing.assert_checkpoints():
        assert await server.receive_request() == b"two"
    assert state_of(server) is ConnectionState.BUSY
    assert server.statistics().in_flight == 2
    with trio.testing.assert_checkpoints():
        await server.send_reply(b"1")
    await server.send_reply(b"2")
    assert state_of(server) is ConnectionState.READY
    assert await stream_frame(left) == b"1"
    assert await stream_frame(left) == b"2"
    with pytest.raises(WazuhInternalError, match="no request waits"):
        await server.send_reply(b"3")
    with pytest.raises(WazuhInternalError, match="a server's"):
        await server.request(b"x")
    await left.aclose()
    with pytest.raises(PeerClosed):
        await server.receive_request()


async def test_a_client_may_end_its_side_and_still_be_answered() -> None:
    left, right = trio.testing.memory_stream_pair()
    server = WazuhAsyncProtocol(right)
    await left.send_all(frame(b"last"))
    await left.send_eof()
    assert await server.receive_request() == b"last"
    with pytest.raises(PeerClosed):
        await server.receive_request()
    await server.send_reply(b"answer")
    assert await stream_frame(left) == b"answer"


async def test_misuse_of_the_server_side() -> None:
    left, right = trio.testing.memory_stream_pair()
    server = WazuhAsyncProtocol(right)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_request()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.receive_request()
        await server.aclose()
    client = WazuhAsyncProtocol(left)
    with pytest.raises(trio.BrokenResourceError):
        await client.request(b"x")
    with pytest.raises(WazuhInternalError, match="a client's"):
        await client.receive_request()


async def test_a_client_that_sends_no_frames_is_cut_off() -> None:
    left, right = trio.testing.memory_stream_pair()
    server = WazuhAsyncProtocol(right, max_receive_bytes=100)
    await left.send_all(struct.pack("<I", 101))
    with pytest.raises(trio.BrokenResourceError, match="a frame of 101 bytes"):
        await server.serve(echo)
    assert state_of(server) is ConnectionState.BROKEN
    assert await left.receive_some() == b""
