"""The trio stream classes: over socket files, over streams in memory, TCP and TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.transport.aio.streams import connected
from tests.transport.peers import Listening, frame, receive_exactly, receive_frame, stream_frame
from wazuh_comms_trio.errors import (
    AnswerInvalid,
    EmptyFrame,
    FrameTooLarge,
    PayloadTooLarge,
    PeerClosed,
    TruncatedFrame,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket, WazuhAsyncSocketJSON
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed, TransportPeerClosed, TrioOnly


async def test_one_exchange(server: Listening) -> None:
    sock = WazuhAsyncSocket()
    assert isinstance(sock, trio.abc.AsyncResource)
    with trio.testing.assert_checkpoints():
        await sock.connect(server.path)
    peer = server.accept()
    with trio.testing.assert_checkpoints():
        assert await sock.send(b"hello") == b"\x05\0\0\0hello"
    assert receive_exactly(peer, 9) == b"\x05\0\0\0hello"
    peer.sendall(frame(b"world\0"))
    with trio.testing.assert_checkpoints():
        assert await sock.receive() == b"world\0"
    with trio.testing.assert_checkpoints():
        await sock.close()
    assert peer.recv(1) == b""
    with trio.testing.assert_checkpoints():
        await sock.aclose()


async def test_frames_that_came_together_are_told_apart(server: Listening) -> None:
    async with await connected(server) as sock:
        peer = server.accept()
        frames = [bytes([i]) * (i + 1) for i in range(100)]
        peer.sendall(b"".join(map(frame, frames)))
        assert [await sock.receive() for _ in frames] == frames


async def test_frames_that_are_here_already_let_others_run(server: Listening) -> None:
    async with await connected(server) as sock, trio.open_nursery() as nursery:
        server.accept().sendall(frame(b"x") * 200)
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                await trio.lowlevel.checkpoint()
                others += 1

        nursery.start_soon(other)
        for _ in range(200):
            await sock.receive()
        nursery.cancel_scope.cancel()
        assert others >= 10  # every 16th at least


async def test_large_payloads_both_ways(server: Listening) -> None:
    class Large(WazuhAsyncSocket):
        MAX_SIZE = 10_000_000

    payload = os.urandom(3_000_000)
    async with await Large.from_path(server.path) as sock, trio.open_nursery() as nursery:
        peer = server.accept()
        received: list[bytes] = []

        def echo() -> None:
            received.append(receive_frame(peer))
            peer.sendall(frame(payload))

        nursery.start_soon(trio.to_thread.run_sync, echo)
        await sock.send(payload)
        assert await sock.receive() == payload
        assert received == [payload]


@pytest.mark.parametrize(
    ("payload", "code", "kind"),
    [(bytes(65537), 1012, PayloadTooLarge), (b"", 1014, WazuhError), ("text", 1105, WazuhException)],
)
async def test_what_must_not_be_sent_is_refused_before_its_first_byte(
    server: Listening, payload: Any, code: int, kind: type[WazuhException]
) -> None:
    async with await connected(server) as sock:
        peer = server.accept()
        with pytest.raises(kind) as caught:
            await sock.send(payload)
        assert caught.value.code == code
        await sock.send(b"next")
        assert receive_frame(peer) == b"next"


async def test_raw_bytes(server: Listening) -> None:
    async with await connected(server) as sock:
        peer = server.accept()
        assert await sock.send(b"bare", None) == b"bare"
        assert receive_exactly(peer, 4) == b"bare"
        peer.sendall(b"some")
        assert await sock.receive(None) == b"some"
        peer.sendall(b"thing")
        assert await sock.receive(header_format=None) == b"thing"
        peer.sendall(frame(b"framed") + b"bare")
        assert await sock.receive() == b"framed"
        assert await sock.receive_raw() == b"bare"
        peer.close()
        with pytest.raises(TransportPeerClosed):
            await sock.receive_raw()


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", PeerClosed),
        (b"\x05", TruncatedFrame),
        (b"\x05\0\0\0abc", TruncatedFrame),
        (b"\0\0\0\0", EmptyFrame),
        (struct.pack("<I", 1001), FrameTooLarge),
    ],
)
async def test_what_a_peer_may_do_wrong(server: Listening, sent: bytes, kind: type[WazuhError]) -> None:
    async with await connected(server, max_receive_bytes=1000) as sock:
        peer = server.accept()
        peer.sendall(sent)
        peer.close()
        for _ in range(2):
            with pytest.raises(kind) as caught:
                await sock.receive()
            assert caught.value.code == 1014
            assert isinstance(caught.value, WazuhError)
            assert isinstance(caught.value, TransportBroken)
            assert isinstance(caught.value, trio.BrokenResourceError)


async def test_a_peer_that_is_gone(server: Listening) -> None:
    async with await connected(server) as sock:
        server.accept().close()
        with pytest.raises(trio.BrokenResourceError, match=r"Error 1014 .*Broken pipe"):
            await sock.send(b"hello")


async def for_ever(use: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await use()


async def uses(sock: WazuhAsyncSocket) -> list[Callable[[], Awaitable[Any]]]:
    return [lambda: sock.send(b"x"), sock.receive, sock.receive_raw]


async def test_without_a_connection() -> None:
    sock = WazuhAsyncSocket()
    assert sock.is_connection_lost()
    for use in await uses(sock):
        with pytest.raises(TransportClosed, match=r"Error 1014 .*not connected") as caught:
            await use()
        assert isinstance(caught.value, trio.ClosedResourceError)
        assert isinstance(caught.value, WazuhError)


async def test_after_closing(server: Listening) -> None:
    sock = await connected(server)
    await sock.close()
    assert sock.is_connection_lost()
    for use in await uses(sock):
        with pytest.raises(trio.ClosedResourceError, match=r"Error 1014 .*this socket is closed"):
            await use()
    await sock.connect(server.path)
    assert not sock.is_connection_lost()
    await sock.close()


async def test_closing_wakes_those_who_wait(server: Listening) -> None:
    sock = await connected(server)
    filled = 0
    async with trio.open_nursery() as nursery:

        async def wait(use: Callable[[], Awaitable[Any]]) -> None:
            nonlocal filled
            with pytest.raises(trio.ClosedResourceError):
                await for_ever(use)
            filled += 1

        nursery.start_soon(wait, sock.receive)
        nursery.start_soon(wait, lambda: sock.send(bytes(65536)))
        await trio.testing.wait_all_tasks_blocked()
        await sock.aclose()
    assert filled == 2


async def test_is_connection_lost_sees_the_peers_end_without_a_read(server: Listening) -> None:
    async with await connected(server) as sock:
        peer = server.accept()
        assert not sock.is_connection_lost()
        peer.sendall(frame(b"answer"))
        assert not sock.is_connection_lost()
        peer.close()
        assert sock.is_connection_lost()
        assert await sock.receive() == b"answer"
        assert sock.is_connection_lost()


async def test_one_sender_beside_one_receiver(server: Listening) -> None:
    async with await connected(server) as sock, trio.open_nursery() as nursery:
        peer = server.accept()
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await sock.receive())

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        for use in (sock.receive, sock.receive_raw):
            with pytest.raises(trio.BusyResourceError):
                await use()
        await sock.send(b"beside")
        assert receive_frame(peer) == b"beside"

        async def fill() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await for_ever(lambda: sock.send(bytes(65536)))

        nursery.start_soon(fill)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await sock.send(b"second")
        peer.sendall(frame(b"for the receiver"))
        await trio.testing.wait_all_tasks_blocked()
        assert received == [b"for the receiver"]
        await sock.aclose()


async def test_peer_credentials(server: Listening) -> None:
    async with await connected(server) as sock:
        assert sock.peer_credentials() == (os.getpid(), os.getuid(), os.getgid())
    left, _ = trio.testing.memory_stream_pair()
    async with WazuhAsyncSocket.from_stream(left) as sock:
        with pytest.raises(WazuhError, match=r"Error 1014 .*only a Unix socket"):
            sock.peer_credentials()


# --- over streams ---


async def test_over_a_stream_in_memory() -> None:
    left, right = trio.testing.memory_stream_pair()
    async with WazuhAsyncSocket.from_stream(left) as sock:
        assert await sock.send(b"hello") == frame(b"hello")
        assert await stream_frame(right) == b"hello"
        await right.send_all(frame(b"world") + frame(b"again"))
        assert await sock.receive() == b"world"
        assert await sock.receive() == b"again"
        assert not sock.is_connection_lost()
        await right.aclose()
        with pytest.raises(TransportPeerClosed):
            await sock.receive()
        assert sock.is_connection_lost()
        with pytest.raises(trio.BrokenResourceError):
            await sock.send(b"x")


async def test_over_tcp() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        peer = await listener.accept()
        async with WazuhAsyncSocket.from_stream(stream) as sock:
            await sock.send(bytes(65536))
            assert await stream_frame(peer) == bytes(65536)
            await peer.send_all(frame(b"answer"))
            assert await sock.receive() == b"answer"
            assert not sock.is_connection_lost()
            await peer.aclose()
            with suppress(trio.BrokenResourceError):
                await trio.lowlevel.wait_readable(stream.socket)
            assert sock.is_connection_lost()
            with pytest.raises(WazuhError, match="credentials"):
                sock.peer_credentials()
            with pytest.raises(trio.BrokenResourceError):
                await sock.receive()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_over_tls() -> None:
    authority = trustme.CA()
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("node").configure_cert(server_context)
    left, right = trio.testing.memory_stream_pair()
    peer = trio.SSLStream(right, server_context, server_side=True)
    async with WazuhAsyncSocket.from_stream(trio.SSLStream(left, client_context, server_hostname="node")) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.do_handshake)
            await sock.send(b"hello")
        assert await stream_frame(peer) == b"hello"
        await peer.send_all(frame(b"world"))
        assert await sock.receive() == b"world"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.aclose)
            with pytest.raises(TransportPeerClosed):
                await sock.receive()


async def test_errors_of_a_stream_are_translated() -> None:
    left, _ = trio.testing.memory_stream_pair()
    sock = WazuhAsyncSocket.from_stream(left)
    await left.aclose()
    with pytest.raises(TransportClosed):
        await sock.receive()
    with pytest.raises(TransportClosed):
        await sock.send(b"x")
    await sock.aclose()


# --- JSON ---


async def test_json_exchange(server: Listening) -> None:
    async with WazuhAsyncSocketJSON() as sock:
        await sock.connect(server.path)
        peer = server.accept()
        assert await sock.send({"command": "status"}) == frame(b'{"command": "status"}')
        assert receive_frame(peer) == b'{"command": "status"}'
        peer.sendall(frame(b'{"error": 0, "data": [1]}\0') * 3)
        assert await sock.receive() == [1]
        assert await sock.receive(4) == [1]
        assert await sock.receive(raw=True) == {"error": 0, "data": [1]}
        peer.sendall(frame(b'{"error": 9008, "message": "Duplicate name"}') + frame(b"ok"))
        with pytest.raises(WazuhException, match=r"^Error 9008 - Duplicate name$"):
            await sock.receive()
        with pytest.raises(AnswerInvalid, match="isn't JSON"):
            await sock.receive()
        with pytest.raises(WazuhInternalError, match="Error 1012"):
            await sock.send({1})


async def test_json_request(server: Listening) -> None:
    async with await WazuhAsyncSocketJSON.from_path(server.path) as sock:
        peer = server.accept()
        peer.sendall(frame(b'{"error": 0, "data": {"a": "1"}}'))
        assert await sock.request({"command": "x"}, type=dict[str, int]) == {"a": 1}
        with pytest.raises(WazuhInternalError, match=r"Error 1012 .*schema"):
            await sock.request({"version": "1"})
        assert receive_frame(peer) == b'{"command": "x"}'
        with trio.move_on_after(0):
            await sock.request({"command": "y"})
        peer.sendall(frame(b'{"error": 0, "data": 5}'))
        assert await sock.request({"command": "z"}) == 5


# --- elsewhere than trio ---


@pytest.mark.parametrize("kind", [WazuhAsyncSocket, WazuhAsyncSocketJSON])
def test_under_asyncio_it_says_so(kind: type[WazuhAsyncSocket]) -> None:
    async def use() -> None:
        async with kind() as sock:
            await sock.connect("/nowhere")

    with pytest.raises(TrioOnly, match=f"^{kind.__name__} needs trio, and this is asyncio: .*wazuh_sendsync$"):
        asyncio.run(use())


def test_without_a_loop_it_says_so() -> None:
    coroutine = WazuhAsyncSocket().receive()
    with pytest.raises(TrioOnly, match="no event loop runs here"):
        coroutine.send(None)
