"""One run: the world of one seed, what is done to it, and what has to hold meanwhile and afterwards."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import trio
import trio.testing
from attrs import define, evolve

from tests.simulation import checks
from tests.simulation.actors.agents import FILES, SimAgent
from tests.simulation.actors.hostile import run_hostile
from tests.simulation.actors.keys import key_hash
from tests.simulation.actors.operators import run_operator, run_poster
from tests.simulation.determinism import EPOCH
from tests.simulation.injected import InjectedFaults
from tests.simulation.limits import set_limits
from tests.simulation.model import CommandLife
from tests.simulation.network import Balancer, Connection
from tests.simulation.node import STOP_BOUND, Node
from tests.simulation.plan import CALLS, DISK, INDEX, NETWORK, NODES, POWER, Fault, Plan
from tests.simulation.process import Process
from tests.simulation.stores.embedded import EmbeddedStores, use_inline
from tests.simulation.stores.indexer import IndexerStores
from tests.simulation.stores.memory import MemoryStores
from tests.simulation.trace import Trace, Violation
from wazuh_comms_trio.backends.files.folder import FolderFiles
from wazuh_comms_trio.config.models import Batcher, Config, Timeouts
from wazuh_comms_trio.services.authentication import secret_hashes
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.testing.node.daemon import daemon_config

__all__ = ["World", "run_world"]

#: Once faults end, everything is served within this many seconds: an agent's pause after a failure, twice, and a
#: request's longest time.
LIVENESS_BOUND = 120.0
#: A run takes less than a second of a core, as a rule.
CORE_SECONDS = 20.0
#: What is logged as an error when faults are injected.
EXPECTED_ERRORS = ("the supervisor is gone", "the command store couldn't be told what was delivered")

DISK_ERRORS = ("the disk reports errors", "the disk is full", "can't write to", "can't use")


@cache
def _config() -> Config:
    return daemon_config()


@cache
def _keys() -> TokenKeys:
    return TokenKeys.from_pem(_config().communications_api.ssl.key.read_bytes())


@cache
def _files_folder() -> Path:
    """For all runs of this process; nobody writes to it."""
    folder = tempfile.TemporaryDirectory(prefix="simulation-files-")
    for name, content in FILES.items():
        Path(folder.name, name).write_bytes(content)
    atexit.register(folder.cleanup)
    return Path(folder.name)


class World(InjectedFaults):
    def __init__(self, plan: Plan, nursery: trio.Nursery) -> None:
        super().__init__(plan)
        self.nursery = nursery
        self.requests = 0
        self.process: ContextVar[Process | None] = ContextVar("process", default=None)
        api = _config().communications_api
        batcher = Batcher(max_elements=plan.batch_elements, wait_time=plan.batch_wait, eager=plan.eager)
        timeouts = Timeouts(commands=plan.poll_timeout)
        self.config = Config(evolve(api, workers=plan.workers, batcher=batcher, timeouts=timeouts))
        set_limits(plan.limits)
        self.keys = _keys()
        self.key_hash = key_hash()
        self.files = FolderFiles(_files_folder())
        self.stores: MemoryStores | EmbeddedStores | IndexerStores
        if plan.stores == "embedded":
            self.stores = EmbeddedStores(self)
        elif plan.stores == "indexer":
            self.stores = IndexerStores(self, self.agents_clock, lease=plan.lease)
        else:
            self.stores = MemoryStores(
                self.agents_clock,
                lease=plan.lease,
                keeps_posted=plan.keeps_posted,
                is_passing=self.is_passing,
                is_poison=self.is_poison,
            )
        self.balancer = Balancer(self)
        self.connections: list[Connection] = []
        self.commands: dict[str, CommandLife] = {}
        self.nodes = [Node(self, number) for number in range(plan.nodes)]
        self.agents = [SimAgent(self, number) for number in range(plan.agents)]
        self.ending = False

    def agents_clock(self) -> float:
        return EPOCH + trio.current_time()

    # --- faults

    async def strike(self, fault: Fault) -> None:
        """What happens at a moment."""
        await trio.sleep_until(fault.start)
        node = self.nodes[fault.node]
        processes = [process for process in node.running if not process.dead]
        process = processes[fault.worker % len(processes)] if processes else None
        if not node.is_up or process is None:
            return
        self.trace.strike(fault.kind, "node", process.name)
        if fault.kind == "kill worker":
            process.kill()
        elif fault.kind == "kill node":
            node.pause = fault.amount
            node.kill()
        elif fault.kind == "power cut":
            assert isinstance(self.stores, EmbeddedStores)
            node.pause = 1.0
            self.stores.power_cut(node, fault)
        elif fault.kind == "backup":
            assert isinstance(self.stores, EmbeddedStores)
            await self.stores.take_backup()
        elif fault.kind in ("stop node", "restore"):
            if isinstance(self.stores, EmbeddedStores) and fault.kind == "restore":
                self.stores.move()
            node.pause = fault.amount
            node.stop()
        elif fault.kind == "hang worker":
            process.hang()
            await trio.sleep(fault.seconds)
            process.wake()
        elif fault.kind == "cut link":
            await node.running[process][0].link.aclose()
        elif fault.kind == "reload":
            node.reload()
        elif fault.kind == "clock blip":
            node.clock_offset += fault.amount
            await trio.sleep(fault.seconds)
            node.clock_offset -= fault.amount
        else:
            node.clock_offset += fault.amount

    def end_faults(self) -> None:
        self.trace.add("world", "faults end")
        self.faults_ended = trio.current_time()
        self.faults_over.set()
        for connection in self.silent:
            connection.cut()
        for connection in self.connections:
            connection.fault = None
        for node in self.nodes:
            node.clock_offset = 0.0
            for process in node.running:
                process.wake()

    # --- the run

    async def keep_node(self, node: Node) -> None:
        while not self.ending:
            await node.run()
            if isinstance(self.stores, EmbeddedStores):
                await self.stores.node_ended()
            if not self.ending:
                await trio.sleep(node.pause)

    async def run(self) -> None:
        async with self.stores.open():
            for agent in self.agents:
                await self.stores.add_agent(agent.record)
            if isinstance(self.stores, EmbeddedStores):
                self.stores.disk.rest()
            await self._run()

    async def _run(self) -> None:
        plan = self.plan
        async with trio.open_nursery() as nodes:
            for node in self.nodes:
                nodes.start_soon(self.keep_node, node)
            async with trio.open_nursery() as others:
                others.start_soon(checks.watch, self)
                others.start_soon(checks.watch_polls, self)
                for agent in self.agents:
                    others.start_soon(agent.run)
                async with trio.open_nursery() as busy:
                    for agent in self.agents:
                        busy.start_soon(agent.work, plan.seconds)
                    for number in range(plan.hostile):
                        busy.start_soon(run_hostile, self, number, plan.seconds)
                    busy.start_soon(run_operator, self, plan.seconds)
                    others.start_soon(run_poster, self, plan.seconds)
                    for fault in plan.faults:
                        if fault.kind not in (*CALLS, *DISK, *NETWORK, *INDEX, *NODES):
                            busy.start_soon(self.strike, fault)
                    busy.start_soon(trio.sleep_until, plan.seconds)
                self.end_faults()
                await self._until_served()
                await checks.check_claims(self)
                await checks.check_end(self)
                others.cancel_scope.cancel()
            self.ending = True
            with trio.move_on_after(10.0 + STOP_BOUND) as limit:
                async with trio.open_nursery() as stopping:
                    for node in self.nodes:
                        stopping.start_soon(self._stop, node)
                while any(node.running or node.is_up for node in self.nodes):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            if limit.cancelled_caught:
                raise Violation("stops", f"there are {[each.name for node in self.nodes for each in node.running]}")
        checks.check_leaks(self)

    async def _stop(self, node: Node) -> None:
        while not node.is_up or not node.running:  # noqa: ASYNC110  # it is starting again
            await trio.sleep(0.1)
        node.stop()

    async def _until_served(self) -> None:
        began = trio.current_time()
        while open_ends := await checks.open_ends(self):
            if trio.current_time() > began + LIVENESS_BOUND:
                raise Violation("liveness", f"{LIVENESS_BOUND:.0f} s after the last fault: {'; '.join(open_ends)}")
            await trio.sleep(0.5)
        self.trace.add("world", "everything is served")


class _Errors(logging.Handler):
    """An unexpected ERROR fails the run; what a dead process logs, nobody reads."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        world, process = self._world, self._world.process.get()
        text = record.getMessage()
        if (process is not None and process.dead) or (text.startswith(EXPECTED_ERRORS) and world.had_cause(60.0)):
            return
        if any(words in text for words in DISK_ERRORS) and world.had_cause(60.0, DISK):
            return
        if "its log is damaged" in text and world.had_cause(60.0, POWER):
            return
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        self.found.append(f"{record.name}: {text}")
        world.trace.add("log", text)


