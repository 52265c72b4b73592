"""A supervisor that is killed takes its workers with it, in whatever state they are."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.e2e.agents import stored
from tests.e2e.processes import Files, start_daemon
from tests.supervisor.nodes import ended, is_alive, kill, serving, under_load
from wazuh_comms_trio.daemon.supervisor.child import Child
from wazuh_comms_trio.daemon.worker.parent_watchdog import HUNG_AFTER, MARGIN
from wazuh_comms_trio.testing import agent_tls, open_tls

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]

#: Python imports this at every start: a worker that is sent SIGUSR1 spins, with SIGUSR2 it is held up in a system call.
#: Neither gives its event loop another turn.
HOLD_UP = """
import signal, sys, time

def spin(*_):
    while True:
        pass

def hang(*_):
    while True:
        time.sleep(1000)

signal.signal(signal.SIGUSR1, spin)
signal.signal(signal.SIGUSR2, hang)
"""


def can_listen(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


async def test_workers_idle_spinning_hanging_and_stopped(make_files: MakeFiles) -> None:
    files = make_files(workers=4, shutdown={"grace": 2})
    programs = files.folder / "programs"
    programs.mkdir()
    (programs / "sitecustomize.py").write_text(HOLD_UP)
    environment = {"PYTHONPATH": str(programs)}
    async with start_daemon(files, environment=environment, expect_errors=True) as daemon:
        idle, spinning, hanging, stopped = pids = await serving(files, 4)
        async with under_load(daemon) as load:
            await load.more(20)
            kill(spinning, signal.SIGUSR1)
            kill(hanging, signal.SIGUSR2)
            kill(stopped, signal.SIGSTOP)
            daemon.process.kill()
            await daemon.process.wait()
            with trio.fail_after(2 + MARGIN):
                await ended(idle)
                await ended(stopped)
            with trio.fail_after(HUNG_AFTER + MARGIN):
                await ended(spinning)
                await ended(hanging)
        assert not any(map(is_alive, pids))
        assert can_listen(daemon.port)
        assert any("event loop doesn't answer; killed" in line for line in daemon.log)
    numbers, documents = await stored(files)
    assert load.acknowledged <= set(documents)
    assert load.stateless <= set(numbers)


async def test_one_that_has_too_much_to_do_is_given_the_grace_period(make_files: MakeFiles) -> None:
    """Its loop turns, but a request doesn't end."""
    files = make_files(shutdown={"grace": 3})
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        (agent,) = await daemon.add_agents(1)
        assert (await agent.authenticate()).status == 200
        stream = await open_tls(daemon.connect, agent_tls(), host="localhost")
        await stream.send_all(
            b"POST /api/v1/events/stateless HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "
            + str(agent.token).encode()
            + b"\r\nContent-Length: 1000\r\n\r\n{"
        )
        began = trio.current_time()
        daemon.process.kill()
        await daemon.process.wait()
        with trio.fail_after(3 + MARGIN):
            for pid in pids:
                await ended(pid)
        assert trio.current_time() - began > 2
        await trio.aclose_forcefully(stream)


def children_of_the_main_thread() -> list[int]:
    listed = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
    if not listed.exists():
        pytest.skip("this kernel doesn't list a thread's children")
    return [int(pid) for pid in listed.read_text().split()]


async def test_the_main_thread_is_what_starts_a_worker() -> None:
    """The kernel wakes a worker when the thread that started it ends: any other thread ends long before the process,
    and a worker that was stopped would go on then, before it is found to hang."""
    child = Child([sys.executable, "-c", "input()"], pass_fds=(), env={})
    try:
        assert child.pid in children_of_the_main_thread()
    finally:
        child.kill()
        assert await child.wait() == -signal.SIGKILL
    assert child.returncode == -signal.SIGKILL


async def test_waiting_for_a_child_can_be_given_up_and_begun_again() -> None:
    child = Child([sys.executable, "-c", "import time; time.sleep(1000)"], pass_fds=(), env={})
    with trio.move_on_after(0.05) as limit:
        await child.wait()
    assert limit.cancelled_caught
    assert child.returncode is None
    child.kill()
    statuses: list[int] = []

    async def wait() -> None:
        statuses.append(await child.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
    child.kill()  # of somebody else by now: nothing is sent
    assert statuses == [-signal.SIGKILL] * 2
