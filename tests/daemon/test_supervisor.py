"""What the supervisor decides, on a machine of the test's own: no process, no file, no service manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.daemon.listeners import ListenAddresses, Listeners
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.hub import Hub, Member
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.supervisor.machine import Machine
from wazuh_comms_trio.daemon.supervisor.node_keys import NodeKeys
from wazuh_comms_trio.daemon.supervisor.supervisor import Supervisor
from wazuh_comms_trio.daemon.systemd import Notifier
from wazuh_comms_trio.testing.node.daemon import daemon_config


class FakeWorker:
    """It serves once ``may_serve`` is set, and ends when it is told to."""

    pid = 1

    def __init__(self, link: Link, may_serve: trio.Event) -> None:
        self._link = link
        self._may_serve = may_serve
        self._ended = trio.Event()
        self._status = 0

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link.run)
                nursery.start_soon(self._serve)
                while not isinstance(await self._link.receive(), messages.Stop):
                    pass
                nursery.cancel_scope.cancel()
        except* LinkBroken:
            pass
        await self._link.aclose()
        self._ended.set()

    async def _serve(self) -> None:
        await self._may_serve.wait()
        self._link.send_nowait(messages.Ready(public_key="", duty=True))

    async def wait(self) -> int:
        await self._ended.wait()
        return self._status

    def kill(self) -> None:
        self._status = -9
        self._ended.set()


class FakeMachine:
    """``started``: a worker more was; ``said``: what the service manager was told first, each time."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.may_serve = trio.Event()
        self.workers = 0
        self.started = trio.Event()
        self.loaded = LoadedConfig(daemon_config(), (), Path("/fake"))

    @asynccontextmanager
    async def start_worker(
        self, _module: str, /, *_arguments: str, pass_fds: Sequence[int]
    ) -> AsyncIterator[tuple[FakeWorker, Link]]:
        assert not pass_fds
        ours, theirs = memory_stream_pair()
        worker, link = FakeWorker(Link(theirs), self.may_serve), Link(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            self.workers += 1
            self.started.set()
            yield worker, link
            nursery.cancel_scope.cancel()

    def read_files(self, _file: Path) -> tuple[LoadedConfig, Mapping[str, str]]:
        return self.loaded, self.key_files

    @property
    def key_files(self) -> Mapping[str, str]:
        ssl = self.loaded.config.communications_api.ssl
        return {str(ssl.key): ssl.key.read_text()}

    def supervisor(self, folder: Path) -> Supervisor:
        hub, said = Hub(), self.said

        class FakeManager(Notifier):
            def _send(self, *lines: str) -> None:
                said.append(lines[0])

        machine = Machine(self.start_worker, self.read_files, lambda _: None, FakeManager({}))
        listeners, addresses = Listeners([]), ListenAddresses([], [], Path("/fake"))
        keys = NodeKeys(KeyMemory(folder), hub)
        return Supervisor(self.loaded, self.key_files, [], listeners, addresses, hub, keys, machine)


async def test_a_reload_during_the_start_waits_until_something_serves(tmp_path: Path, mock_clock: MockClock) -> None:
    """SIGHUP comes at any moment; READY=1 before any worker serves would end the start."""
    machine = FakeMachine()
    supervisor = machine.supervisor(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await machine.started.wait()

        async def reload() -> None:
            assert (await supervisor.reload(wait=True))["reloaded"]
            supervisor.stop()

        nursery.start_soon(reload)
        await wait_all_tasks_blocked()
        assert machine.said == []
        machine.may_serve.set()
    assert machine.said[:3] == ["READY=1", "RELOADING=1", "READY=1"]
    assert machine.workers == 2


async def test_a_worker_that_is_replaced_during_a_reload_trusts_the_next_key(autojump_clock: MockClock) -> None:
    """Some of the new workers serve before the reload is done, and hand out tokens that it signs."""
    hub = Hub()
    starting, replaced = [tuple(map(Link, memory_stream_pair())) for _ in range(2)]
    async with trio.open_nursery() as nursery:

        def join(ours: Link) -> None:
            nursery.start_soon(ours.run)
            nursery.start_soon(hub.serve, Member("1.1", ours))

        join(starting[0])
        await wait_all_tasks_blocked()
        hub.trust_key("pem")
        join(replaced[0])
        for _, theirs in (starting, replaced):
            with trio.fail_after(1):
                assert await theirs.receive() == messages.TrustKey(public_key="pem")
        nursery.cancel_scope.cancel()