@define
class Result:
    plan: Plan
    trace: Trace
    requests: int
    seconds: float
    violation: Violation | None


def run_world(plan: Plan) -> Result:
    """One run from its beginning to its end."""
    worlds: list[World] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(plan, nursery)
            worlds.append(world)
            errors = _Errors(world)
            logging.getLogger().addHandler(errors)
            try:
                with trio.fail_after(3600):
                    await world.run()
            finally:
                logging.getLogger().removeHandler(errors)
            nursery.cancel_scope.cancel()
            if errors.found:
                raise Violation("log", errors.found[0])

    violation: Violation | None = None
    before = open_files()
    try:
        with _limited(CORE_SECONDS):
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or not worlds:
            raise
        violation = _violation_in(error)
        if violation is None:
            violation = Violation("exceptions", checks.shown(error))
    world = worlds[0]
    if violation is None and (left := open_files() - before):
        violation = Violation("leaks", f"files are open after the end: {sorted(left)[:5]}")
    return Result(plan, world.trace, world.requests, checks.last_time(world), violation)


def open_files() -> set[tuple[str, str]]:
    """This process's: descriptor and what it leads to."""
    with os.scandir("/proc/self/fd") as entries:
        names = [entry.name for entry in entries]
    found = set()
    for name in names:
        with suppress(OSError):  # the one by which they were listed
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Of a core: a run in which something goes round and round is ended."""

    def end(*_: object) -> None:
        raise Violation("spins", f"no end within {seconds:.0f} s of a core")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _violation_in(error: BaseException) -> Violation | None:
    if isinstance(error, Violation):
        return error
    if isinstance(error, trio.TrioInternalError) and error.__cause__ is not None:
        return _violation_in(error.__cause__)
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if (found := _violation_in(each)) is not None:
                return found
    return None


def prepare() -> None:
    """Deriving a key is a pure function and 12 ms: once for each key is enough. Threads aren't for the mock clock."""
    use_inline()
    secret_hashes._derive = cache(secret_hashes._derive)
    gc.collect()
    gc.freeze()  # what is there now stays: it needn't be looked at after every run
