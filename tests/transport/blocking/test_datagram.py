"""Queues, blocking and on trio, with a datagram socket for a reader."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.transport.peers import descriptors, listening, queue_socket
from wazuh_comms_trio.errors import (
    EventTooLarge,
    QueueTimeout,
    SocketTimeout,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.transport.aio.datagram import BaseAsyncQueue, WazuhAsyncAnalysisdQueue, WazuhAsyncQueue
from wazuh_comms_trio.transport.blocking.datagram import BaseQueue, WazuhAnalysisdQueue, WazuhQueue
from wazuh_comms_trio.transport.errors import QueueBroken, QueueClosed, TransportBroken, TransportClosed, TrioOnly

RESTART = b"(msg_to_agent) [] NNS 001 restart-ossec0 - null (from_the_server) (no_rule_id)"


@pytest.fixture
def path(home: Path) -> str:
    return str(home / "q")


@pytest.fixture
def reader(path: str) -> Iterator[socket.socket]:
    with queue_socket(Path(path)) as sock:
        yield sock


def test_constants() -> None:
    for queue in (WazuhQueue, WazuhAsyncQueue):
        assert queue.HC_SK_RESTART == "syscheck restart"
        assert queue.HC_FORCE_RECONNECT == "force_reconnect"
        assert queue.RESTART_AGENTS == "restart-ossec0"
        assert queue.AR_TYPE == "ar-message"
        assert '"restart-wazuh0"' in queue.RESTART_AGENTS_JSON
        assert (queue.OS_MAXSTR, queue.MAX_MSG_SIZE) == (6144, 6400)
    assert (BaseQueue.OS_MAXSTR, BaseQueue.MAX_MSG_SIZE) == (BaseAsyncQueue.OS_MAXSTR, BaseAsyncQueue.MAX_MSG_SIZE)
    assert WazuhAnalysisdQueue.MAX_MSG_SIZE == WazuhAsyncAnalysisdQueue.MAX_MSG_SIZE == 65535


# --- blocking ---


def test_commands(reader: socket.socket, path: str) -> None:
    with WazuhQueue(path) as queue:
        assert queue.path == path
        assert queue.send_msg_to_agent(msg=queue.RESTART_AGENTS, agent_id="001", msg_type="") == "Restarting agent"
        assert reader.recv(1000) == RESTART
        assert queue.send_msg_to_agent(queue.HC_SK_RESTART) == "Restarting Syscheck on all agents"
        assert reader.recv(1000) == b"(msg_to_agent) [] A!N (null) syscheck restart"
        with pytest.raises(WazuhInternalError, match="1012"):
            queue.send_msg_to_agent("x", "1")
        assert queue.send_msg_to_agent("!script a", "002", queue.AR_TYPE) == "Command sent."
        assert reader.recv(1000) == b"(msg_to_agent) [] NNS 002 !script a"
    assert queue.socket.fileno() == -1
    queue.close()


def test_the_largest_datagrams(reader: socket.socket, path: str) -> None:
    with WazuhQueue(path) as queue, WazuhAnalysisdQueue(path) as events:
        queue.send_msg_to_agent("x" * (65349 - 26), "001", queue.AR_TYPE)
        assert len(reader.recv(70_000)) == 65349
        events.send_msg("1:wazuh-api:", "x" * (65535 - 12))
        assert len(reader.recv(70_000)) == 65535
        with pytest.raises(EventTooLarge, match="Error 1012"):
            events.send_msg("1:wazuh-api:", "x" * (65535 - 11))
        with pytest.raises(WazuhInternalError, match=r"Error 1011 .*longer than the send buffer holds"):
            queue._send(bytes(10_000_000))


def test_events(reader: socket.socket, path: str) -> None:
    with WazuhAnalysisdQueue(path) as queue:
        queue.send_msg(msg_header="1:wazuh-api:", msg='{"event":"custom"}')
        assert reader.recv(1000) == b'1:wazuh-api:{"event":"custom"}'
        with pytest.raises(WazuhInternalError, match="1012"):
            queue.send_msg("1:a:b:", "x")


@pytest.mark.parametrize("kind", [WazuhQueue, WazuhAnalysisdQueue])
def test_the_send_buffer(reader: socket.socket, path: str, kind: type[BaseQueue]) -> None:
    def send_buffer(sock: socket.socket) -> int:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    with kind(path) as usual, kind(path, send_buffer=1) as small, kind(path, send_buffer=150_000) as large:
        assert send_buffer(usual.socket) >= kind.MAX_MSG_SIZE
        assert send_buffer(small.socket) == send_buffer(usual.socket)
        assert send_buffer(large.socket) >= 300_000


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_full_queue(reader: socket.socket, path: str, timeout: float) -> None:
    with WazuhQueue(path, timeout=timeout) as queue:
        sent = 0

        def send_for_ever() -> None:
            nonlocal sent
            while True:
                queue.send_msg_to_agent(queue.RESTART_AGENTS, "001")
                sent += 1

        with pytest.raises(SocketTimeout, match="Error 1014") as caught:
            send_for_ever()
        assert sent >= 1
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, WazuhError)
        assert path in caught.value.message
        assert type(caught.value.__cause__) is QueueTimeout
        assert caught.value.__cause__.code == 1011
        assert [reader.recv(1000) for _ in range(sent)] == [RESTART] * sent
        queue.send_msg_to_agent(queue.RESTART_AGENTS, "001")


def test_a_reader_that_is_gone(path: str) -> None:
    with queue_socket(Path(path)):
        queue = WazuhQueue(path)
    with pytest.raises(WazuhError, match=r"Error 1014 .*its reader is gone") as caught:
        queue.send_msg_to_agent(queue.RESTART_AGENTS, "001")
    assert path in caught.value.message
    cause = caught.value.__cause__
    assert isinstance(cause, WazuhInternalError)
    assert cause.code == 1011
    assert str(cause).startswith("Error 1011 - Error communicating with queue: ")
    queue.close()
    with pytest.raises(WazuhError, match="closed"):
        queue.send_msg_to_agent(queue.RESTART_AGENTS, "001")
    with pytest.raises(WazuhInternalError, match="1011"):
        queue._send(b"x")
    with pytest.raises(WazuhException, match="1105"):
        queue._send("x")  # type: ignore[arg-type]


Connect = Callable[[str], Any]


def connect_blocking(path: str) -> None:
    WazuhQueue(path)


def connect_on_trio(path: str) -> None:
    trio.run(WazuhAsyncQueue.from_path, path)


@pytest.mark.parametrize("connect", [connect_blocking, connect_on_trio])
def test_paths_that_lead_nowhere(home: Path, path: str, connect: Connect) -> None:
    before = descriptors()
    with pytest.raises(WazuhInternalError, match=r"^Error 1010 - Unable to connect to queue: .*No such file"):
        connect(path)
    with queue_socket(Path(path)):
        pass
    with pytest.raises(WazuhInternalError, match=r"^Error 1010 .*nobody listens"):
        connect(path)
    (home / "file").touch()
    with pytest.raises(WazuhInternalError, match=r"^Error 1010 .*is not a socket"):
        connect(str(home / "file"))
    with listening(home / "stream"), pytest.raises(WazuhInternalError, match=r"^Error 1010 .*not a datagram socket"):
        connect(str(home / "stream"))
    with pytest.raises(WazuhInternalError, match=r"^Error 1010 .*too long"):
        connect(str(home / ("x" * 100)))
    assert descriptors() == before


# --- on trio ---


async def test_commands_on_trio(reader: socket.socket, path: str) -> None:
    async with WazuhAsyncQueue() as queue:
        assert isinstance(queue, trio.abc.AsyncResource)
        with trio.testing.assert_checkpoints():
            await queue.connect(path)
        with trio.testing.assert_checkpoints():
            assert await queue.send_msg_to_agent(queue.RESTART_AGENTS, "001") == "Restarting agent"
        assert reader.recv(1000) == RESTART
        with pytest.raises(WazuhInternalError, match="1012"):
            await queue.send_msg_to_agent("x", "001")
        with pytest.raises(WazuhException, match="1105"):
            await queue._send("x")  # type: ignore[arg-type]
    with trio.testing.assert_checkpoints():
        await queue.close()
    async with await WazuhAsyncAnalysisdQueue.from_path(path, send_buffer=150_000) as events:
        assert events.socket is not None
        assert events.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 300_000
        await events.send_msg("1:wazuh-api:", "event")
        assert reader.recv(1000) == b"1:wazuh-api:event"


async def test_it_waits_for_room_and_keeps_order(reader: socket.socket, path: str) -> None:
    async with await WazuhAsyncQueue.from_path(path) as queue, trio.open_nursery() as nursery:

        async def send(begin: int) -> None:
            for number in range(begin, begin + 100):
                await queue.send_msg_to_agent(queue.RESTART_AGENTS, f"{number:03}")

        for begin in (0, 1000, 2000):
            nursery.start_soon(send, begin)
        seen: list[int] = []
        while len(seen) < 300:
            await trio.lowlevel.wait_readable(reader)
            seen.append(int(reader.recv(1000).split()[3]))
        for begin in (0, 1000, 2000):
            assert [number for number in seen if begin <= number < begin + 1000] == list(range(begin, begin + 100))


async def test_who_waits_longer_goes_first(reader: socket.socket, path: str) -> None:
    async with await WazuhAsyncQueue.from_path(path) as queue, trio.open_nursery() as nursery:
        filled = 0
        while queue._send_nowait(b"filler"):
            filled += 1
        for number in range(5):
            nursery.start_soon(queue._send, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(filled):
            reader.recv(100)
        await queue._send(b"after all of them")
        seen = [reader.recv(100) for _ in range(6)]
        assert seen == [b"0", b"1", b"2", b"3", b"4", b"after all of them"]


async def failing(use: Callable[[], Awaitable[Any]]) -> WazuhException:
    with pytest.raises(WazuhException) as caught:
        await use()
    return caught.value


async def test_ends_of_a_queue_on_trio(path: str) -> None:
    with queue_socket(Path(path)):
        queue = await WazuhAsyncQueue.from_path(path)
    low: tuple[type[WazuhException], int] = (QueueBroken, 1011)
    high: tuple[type[WazuhException], int] = (TransportBroken, 1014)
    for use, (kind, code) in (
        (lambda: queue._send(b"x"), low),
        (lambda: queue.send_msg_to_agent(queue.RESTART_AGENTS), high),
    ):
        error = await failing(use)
        assert isinstance(error, kind)
        assert isinstance(error, trio.BrokenResourceError)
        assert error.code == code
        assert path in error.message
        assert error.__cause__ is not None
    with queue_socket(Path(path + "2")):
        await queue.connect(path + "2")
        await queue.send_msg_to_agent(queue.RESTART_AGENTS)
    await queue.aclose()
    low, high = (QueueClosed, 1011), (TransportClosed, 1014)
    for use, (kind, code) in (
        (lambda: queue._send(b"x"), low),
        (lambda: queue.send_msg_to_agent(queue.RESTART_AGENTS), high),
    ):
        error = await failing(use)
        assert isinstance(error, kind)
        assert isinstance(error, trio.ClosedResourceError)
        assert error.code == code


async def test_closing_wakes_those_who_wait_for_room(reader: socket.socket, path: str) -> None:
    queue = await WazuhAsyncQueue.from_path(path)
    while queue._send_nowait(b"filler"):
        pass
    errors = []

    async def send() -> None:
        errors.append(await failing(lambda: queue.send_msg_to_agent(queue.RESTART_AGENTS)))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await queue.aclose()
    assert [type(error) for error in errors] == [TransportClosed] * 3


async def test_a_datagram_that_no_buffer_holds(reader: socket.socket, path: str) -> None:
    async with await WazuhAsyncQueue.from_path(path) as queue:
        error = await failing(lambda: queue._send(bytes(10_000_000)))
        assert (type(error), error.code) == (WazuhInternalError, 1011)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EMSGSIZE


async def test_no_descriptor_leaks(reader: socket.socket, path: str) -> None:
    before = descriptors()
    for _ in range(300):
        async with await WazuhAsyncQueue.from_path(path) as queue:
            await queue.send_msg_to_agent(queue.RESTART_AGENTS)
            await queue.connect(path)
        with WazuhQueue(path):
            reader.recv(1000)
    assert descriptors() == before


def test_under_asyncio_it_says_so(path: str) -> None:
    with pytest.raises(TrioOnly, match=r"^WazuhAsyncQueue needs trio, and this is asyncio"):
        asyncio.run(WazuhAsyncQueue().connect(path))
    with pytest.raises(TrioOnly, match=r"^WazuhAsyncQueue needs trio, and this is asyncio"):
        asyncio.run(WazuhAsyncQueue().send_msg_to_agent("force_reconnect"))


def test_a_subclass_may_have_a_lower_limit(reader: socket.socket, path: str) -> None:
    class Short(WazuhAnalysisdQueue):
        MAX_MSG_SIZE = 20

    class Long(WazuhAnalysisdQueue):
        MAX_MSG_SIZE = 100_000

    with Short(path) as queue:
        queue.send_msg("1:a:", "x" * 16)
        with pytest.raises(EventTooLarge, match="21 bytes, at most 20"):
            queue.send_msg("1:a:", "x" * 17)
    with Long(path) as queue, pytest.raises(EventTooLarge, match="at most 65535"):
        queue.send_msg("1:a:", "x" * 65532)
    assert len(reader.recv(100)) == 20


async def test_the_same_on_trio(reader: socket.socket, path: str) -> None:
    class Short(WazuhAsyncAnalysisdQueue):
        MAX_MSG_SIZE = 20

    async with await Short.from_path(path) as queue:
        await queue.send_msg("1:a:", "x" * 16)
        with pytest.raises(EventTooLarge, match="21 bytes, at most 20"):
            await queue.send_msg("1:a:", "x" * 17)
