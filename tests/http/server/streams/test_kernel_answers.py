"""What a kernel says of a connection, and its stand-ins."""

from __future__ import annotations

from socket import SO_LINGER, SOL_SOCKET
from struct import pack

import pytest
import trio

from tests.http.server.listener import until
from wazuh_comms_trio.http.server.delivery import has_left, is_reset, unacknowledged_bytes, unread_bytes
from wazuh_comms_trio.testing.streams import memory_connection


@pytest.mark.real_clock
async def test_the_kernel_counts_what_is_unacknowledged(pair: tuple[trio.SocketStream, trio.SocketStream]) -> None:
    client, server = pair
    assert unacknowledged_bytes(server.socket) == 0
    await server.send_all(b"x" * 1000)
    await until(lambda: unacknowledged_bytes(server.socket) == 0)
    with trio.move_on_after(0.2):  # the other side's buffer fills up
        await server.send_all(b"x" * 50_000_000)
    assert (unacknowledged_bytes(server.socket) or 0) > 0
    assert not is_reset(server.socket)
    client.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
    client.socket.close()
    await until(lambda: is_reset(server.socket))
    assert (unacknowledged_bytes(server.socket) or 0) > 0


@pytest.mark.real_clock
@pytest.mark.parametrize("ending", ["closes its side", "closes with something unread", "resets"])
async def test_the_kernel_knows_who_has_left(pair: tuple[trio.SocketStream, trio.SocketStream], ending: str) -> None:
    """Also behind bytes that weren't read, as the end of TLS."""
    client, server = pair
    await client.send_all(b"12345")
    await until(lambda: unread_bytes(server.socket) == 5)
    assert not has_left(server.socket)
    if ending == "closes its side":
        await client.send_eof()
    else:
        if ending == "resets":
            client.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
        client.socket.close()
    await until(lambda: has_left(server.socket))


@pytest.mark.real_clock
async def test_the_kernel_counts_what_is_unread(pair: tuple[trio.SocketStream, trio.SocketStream]) -> None:
    client, server = pair
    assert unread_bytes(server.socket) == 0
    await client.send_all(b"12345")
    await until(lambda: unread_bytes(server.socket) == 5)
    assert await server.receive_some() == b"12345"
    assert unread_bytes(server.socket) == 0


def test_stand_ins_answer_for_themselves() -> None:
    _, server = memory_connection()
    assert unacknowledged_bytes(server.socket) == 0
    assert unread_bytes(server.socket) == 0
    assert not is_reset(server.socket)
    assert not has_left(server.socket)
