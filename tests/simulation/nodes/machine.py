"""The machine under a node's supervisor: its workers' processes, its configuration, and the service manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.nodes.network import process_stream_pair
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.worker import check_left, run_program
from tests.simulation.trace import Violation
from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.daemon.supervisor.generation import BACKOFF_FIRST, BACKOFF_LAST, LONG_LIFE
from wazuh_comms_trio.daemon.supervisor.link import Link
from wazuh_comms_trio.daemon.supervisor.machine import Machine
from wazuh_comms_trio.daemon.systemd import Notifier

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.nodes.node import Node

__all__ = ["machine_of"]

#: A worker that was killed, as its parent is told.
_KILLED: Final = -9
#: Seconds that a worker has to serve, or the supervisor may not have heard of it.
_UNNOTICED: Final = 0.1
#: Seconds before, in which a fault explains why a worker was killed or can't start.
CAUSE_WITHIN: Final = 60.0


def _most_starts() -> int:
    """How often one worker may be started within ``LONG_LIFE`` seconds: each pause is twice the one before."""
    starts, passed, pause = 1, 0.0, BACKOFF_FIRST
    while passed + pause < LONG_LIFE:
        starts, passed, pause = starts + 1, passed + pause, min(2 * pause, BACKOFF_LAST)
    return starts


_MOST_STARTS: Final = _most_starts()


class SimChild:
    """As ``supervisor/child.py`` has a process."""

    pid = 4242

    def __init__(self, node: Node, process: Process) -> None:
        self._node = node
        self._process = process
        self.status: int | None = None
        self.ended = trio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        """The supervisor has decided so: it has a reason."""
        node, process = self._node, self._process
        if self.ended.is_set() or process.dead:
            return
        had_cause = process.hangs or node.world.had_cause(CAUSE_WITHIN)
        told = process.stop.requested.is_set()
        if process.is_starting and not (had_cause or node.is_told_to_stop):
            raise Violation("starts", f"{process.name} is killed while it starts")
        if not process.is_starting and told and not (had_cause or process.stop.hurried.is_set()):
            raise Violation("stops", f"{process.name} doesn't end, and is killed")
        if not process.is_starting and not told and not process.hangs:
            raise Violation("heartbeats", f"{process.name} runs, and is killed")
        process.kill()

    async def end(self) -> None:
        """As its parent's end kills it."""
        if not self.ended.is_set():
            self._process.kill()
        await self.ended.wait()


class SimNotifier(Notifier):
    """The service manager, which is told things that have to be true."""

    def __init__(self, node: Node) -> None:
        super().__init__({"NOTIFY_SOCKET": "simulated"})
        self._node = node

    def _send(self, *lines: str) -> None:
        self._node.notified(lines)


class SimMachine:
    """Of one life of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._starts: dict[int, list[float]] = {}
        self.reloads: list[float] = []
        self.failed_starts = 0

    @asynccontextmanager
    async def start_worker(
        self, module: str, /, *arguments: str, pass_fds: Sequence[int]
    ) -> AsyncIterator[tuple[SimChild, Link]]:
        node, (name,) = self._node, arguments
        assert module == "wazuh_comms_trio.daemon.worker_start"
        assert set(pass_fds) == set(node.ports)
        slot = int(name.partition(".")[0]) - 1
        self._note_start(slot)
        process = Process(node.world, node.number, slot, f"{node.name}.{name}")
        ours, theirs = process_stream_pair()
        theirs.belongs_to(process)
        theirs.is_link = True
        process.link = Link(ours)
        child = SimChild(node, process)
        node.running.append(process)
        node.world.trace.add(process.name, "is started")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run_process, node, process, child, Link(theirs))
                try:
                    yield child, process.link
                finally:
                    with trio.CancelScope(shield=True):
                        await child.end()
        finally:
            await process.link.aclose()

    def _note_start(self, slot: int) -> None:
        now = trio.current_time()
        starts = [moment for moment in self._starts.get(slot, ()) if moment > now - LONG_LIFE]
        self._starts[slot] = [*starts, now]
        reloads = sum(moment > now - LONG_LIFE for moment in self.reloads)
        if len(starts) >= _MOST_STARTS * (1 + reloads):
            raise Violation("spins", f"{self._node.name}: worker {slot} was started {len(starts)} times")


class SimFiles:
    """Read for a reload, which takes ``seconds``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.seconds = 0.5 if node.world.plan.features.hard_starts else 0.0

    def __call__(self, _file: Path) -> tuple[LoadedConfig, Mapping[str, str]]:
        return self._node.read_files()


async def _run_process(node: Node, process: Process, child: SimChild, link: Link) -> None:
    """Its exit status goes to its parent."""
    status = _KILLED
    try:
        status = await run_program(node, process, link)
    finally:
        if process.age < _UNNOTICED:
            node.note_failed_start()
        if process.dead:
            status = _KILLED
        else:
            if status == 0:
                check_left(process)
            process.dead = True
            node.world.stores.process_died(process)
        for stream in sorted(process.streams, key=lambda each: each.number):
            stream.close()
        node.note_end(process)
        node.world.trace.add(process.name, f"has ended: {status}")
        child.status = status
        child.ended.set()


def machine_of(node: Node) -> tuple[Machine, SimMachine]:
    own = SimMachine(node)
    machine = Machine(
        start_worker=own.start_worker,
        read_files=SimFiles(node),
        set_up_logs=lambda _settings: None,  # all logs of a run are the run's
        notifier=SimNotifier(node),
    )
    return machine, own
