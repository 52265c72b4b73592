"""A connection goes from request to request without its next task waking up in between, over a real socket whose other
end is driven by hand."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.transport.peers import Listening, frame, listening, receive_exactly, receive_frame
from wazuh_comms_trio.transport import Daemon, Pool, open_pool
from wazuh_comms_trio.transport.aio import shared_reads

DAEMON = Daemon("mine", ("s",), reusable=True)


@pytest.fixture
async def pool(home: Path, server: Listening) -> AsyncIterator[Pool]:
    """Of one connection, so that the second request waits for the first."""
    async with open_pool(DAEMON, home=home, size=1) as made:
        yield made


class Asked:
    """A request in a task of its own; ``answer`` is None until it is over, else its answer or its error."""

    def __init__(self, pool: Pool, nursery: trio.Nursery, payload: bytes) -> None:
        self.answer: bytes | Exception | None = None
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        nursery.start_soon(self._run, pool, payload)

    async def _run(self, pool: Pool, payload: bytes) -> None:
        with self.scope:
            try:
                self.answer = await pool.request(payload)
            except trio.Cancelled:
                raise
            except Exception as error:
                self.answer = error
        self.over.set()


@asynccontextmanager
async def two_requests(
    pool: Pool, server: Listening, second: bytes = b"two"
) -> AsyncIterator[tuple[Asked, Asked, socket.socket]]:
    """The first one sent, the second waiting for its turn."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            one = Asked(pool, nursery, b"one")
            await trio.testing.wait_all_tasks_blocked()
            two = Asked(pool, nursery, second)
            await trio.testing.wait_all_tasks_blocked()
            peer = server.accept()
            assert receive_frame(peer) == b"one"
            yield one, two, peer


async def test_the_next_request_goes_out_before_its_task_runs(pool: Pool, server: Listening) -> None:
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first"))
        await one.over.wait()
        assert receive_frame(peer) == b"two"
        statistics = pool.statistics()
        assert (statistics.in_use, statistics.idle, statistics.tasks_waiting) == (1, 0, 0)
        peer.sendall(frame(b"second"))
        await two.over.wait()
        assert (one.answer, two.answer) == (b"first", b"second")
        assert (pool.statistics().connects, pool.statistics().given_up) == (1, 0)


