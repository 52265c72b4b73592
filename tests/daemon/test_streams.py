"""The in-memory connections behave like TCP where the daemon relies on it, and keep trio's stream contract."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from wazuh_comms_trio.testing.streams import MemoryListener, MemoryStream, memory_connection


async def test_trios_contract_for_streams() -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        return memory_connection()

    async def make_clogged() -> tuple[MemoryStream, MemoryStream]:
        client, server = memory_connection(buffer_bytes=1)
        await client.send_all(b"c")
        await server.send_all(b"s")
        return client, server

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_sending_waits_while_the_peer_does_not_read() -> None:
    client, server = memory_connection(buffer_bytes=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"x" * 11)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks  # it waits
        assert await client.receive_some() == b"x" * 10
    assert await client.receive_some() == b"x"


async def test_an_end_in_order_lets_the_rest_be_read_first() -> None:
    client, server = memory_connection()
    await server.send_all(b"reply")
    await server.aclose()
    assert await client.receive_some() == b"reply"
    assert await client.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")


async def test_closing_with_unread_input_resets() -> None:
    client, server = memory_connection()
    await client.send_all(b"unread")
    await server.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def test_a_reset_wakes_whoever_waits() -> None:
    client, server = memory_connection()

    async def receive(stream: MemoryStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, server)
        await trio.testing.wait_all_tasks_blocked()
        client.reset()


async def test_what_a_sleeping_peer_has_not_taken_is_unacknowledged() -> None:
    client, server = memory_connection()
    await server.send_all(b"one")
    assert server.socket.unacknowledged_bytes() == 0
    client.fall_silent()
    await server.send_all(b"two")
    assert server.socket.unacknowledged_bytes() == 3
    assert await client.receive_some() == b"one"
    client.wake_up()
    assert server.socket.unacknowledged_bytes() == 0
    assert await client.receive_some() == b"two"


async def test_a_reset_drops_what_was_not_acknowledged() -> None:
    client, server = memory_connection()
    await server.send_all(b"one")
    client.fall_silent()
    await server.send_all(b"two")
    server.reset()
    assert await client.receive_some() == b"one"
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def test_one_task_a_direction() -> None:
    client, _server = memory_connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive_some()
        nursery.cancel_scope.cancel()


async def test_the_socket_stand_in_knows_its_addresses_and_options() -> None:
    listener = MemoryListener(("192.0.2.1", 27000))
    client = await listener.connect("198.51.100.7")
    server = await listener.accept()
    assert server.socket.getsockname() == ("192.0.2.1", 27000)
    assert server.socket.getpeername()[0] == "198.51.100.7"
    assert client.socket.getsockname() == server.socket.getpeername()
    server.socket.setsockopt(6, 12, 1)
    assert server.socket.options == {(6, 12): 1}
    assert server.socket.getsockopt(6, 12) == 1


async def test_a_closed_listener_refuses_and_resets_who_waited() -> None:
    listener = MemoryListener()
    client = await listener.connect()
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await listener.connect()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_listener_serves_with_trios_own_loop() -> None:
    listener = MemoryListener()

    async def echo(stream: MemoryStream) -> None:
        await stream.send_all(await stream.receive_some())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, echo, [listener]))
        client = await listener.connect()
        await client.send_all(b"hello")
        assert await client.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
