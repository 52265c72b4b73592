"""Stateful requests whose agent has left while a store is slow: nothing of them is begun afterwards, in real daemons on
embedded stores and on the fake indexer. (A write that was begun before can't be taken back.)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import SHUT_WR
from typing import Final

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.processes import start_daemon
from tests.indexer.daemons import wazuh_files
from tests.indexer.fake import FakeOpenSearch
from tests.supervisor.nodes import add_logged_in, serving
from tests.supervisor.test_cut_requests import (
    CLOSES,
    EVENTS,
    Close,
    MakeFiles,
    head,
    idle,
    locked,
    packet,
    send,
    versions,
    waiting,
)
from wazuh_comms_trio.services.stateful.submission import LOOK_AFTER
from wazuh_comms_trio.testing import AgentClient

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

TAKEN = [("updated", 200)] * EVENTS


async def end_behind_more(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Sends what nobody reads, and then its end."""
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n" * 100)
    stream.transport_stream.socket.shutdown(SHUT_WR)
    await trio.aclose_forcefully(stream)


LEAVES: Final[dict[str, Close]] = {**CLOSES, "the end behind unread bytes": end_behind_more}


async def leave_late(agent: AgentClient, version: int, close: Close, reached: Callable[[], Awaitable[None]]) -> None:
    """Sends a packet, and leaves; returns when the look at its connection counts."""
    body = packet(agent, version, 2000)
    stream = await agent._open()
    await stream.send_all(head(agent, body) + body)
    await reached()
    await close(stream)  # type: ignore[arg-type]
    await trio.sleep(LOOK_AFTER + 0.1)  # at least: the packet came before


@pytest.mark.parametrize("workers", [1, 2])
async def test_embedded(make_files: MakeFiles, workers: int) -> None:
    files = make_files(workers=workers)
    async with start_daemon(files) as daemon:
        await serving(files, workers)
        (agent,) = await add_logged_in(daemon, 1)
        await send(agent, packet(agent, 1, 2000))
        for close in LEAVES.values():
            async with locked(files):
                await leave_late(agent, 2, close, lambda: waiting(files))
            await idle(files)
            assert versions(files, agent) == {1}
        assert await send(agent, packet(agent, 3, 2000)) == TAKEN


@asynccontextmanager
async def fake_indexer() -> AsyncIterator[tuple[FakeOpenSearch, int]]:
    async with trio.open_nursery() as nursery:
        indexer = FakeOpenSearch(nursery)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, indexer.serve, [listener])
        yield indexer, listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_on_the_fake_indexer(tmp_path: Path, certificates: Certificates) -> None:
    """Its answer that the documents are there comes late: they aren't replaced."""
    async with fake_indexer() as (indexer, port):
        files = wazuh_files(tmp_path / "node", certificates, [port], workers=2)
        async with start_daemon(files) as daemon:
            await serving(files, 2)
            (agent,) = await add_logged_in(daemon, 1)
            await send(agent, packet(agent, 1, 2000))
            for close in LEAVES.values():
                came, go_on = trio.Event(), trio.Event()

                async def hold(method: str, path: str, came: trio.Event = came, go_on: trio.Event = go_on) -> None:
                    if path.startswith("/_bulk"):
                        came.set()
                        await go_on.wait()

                indexer.faults.before = hold
                await leave_late(agent, 2, close, came.wait)
                bulks = len(indexer.bulks)
                go_on.set()
                await idle(files)
                assert len(indexer.bulks) == bulks + 1  # the one that was held
                assert stored(indexer, agent) == {1}
            indexer.faults.before = None
            assert await send(agent, packet(agent, 3, 2000)) == TAKEN
            assert stored(indexer, agent) == {3}


def stored(indexer: FakeOpenSearch, agent: AgentClient) -> set[int]:
    """The versions of the agent's documents."""
    found = [
        document.source["v"]
        for index in indexer.indices.values()
        for name, document in index.documents.items()
        if name.startswith(agent.uuid) and "v" in document.source
    ]
    assert len(found) == EVENTS
    return set(found)