async def test_its_answer_comes_in_pieces(pool: Pool, server: Listening) -> None:
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first"))
        await one.over.wait()
        for byte in frame(b"second"):
            peer.sendall(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        await two.over.wait()
        assert two.answer == b"second"


async def test_another_task_reads_the_pieces_of_its_answer(home: Path) -> None:
    with trio.fail_after(10), listening(home / "s") as server:
        async with open_pool(DAEMON, home=home, size=2) as pool, trio.open_nursery() as nursery:
            asked = []
            for payload in (b"one", b"reads for others", b"three"):
                asked.append(Asked(pool, nursery, payload))
                await trio.testing.wait_all_tasks_blocked()
            peers = [server.accept(), server.accept()]
            peers[0].sendall(frame(b"first"))
            await asked[0].over.wait()
            assert [receive_frame(peers[0]) for _ in range(2)] == [b"one", b"three"]
            for byte in frame(b"third"):
                peers[0].sendall(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            await asked[2].over.wait()
            assert asked[1].answer is None
            peers[1].sendall(frame(b"second"))
            await asked[1].over.wait()
            assert [one.answer for one in asked] == [b"first", b"second", b"third"]


async def test_its_task_is_cancelled_after_it_went_out(pool: Pool, server: Listening) -> None:
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first"))
        await one.over.wait()
        two.scope.cancel()
        await two.over.wait()
        assert receive_frame(peer) == b"two"
        assert peer.recv(1) == b"", "the connection is given up, so that the late answer reaches nobody"
        assert pool.statistics().given_up == 1
        async with trio.open_nursery() as nursery:
            three = Asked(pool, nursery, b"three")
            await trio.testing.wait_all_tasks_blocked()
            again = server.accept()
            assert receive_frame(again) == b"three"
            again.sendall(frame(b"third"))
        assert (two.answer, three.answer) == (None, b"third")


async def test_its_task_is_cancelled_while_it_waits(pool: Pool, server: Listening) -> None:
    async with two_requests(pool, server) as (one, two, peer):
        two.scope.cancel()
        await two.over.wait()
        peer.sendall(frame(b"first"))
        await one.over.wait()
        assert (one.answer, two.answer, pool.statistics().idle) == (b"first", None, 1)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)


async def test_the_daemon_ends_the_connection_after_its_answer(pool: Pool, server: Listening) -> None:
    """The next one is sent on a new connection, since nothing of it had gone out."""
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first"))
        peer.close()
        await one.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        again = server.accept()
        assert receive_frame(again) == b"two"
        again.sendall(frame(b"second"))
        await two.over.wait()
        assert (one.answer, two.answer) == (b"first", b"second")
        assert pool.statistics().retries == 1


async def test_the_daemon_ends_the_connection_after_the_next_request(pool: Pool, server: Listening) -> None:
    """It may have been carried out: it isn't repeated."""
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first"))
        await one.over.wait()
        assert receive_frame(peer) == b"two"
        peer.close()
        await two.over.wait()
        assert isinstance(two.answer, trio.BrokenResourceError)
        assert pool.statistics().retries == 0


async def test_what_nobody_asked_for_is_nobodys_answer(pool: Pool, server: Listening) -> None:
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first") + frame(b"unasked"))
        await one.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        again = server.accept()
        assert receive_frame(again) == b"two"
        again.sendall(frame(b"second"))
        await two.over.wait()
        assert (one.answer, two.answer) == (b"first", b"second")


async def test_the_pool_is_closed_under_both(pool: Pool, server: Listening) -> None:
    async with two_requests(pool, server) as (one, two, peer):
        peer.sendall(frame(b"first"))
        await one.over.wait()
        await pool._close()
        await two.over.wait()
        assert isinstance(two.answer, trio.ClosedResourceError)


async def test_a_request_that_goes_out_in_part_is_finished_by_its_task(pool: Pool, server: Listening) -> None:
    """The socket takes less than 60 kB at once."""
    payload = bytes(range(256)) * 240
    async with two_requests(pool, server, payload) as (one, two, peer):
        (connection,) = pool._in_use
        connection._io.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[union-attr]
        peer.sendall(frame(b"first"))
        await one.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        came = await trio.to_thread.run_sync(receive_exactly, peer, len(payload) + 4)
        assert came == frame(payload)
        peer.sendall(frame(b"second"))
        await two.over.wait()
        assert two.answer == b"second"


async def test_the_task_that_reads_for_others_is_cancelled(home: Path) -> None:
    with trio.fail_after(10), listening(home / "s") as server:
        async with open_pool(DAEMON, home=home, size=3) as pool, trio.open_nursery() as nursery:
            asked = []
            peers = []
            for number in range(3):
                asked.append(Asked(pool, nursery, b"%d" % number))
                await trio.testing.wait_all_tasks_blocked()
                peers.append(server.accept())
                assert receive_frame(peers[number]) == b"%d" % number
            asked[0].scope.cancel()
            await asked[0].over.wait()
            peers[2].sendall(frame(b"c"))
            await asked[2].over.wait()
            peers[1].sendall(frame(b"b"))
            await asked[1].over.wait()
            assert [one.answer for one in asked] == [None, b"b", b"c"]


async def test_without_a_descriptor_to_wait_with_each_waits_for_itself(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shared_reads.select, "epoll", none_left)
    with trio.fail_after(10), listening(home / "s") as server:
        async with open_pool(DAEMON, home=home, size=1) as pool, two_requests(pool, server) as (one, two, peer):
            peer.sendall(frame(b"first"))
            await one.over.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert receive_frame(peer) == b"two"
            peer.sendall(frame(b"second"))
            await two.over.wait()
            assert (one.answer, two.answer) == (b"first", b"second")


def test_a_daemon_that_answers_at_once_leaves_room_for_other_tasks(home: Path) -> None:
    """Its answers are found without sleeping; other tasks run all the same, and a cancellation arrives."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with open_pool(DAEMON, home=home) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            for _ in range(320):
                assert await pool.request(b"x") == b"ok"
            assert turns >= 320 / 16
            nursery.cancel_scope.cancel()
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.request(b"cancelled")
            assert scope.cancelled_caught

    with listening(home / "s") as server:
        thread = threading.Thread(target=answer_all, args=(server,))
        thread.start()
        trio.run(main)
        thread.join()


def answer_all(server: Listening) -> None:
    """Until the client leaves."""
    peer = server.accept()
    while header := peer.recv(4):
        receive_exactly(peer, int.from_bytes(header, "little"))
        peer.sendall(frame(b"ok"))
