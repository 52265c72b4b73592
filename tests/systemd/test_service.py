"""The daemon under a stand-in for systemd: what it notifies, what it is passed, and a restart that nobody notices."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.e2e.processes import Files
from tests.supervisor.nodes import ask, serving
from tests.systemd.manager import open_manager, start_service
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import AgentClient, connect_tcp, enroll

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def client(port: int) -> AgentClient:
    return AgentClient(connect_tcp("127.0.0.1", port), uuid="0194857f-39b5-7bfb-a7bc-c5c6835f03d1", key="k" * 32)


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_it_says(workers: int, make_files: MakeFiles) -> None:
    files = make_files(workers=workers)
    environment = {"WATCHDOG_USEC": "600000"}
    async with open_manager(files.folder) as manager, start_service(files, manager, (), environment) as service:
        with trio.fail_after(20):
            ready = await manager.told("READY", "1")
            assert ready["MAINPID"] == str(service.process.pid)
            assert "worker" in ready["STATUS"]
            await manager.told("WATCHDOG", "1", times=4)
            if workers > 1:
                await serving(files, 2)
                await manager.told("STATUS", "2 of 2 workers serve; 0 agents parked")
                since = len(manager.said)
                service.process.send_signal(signal.SIGHUP)
                reloading = await manager.told("RELOADING", "1", since=since)
                assert int(reloading["MONOTONIC_USEC"]) > 0
                await manager.told("READY", "1", since=since)
            service.process.send_signal(signal.SIGTERM)
            await manager.told("STOPPING", "1")
            # What shutdown.grace needs, whatever TimeoutStopSec= says.
            assert int((await manager.told("EXTEND_TIMEOUT_USEC"))["EXTEND_TIMEOUT_USEC"]) == 18_000_000
            assert await service.process.wait() == 0


async def test_a_supervisor_that_hangs_feeds_no_watchdog(make_files: MakeFiles) -> None:
    files = make_files()
    environment = {"WATCHDOG_USEC": "300000"}
    async with open_manager(files.folder) as manager, start_service(files, manager, (), environment) as service:
        await manager.told("WATCHDOG", "1", times=3)
        service.process.send_signal(signal.SIGSTOP)
        await trio.testing.wait_all_tasks_blocked(0.2)  # what was on its way
        before = len(manager.said)
        with trio.move_on_after(0.6) as limit:
            await manager.told("WATCHDOG", "1", since=before)
        assert limit.cancelled_caught


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_restart_refuses_no_connection(workers: int, make_files: MakeFiles) -> None:
    """The manager holds the socket: who connects while nobody serves waits in the backlog."""
    with listening() as sock:
        port = sock.getsockname()[1]
        files = make_files(port=port, workers=workers)
        answered: list[int] = []
        done = trio.Event()

        async def ask_on_and_on() -> None:
            while not done.is_set():
                answered.append((await client(port).alive()).status)

        async with open_manager(files.folder) as manager, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask_on_and_on)
            for turn in range(3):
                since, before = len(manager.said), len(answered)
                async with start_service(files, manager, [("agents", sock)]) as service:
                    with trio.fail_after(20):
                        await manager.told("READY", "1", since=since)
                        while len(answered) < before + 10:  # noqa: ASYNC110
                            await trio.sleep(0.01)
                    if turn == 2:
                        done.set()
                        await trio.sleep(0.3)
                    service.process.send_signal(signal.SIGTERM)
                    with trio.fail_after(10):
                        assert await service.process.wait() == 0
        assert set(answered) == {200}


async def test_a_port_that_isnt_the_configurations_is_78(make_files: MakeFiles) -> None:
    with listening() as sock:
        files = make_files(port=1)
        async with open_manager(files.folder) as manager, start_service(files, manager, [("agents", sock)]) as service:
            with trio.fail_after(10):
                assert await service.process.wait() == 78
            await trio.testing.wait_all_tasks_blocked(0.05)
            port = sock.getsockname()[1]
            expected = f"'agents' listens on port {port}, but communications_api.port is 1: change one of the two"
            assert any("CRITICAL" in line and expected in line for line in service.log)
            assert not any("READY" in message for message in manager.said)


async def test_what_isnt_a_listening_stream_socket_is_78(make_files: MakeFiles) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        files = make_files()
        async with open_manager(files.folder) as manager, start_service(files, manager, [("agents", sock)]) as service:
            with trio.fail_after(10):
                assert await service.process.wait() == 78


@pytest.fixture
def no_socket() -> Iterator[Any]:
    """Something with a descriptor."""
    with open(os.devnull) as file:
        yield file


async def test_what_is_no_socket_at_all_is_78(make_files: MakeFiles, no_socket: Any) -> None:
    files = make_files()
    passed = [("agents", no_socket)]
    async with open_manager(files.folder) as manager, start_service(files, manager, passed) as service:
        with trio.fail_after(10):
            assert await service.process.wait() == 78
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert any("CRITICAL" in line and "'agents' can't be used" in line for line in service.log)
        assert not any("Traceback" in line for line in service.log)


@pytest.mark.parametrize("workers", [1, 2])
async def test_every_kind_of_socket_can_be_passed(workers: int, make_files: MakeFiles) -> None:
    users = {"admin": hash_key("secret")}
    with listening() as api, listening() as more, listening() as joining, socket.socket(socket.AF_UNIX) as command:
        port, enrollment_port = api.getsockname()[1], joining.getsockname()[1]
        files = make_files(
            workers=workers, enrollment={"host": "127.0.0.1", "port": enrollment_port, "users": users}, port=0
        )
        command.bind(str(files.socket))
        command.listen()
        sockets = [("agents", api), ("agents", more), ("enrollment", joining), ("commands", command)]
        async with open_manager(files.folder) as manager, start_service(files, manager, sockets) as service:
            with trio.fail_after(20):
                await manager.told("READY", "1")
                assert (await client(port).alive()).status == 200
                assert (await client(more.getsockname()[1]).alive()).status == 200
                assert (await ask(files, "GET", "/api/v1/status")).status == 200
                agent = client(port)
                connect = connect_tcp("127.0.0.1", enrollment_port)
                password = "secret"  # noqa: S105
                joined = await enroll(connect, user="admin", password=password, uuid=agent.uuid, key=agent.key)
                assert joined.status == 201
                assert (await agent.authenticate()).status == 200
                service.process.send_signal(signal.SIGTERM)
                assert await service.process.wait() == 0
        assert files.socket.exists()  # it is the manager's
