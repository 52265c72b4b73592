"""Long frames are read past the decoder where they can be: any cut, end and error is what it is for short ones."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from wazuh_comms_trio.errors import EmptyFrame, FrameTooLarge, PeerClosed, TruncatedFrame
from wazuh_comms_trio.transport import WazuhAsyncProtocol, WazuhAsyncSocket, WazuhSocket

SIZES = (1, 100, 24_575, 24_576, 24_577, 32_768, 65_535, 65_536, 65_537, 122_879, 122_880, 122_881, 200_000)


def payloads(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [bytes([rng.randrange(256)]) * rng.choice(SIZES) for _ in range(count)]


def framed(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


@pytest.fixture
async def pair() -> AsyncIterator[tuple[WazuhAsyncSocket, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    async with WazuhAsyncSocket.from_stream(trio.SocketStream(ours)) as sock, trio.SocketStream(theirs) as peer:
        yield sock, peer


async def send_cut(peer: trio.SocketStream, data: bytes, size: Callable[[], int]) -> None:
    start = 0
    while start < len(data):
        end = start + size()
        await peer.send_all(data[start:end])
        start = end


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("largest", [97, 5000, 70_000, 1_000_000])
async def test_any_cut(pair: tuple[WazuhAsyncSocket, trio.SocketStream], seed: int, largest: int) -> None:
    sock, peer = pair
    expected = payloads(12 if largest > 97 else 2, seed)
    rng = random.Random(seed)
    async with trio.open_nursery() as nursery:
        data = b"".join(framed(payload) for payload in expected)
        nursery.start_soon(send_cut, peer, data, lambda: rng.randint(1, largest))
        for payload in expected:
            assert await sock.receive() == payload


async def fill(sock: WazuhAsyncSocket, peer: trio.SocketStream, rest: bytes, *, end: bool) -> None:
    """Three long frames, so that the fourth is read as a long one is, then ``rest``."""
    long = b"x" * 40_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, framed(long) * 3 + rest)
        for _ in range(3):
            assert await sock.receive() == long
    if end:
        await peer.send_eof()


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (b"", PeerClosed),
        (b"\x00\x90", TruncatedFrame),
        (struct.pack("<I", 40_000), TruncatedFrame),
        (struct.pack("<I", 40_000) + b"y" * 39_999, TruncatedFrame),
        (struct.pack("<I", 0), EmptyFrame),
        (struct.pack("<I", 0xFFFFFFFF), FrameTooLarge),
    ],
)
async def test_ends_and_errors(
    pair: tuple[WazuhAsyncSocket, trio.SocketStream], rest: bytes, error: type[Exception]
) -> None:
    sock, peer = pair
    await fill(sock, peer, rest, end=True)
    for _ in range(2):
        with pytest.raises(error):
            await sock.receive()


async def test_short_frames_after_long_ones(pair: tuple[WazuhAsyncSocket, trio.SocketStream]) -> None:
    sock, peer = pair
    await fill(sock, peer, framed(b"ok") + framed(b"z" * 40_000) + framed(b"1") * 3, end=False)
    assert await sock.receive() == b"ok"
    assert await sock.receive() == b"z" * 40_000
    assert [await sock.receive() for _ in range(3)] == [b"1"] * 3


@pytest.mark.parametrize("sent", [0, 2, 4, 5, 39_000])
async def test_cancelled_inside_a_long_frame(pair: tuple[WazuhAsyncSocket, trio.SocketStream], sent: int) -> None:
    sock, peer = pair
    frame = framed(b"y" * 40_000)
    await fill(sock, peer, frame[:sent], end=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sock.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await peer.send_all(frame[sent:])
    assert await sock.receive() == b"y" * 40_000


async def test_raw_after_long_frames(pair: tuple[WazuhAsyncSocket, trio.SocketStream]) -> None:
    sock, peer = pair
    await fill(sock, peer, b"no frame", end=False)
    assert await sock.receive_raw() == b"no frame"


async def test_others_get_a_turn(pair: tuple[WazuhAsyncSocket, trio.SocketStream]) -> None:
    sock, peer = pair
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        nursery.start_soon(send_cut, peer, framed(b"x" * 60_000) * 500, lambda: 200_000)
        for _ in range(500):
            await sock.receive()
        nursery.cancel_scope.cancel()
    assert turns > 3


async def test_exchanges_of_long_frames() -> None:
    ours, theirs = trio.socket.socketpair()
    expected = payloads(20, 9)
    async with (
        WazuhAsyncProtocol(trio.SocketStream(ours)) as client,
        WazuhAsyncProtocol(trio.SocketStream(theirs), max_send_bytes=1_000_000) as server,
        trio.open_nursery() as nursery,
    ):

        async def answer() -> None:
            await server.receive_request()
            for payload in expected:
                await server.send_reply(payload, last=False)
            await server.send_reply(b"ok")

        nursery.start_soon(answer)
        async with client.open_exchange(b"go", is_last=lambda payload: payload == b"ok") as answers:
            got = [payload async for payload in answers]
        assert got == [*expected, b"ok"]
        assert client.statistics().bytes_received == sum(4 + len(payload) for payload in got)


def test_blocking_class(tmp_path: object) -> None:
    path = f"{tmp_path}/s"
    expected = payloads(40, 5)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with WazuhSocket(path, timeout=10) as sock:
            accepted, _ = listener.accept()
            with accepted:
                for payload in expected:
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                    accepted.sendall(framed(payload[:150_000]))
                    assert sock.receive() == payload[:150_000]
