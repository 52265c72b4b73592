"""How the trio stream classes connect, and how long a full backlog is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.transport.aio.streams import connected
from tests.transport.peers import Listening, descriptors, frame, listening, receive_frame
from wazuh_comms_trio.errors import BacklogFull, WazuhInternalError
from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket


async def test_connecting_twice(server: Listening) -> None:
    async with await connected(server) as sock:
        with pytest.raises(WazuhInternalError, match=r"Error 1013 .*connected already"):
            await sock.connect(server.path)
        server.accept().close()
        assert sock.is_connection_lost()
        await sock.connect(server.path)
        peer = server.accept()
        peer.sendall(frame(b"new"))
        assert await sock.receive() == b"new"


# --- connecting ---


async def test_a_missing_path(home: Path) -> None:
    with pytest.raises(WazuhInternalError, match=r"^Error 1013 - Unable to connect with socket: .*No such file"):
        await WazuhAsyncSocket().connect(str(home / "none"))


async def test_nobody_listens(home: Path) -> None:
    with listening(home / "s"):
        pass
    with pytest.raises(WazuhInternalError, match=r"^Error 1121 - Error connecting with socket: "):
        await WazuhAsyncSocket().connect(str(home / "s"))


async def test_both_releases_places(home: Path) -> None:
    with listening(home / "queue/tasks/task") as server:
        async with await WazuhAsyncSocket.from_path(str(home / "queue/sockets/task")) as sock:
            await sock.send(b"x")
            assert receive_frame(server.accept()) == b"x"


async def test_a_full_backlog_is_waited_for(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        async with await connected(server):
            began = trio.current_time()
            with pytest.raises(BacklogFull, match=r"Error 1013 .*queue of new connections is full"):
                await connected(server)
            assert 0.9 < trio.current_time() - began <= 1
            async with trio.open_nursery() as nursery:

                async def make_room() -> None:
                    await trio.sleep(0.2)
                    server.accept()

                nursery.start_soon(make_room)
                await (await connected(server)).aclose()


async def test_how_long_a_full_backlog_is_waited_for(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        async with await connected(server), WazuhAsyncSocket() as sock:
            for connect_timeout in (0, 0.5, 3):
                began = trio.current_time()
                with pytest.raises(BacklogFull):
                    await sock.connect(server.path, connect_timeout=connect_timeout)
                assert connect_timeout * 0.8 <= trio.current_time() - began <= connect_timeout


async def test_closing_while_another_task_connects(home: Path, autojump_clock: trio.testing.MockClock) -> None:
    with listening(home / "s", backlog=0) as server:
        for sock in (WazuhAsyncSocket(), WazuhAsyncProtocol()):
            first = await connected(server)
            before = descriptors()

            async def connect(sock: WazuhAsyncSocket | WazuhAsyncProtocol = sock) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await sock.connect(server.path)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await sock.connect(server.path)
                await sock.aclose()
                server.accept().close()
            assert sock.is_connection_lost()
            assert descriptors() == before
            server.accept().close()
            await first.aclose()
