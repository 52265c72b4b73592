"""What each method leaves behind when it is cancelled, and that nothing leaks."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.transport.aio.cancelled import cancelled_at_once, cancelled_when_blocked, fill
from tests.transport.peers import Listening, descriptors, frame, listening, queue_socket, receive_exactly, receive_frame
from wazuh_comms_trio.errors import BacklogFull, WazuhException
from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncQueue
from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket, WazuhAsyncSocketJSON
from wazuh_comms_trio.transport.errors import TransportClosed


def socket_of(sock: WazuhAsyncSocket) -> socket.socket:
    found = sock._io.sock  # type: ignore[union-attr]
    assert isinstance(found, socket.socket)
    return found


# --- connect ---


async def test_connect_before_anything() -> None:
    sock = WazuhAsyncSocket()
    await cancelled_at_once(lambda: sock.connect("/nowhere"))


async def test_connect_that_waits_for_room(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        first = await WazuhAsyncSocket.from_path(server.path)
        before = descriptors()
        sock = WazuhAsyncSocket()
        with trio.move_on_after(0.1) as scope:
            await sock.connect(server.path)
        assert scope.cancelled_caught
        assert descriptors() == before
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await sock.connect(server.path)
        server.accept()
        await sock.connect(server.path)
        await sock.send(b"usable")
        assert receive_frame(server.accept()) == b"usable"
        await sock.aclose()
        await first.aclose()


# --- receive ---


async def test_receive_keeps_what_came(server: Listening) -> None:
    async with await WazuhAsyncSocket.from_path(server.path) as sock:
        peer = server.accept()
        data = frame(b"0123456789") + frame(b"next")
        for cut in range(1, 14):
            peer.sendall(data[:cut])
            await cancelled_when_blocked(sock.receive)
            await cancelled_at_once(sock.receive)
            peer.sendall(data[cut:])
            await cancelled_at_once(sock.receive)
            assert await sock.receive() == b"0123456789"
            await cancelled_at_once(sock.receive)
            assert await sock.receive() == b"next"
        await cancelled_when_blocked(sock.receive_raw)
        peer.sendall(b"raw")
        assert await sock.receive_raw() == b"raw"
        with pytest.raises(trio.TooSlowError), trio.fail_after(0):
            await sock.receive()


# --- send ---


async def test_send_before_its_first_byte(server: Listening) -> None:
    async with await WazuhAsyncSocket.from_path(server.path) as sock:
        peer = server.accept()
        await cancelled_at_once(lambda: sock.send(b"never"))
        filled = fill(socket_of(sock))
        await cancelled_when_blocked(lambda: sock.send(b"never"))
        assert not sock.is_connection_lost()
        receive_exactly(peer, filled)
        await sock.send(b"but this")
        assert receive_frame(peer) == b"but this"


async def test_send_after_its_first_byte(server: Listening) -> None:
    class Large(WazuhAsyncSocket):
        MAX_SIZE = 10_000_000

    async with await Large.from_path(server.path) as sock:
        peer = server.accept()
        await cancelled_when_blocked(lambda: sock.send(bytes(9_000_000)))
        assert sock.is_connection_lost()
        with pytest.raises(trio.ClosedResourceError, match="went out only in part"):
            await sock.send(b"x")
        with pytest.raises(TransportClosed):
            await sock.receive()
        received = 0
        while data := peer.recv(1_000_000):
            received += len(data)
        assert 0 < received < 9_000_000
        await sock.connect(server.path)


async def test_send_over_a_stream_that_does_not_count() -> None:
    left, right = trio.testing.lockstep_stream_pair()
    sock = WazuhAsyncSocket.from_stream(left)
    await cancelled_at_once(lambda: sock.send(b"never"))
    assert not sock.is_connection_lost()
    await cancelled_when_blocked(lambda: sock.send(b"maybe"))
    with pytest.raises(trio.ClosedResourceError, match="went out only in part"):
        await sock.send(b"x")
    await right.aclose()


@pytest.mark.parametrize("over_stream", [False, True])
async def test_closing_while_cancelled_closes(server: Listening, over_stream: bool) -> None:
    if over_stream:
        sock = WazuhAsyncSocket.from_stream(await trio.open_unix_socket(server.path))
    else:
        sock = await WazuhAsyncSocket.from_path(server.path)
    peer = server.accept()
    await cancelled_at_once(sock.aclose)
    assert peer.recv(1) == b""
    with pytest.raises(trio.ClosedResourceError):
        await sock.send(b"x")


async def test_a_json_request_gives_its_connection_up(server: Listening) -> None:
    async with await WazuhAsyncSocketJSON.from_path(server.path) as sock:
        peer = server.accept()
        await cancelled_at_once(lambda: sock.request({"command": "x"}))
        assert not sock.is_connection_lost()
        await cancelled_when_blocked(lambda: sock.request({"command": "x"}))
        assert receive_frame(peer) == b'{"command": "x"}'
        assert peer.recv(1) == b""
        with pytest.raises(trio.ClosedResourceError, match="before its answer came"):
            await sock.receive()


# --- queues ---


async def test_a_full_queue(home: Path) -> None:
    with queue_socket(home / "q") as reader:
        async with await WazuhAsyncQueue.from_path(str(home / "q")) as queue:
            sent = 0

            async def send_for_ever() -> None:
                nonlocal sent
                while True:
                    await queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, f"{sent:03}")
                    sent += 1

            await cancelled_when_blocked(send_for_ever)
            await cancelled_when_blocked(lambda: queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, "999"))
            seen = [reader.recv(1000).split()[3] for _ in range(sent)]
            assert seen == [b"%03d" % number for number in range(sent)]
            await queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, "777")
            assert reader.recv(1000).split()[3] == b"777"


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_task_that_only_sends_notices_that_it_is_cancelled(home: Path, by_itself: bool) -> None:
    """The queue never fills, so nothing makes it wait; what it sent until then is what went out, nothing more."""
    with queue_socket(home / "q") as reader:
        async with await WazuhAsyncQueue.from_path(str(home / "q")) as queue, trio.open_nursery() as nursery:
            reader.setblocking(False)
            sent = read = others = 0

            async def cancel_after(turns: int, scope: trio.CancelScope) -> None:
                nonlocal others
                while others < turns:
                    await trio.lowlevel.checkpoint()
                    others += 1
                scope.cancel()

            await queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, "001")  # a turn begins
            assert reader.recv(1000)
            with trio.CancelScope() as scope:
                if by_itself:
                    scope.cancel()
                else:
                    nursery.start_soon(cancel_after, 10, scope)
                while sent < 1_000_000:
                    await queue.send_msg_to_agent(WazuhAsyncQueue.RESTART_AGENTS, "001")
                    sent += 1
                    read += bool(reader.recv(1000))
            assert scope.cancelled_caught
            assert read == sent
            assert others == (0 if by_itself else 10)
            with pytest.raises(BlockingIOError):
                reader.recv(1000)


# --- leaks ---


async def test_ten_thousand_rounds_leak_no_descriptor(home: Path) -> None:
    with listening(home / "s") as server:
        server.sock.setblocking(False)
        before = descriptors()
        for number in range(10_000):
            how = number % 5
            with suppress(WazuhException, trio.TooSlowError), trio.fail_after(0 if how == 1 else 10):
                if how == 2:
                    await WazuhAsyncSocket().connect(str(home / "none"))
                elif how == 3:
                    protocol = await WazuhAsyncProtocol.from_path(server.path, pipelining=number % 2 == 0)
                    with trio.move_on_after(0):
                        await protocol.request(b"x")
                    await protocol.aclose()
                else:
                    async with await WazuhAsyncSocket.from_path(server.path) as sock:
                        await sock.send(b"x")
                        if how == 4:
                            server.sock.accept()[0].close()
                            await sock.receive()
            with suppress(BlockingIOError):
                server.sock.accept()[0].close()
        assert descriptors() == before


async def test_a_full_backlog_leaks_no_descriptor(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        async with await WazuhAsyncSocket.from_path(server.path):
            before = descriptors()
            for _ in range(50):
                with pytest.raises(BacklogFull):
                    await WazuhAsyncSocket().connect(server.path)
            assert descriptors() == before
