"""More connections than files may be open: they wait, nothing spins, and whoever is served is served."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.e2e.processes import Files
from tests.supervisor.nodes import status
from tests.supervisor.soak.starts import prepare, session, started
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.testing import stateful_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

LIMIT = 100
#: Connections of each worker; some wait always.
FLOOD = 3 * LIMIT
#: Of a core, while accepting is paused: ten looks a second, and a beat.
MOST_CPU = 0.1
LOOK = 2.0
WAITING = "connections have to wait: Too many open files"


def cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def begun(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))
    return sock


def come_again(flood: list[socket.socket], port: int) -> None:
    """A connection for each that was closed."""
    for place, sock in enumerate(flood):
        with suppress(BlockingIOError):
            with suppress(ConnectionError):
                sock.recv(1)
            sock.close()
            flood[place] = begun(port)


@pytest.mark.parametrize("workers", [1, 2])
async def test_connections_wait_and_nothing_spins(workers: int, make_files: Callable[..., Files]) -> None:
    place = await prepare(make_files(workers=workers))
    port = load_config(place.files.config).config.communications_api.port
    agent = place.agent
    agent.token = place.mint()
    async with started(place.files, workers, open_files=LIMIT) as daemon:
        pids = await daemon.up()
        assert "room for about 50 agents at once in each worker" in daemon.log.read_text()
        flood = [begun(port) for _ in range(workers * FLOOD)]  # all at once: idle ones soon have to go
        with trio.fail_after(20):
            while daemon.log.read_text().count(WAITING) < workers:  # noqa: ASYNC110
                await trio.sleep(0.02)
        with trio.fail_after(10):
            while not all(worker.get("crowded") for worker in (await status(place.files))["workers"]):
                come_again(flood, port)
                await trio.sleep(0.1)
            assert len((await status(place.files))["workers"]) == workers
        everybody = session(daemon.process.pid)
        before = cpu_seconds(everybody)
        await trio.sleep(LOOK)
        assert cpu_seconds(everybody) - before < MOST_CPU * LOOK * workers
        assert max(map(open_files, pids)) < LIMIT
        # There is room for local programs, and soon for agents: whoever sends no request has to go.
        event = stateful_event("a", "fim", "create", {"n": 1})
        with trio.fail_after(20):
            assert (await agent.post_stateful([event])).status == 200
        for sock in flood:
            sock.close()
        with trio.fail_after(10):
            assert (await agent.post_stateful([event])).status == 200
        assert daemon.log.read_text().count(WAITING) == workers  # once a minute
        daemon.term()
        assert await daemon.ended() == 0
        assert "ERROR" not in daemon.log.read_text()
