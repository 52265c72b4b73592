"""A reply is sent in few calls, and without a turn of the event loop where the socket takes it at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from wazuh_comms_trio.http.server.peer import SEND_BYTES, SHORT_REST, Peer, PeerGone, ReplyWaiting
from wazuh_comms_trio.http.server.streams.socket_stream import CALLS_PER_YIELD, SocketStream

pytestmark = pytest.mark.real_clock

#: Above what is sent in one piece, with what the kernel adds.
ROOM = 4 * SEND_BYTES


class Counted(socket.socket):
    """Says how many bytes it was given in each call, and took."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.calls: list[tuple[int, int]] = []

    def send(self, data: object, flags: int = 0) -> int:
        taken = super().send(data, flags)  # type: ignore[arg-type]
        self.calls.append((len(data), taken))  # type: ignore[arg-type]
        return taken


@pytest.fixture
def ends() -> Iterator[tuple[Counted, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    with Counted(ours) as counted, theirs:
        counted.setblocking(False)
        theirs.setblocking(False)
        yield counted, theirs


def peer_of(sock: socket.socket, timeout: float = 60.0) -> tuple[Peer, dict[trio.CancelScope, float]]:
    scopes: dict[trio.CancelScope, float] = {}
    return Peer(SocketStream(sock), ReplyWaiting(timeout, 1e6, scopes)), scopes


async def read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        await trio.lowlevel.wait_readable(sock)
        data += sock.recv(65536)
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (200, [200]),
        (SEND_BYTES + SHORT_REST, [SEND_BYTES + SHORT_REST]),
        (SEND_BYTES + SHORT_REST + 1, [SEND_BYTES, SHORT_REST + 1]),
        (2 * SEND_BYTES + 1, [SEND_BYTES, SEND_BYTES + 1]),
    ],
)
async def test_a_short_rest_goes_with_what_is_before_it(
    ends: tuple[Counted, socket.socket], size: int, pieces: list[int]
) -> None:
    """As of a file of 64 KiB, which comes behind a reply's head."""
    ours, theirs = ends
    peer, _ = peer_of(ours)
    await peer.send(b"x" * size, last=True)
    assert ours.calls == [(piece, piece) for piece in pieces]
    assert await read(theirs, size) == b"x" * size


async def test_what_the_socket_does_not_take_at_once_is_sent_when_it_does(
    ends: tuple[Counted, socket.socket],
) -> None:
    ours, theirs = ends
    peer, scopes = peer_of(ours)
    data = bytes(range(256)) * (16 * SEND_BYTES // 256)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, data)
        await wait_all_tasks_blocked()
        assert len(scopes) == 1  # whose peer may be ended, where there is no room
        assert await read(theirs, len(data)) == data
    assert not scopes
    assert not peer.gone


async def test_a_peer_that_does_not_read_has_its_time_and_no_more(ends: tuple[Counted, socket.socket]) -> None:
    ours, _ = ends
    peer, scopes = peer_of(ours, timeout=0.01)
    with pytest.raises(PeerGone, match="it doesn't read"):
        await peer.send(bytes(100 * SEND_BYTES))
    assert peer.gone
    assert not scopes


async def test_a_peer_that_has_left_is_gone(ends: tuple[Counted, socket.socket]) -> None:
    ours, theirs = ends
    peer, _ = peer_of(ours)
    theirs.close()
    with pytest.raises(PeerGone):
        await peer.send(b"reply")
    assert peer.gone


async def test_others_have_their_turns(ends: tuple[Counted, socket.socket]) -> None:
    """Also beside somebody whose socket always takes everything."""
    ours, _ = ends
    stream = SocketStream(ours)
    assert [stream.send_now(b"x") for _ in range(CALLS_PER_YIELD + 2)] == [1] * (CALLS_PER_YIELD - 1) + [0] * 3
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"x")
    assert scope.cancelled_caught  # at the turn that was due
    assert stream.send_now(b"x") == 1
