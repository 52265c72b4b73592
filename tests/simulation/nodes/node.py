"""A node: the real supervisor with its hub, on a machine that is simulated (``machine.py``), whose workers are
(``worker.py``). Signals come to it as to a daemon."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.determinism import EPOCH
from tests.simulation.nodes.machine import CAUSE_WITHIN, machine_of
from tests.simulation.nodes.network import NodeListener
from tests.simulation.nodes.process import Process
from tests.simulation.nodes.token_keys import SigningKeys
from tests.simulation.nodes.versions import Version
from tests.simulation.trace import Violation
from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.listeners import ListenAddresses, Listeners
from wazuh_comms_trio.daemon.stopping import STOP_MARGIN
from wazuh_comms_trio.daemon.supervisor.generation import FAILED_STARTS, HURRIED_MARGIN, WorkerFailed
from wazuh_comms_trio.daemon.supervisor.hub import Hub
from wazuh_comms_trio.daemon.supervisor.supervisor import Supervisor, handle_signals
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, VerifiedKeys

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["STOP_BOUND", "Node"]

#: Seconds beyond ``shutdown`` in which a node that was told to stop has ended, what a dead process still holds too.
STOP_BOUND: Final = 20.0
#: After a second signal.
_HURRIED_BOUND: Final = HURRIED_MARGIN + 1.0
#: Seconds after which the service manager starts a daemon again that has failed.
_RESTARTED_AFTER: Final = 2.0
_API, _ENROLLMENT = 3, 4


class _Port:
    """As the supervisor has a listener: it hands its descriptor on, and closes it."""

    def __init__(self, number: int, listener: NodeListener) -> None:
        self._number = number
        self._listener = listener
        self.socket = self

    def fileno(self) -> int:
        return self._number

    async def aclose(self) -> None:
        self._listener.close()
        await trio.lowlevel.checkpoint()


class Node:
    """``is_up``: it listens."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"node{number}"
        self.clock_offset = 0.0
        self.hub = Hub()
        self.listener = NodeListener()
        self.listener.close()
        self.running: list[Process] = []
        self.supervisor: Supervisor | None = None
        self.pause = 1.0  # until it is started again
        self.last_death = -1e9  # of one of its workers
        self.drained_at = inf  # since when it is, for its balancers
        self.version: Version = world.plan.first_version  # of the program that is installed
        self.enrollment = NodeListener()
        self.enrollment.close()
        self.ports: dict[int, NodeListener] = {}
        self._verified = world.scratch_folder(f"verified{number}") if world.plan.features.earlier_keys else None
        self.keys: SigningKeys = world.signing_keys(number)
        self.asked_at = self.read_at = -inf  # by a signal to read the configuration, and when it did
        self._configs: list[Config] = []  # each that was read, in all its lives
        self._told: list[float] = []  # when it was told to stop
        self._served: dict[int, set[int]] = {}  # which workers have, by the configuration's number

    def wall_clock(self) -> float:
        return EPOCH + trio.current_time() + self.clock_offset

    @property
    def is_up(self) -> bool:
        return not self.listener.closed

    @property
    def is_told_to_stop(self) -> bool:
        return bool(self._told)

    # --- the whole node

    async def run(self) -> None:
        """One life of the node, until ``stop`` or ``kill``."""
        self.hub, self.listener, self.drained_at = Hub(), NodeListener(), inf
        self.ports = {_API: self.listener}
        if self.world.plan.features.enrols:
            self.ports[_ENROLLMENT] = self.enrollment = NodeListener()
        self._told, self._served = [], {}
        self.is_ready = False
        self.world.trace.add(self.name, "starts")
        self._signals, signals = trio.open_memory_channel[int](100)
        with trio.CancelScope() as self._scope, self._signals, signals:
            async with BackgroundNursery() as background:
                self._background = background
                machine, self._machine = machine_of(self)
                loaded, key_files = self.read_files()
                settings = loaded.config.communications_api
                node_keys = self.keys.begin_life(self.hub)
                earlier = await node_keys.before_generation(settings, key_files)
                ports = [_Port(number, listener) for number, listener in self.ports.items()]
                listeners = Listeners(api=ports[:1], enrollment=ports[1:])  # type: ignore[arg-type]
                addresses = ListenAddresses([], [], Path("/simulated"))
                self.supervisor = Supervisor(
                    loaded, key_files, earlier, listeners, addresses, self.hub, node_keys, machine
                )
                background.start_soon(handle_signals, signals, self.supervisor)
                await self._run_supervisor(self.supervisor)
        self._stop_listening()
        self.supervisor = None
        self.world.trace.add(self.name, "has ended")

    async def _run_supervisor(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.run()
        except* WorkerFailed as failures:
            # The service manager starts it again.
            if self._machine.failed_starts < FAILED_STARTS or not self.world.had_cause(CAUSE_WITHIN):
                raise Violation("starts", f"{self.name} gives up: {failures.exceptions[0]}") from None
            self.world.trace.strike("gives up", "node", self.name)
            self.pause = _RESTARTED_AFTER

    def _stop_listening(self) -> None:
        self.listener.close()
        self.enrollment.close()

    def kill(self) -> None:
        """The supervisor and all workers at once."""
        self._told.append(trio.current_time())
        self._stop_listening()
        for process in list(self.running):
            process.kill()
        self._scope.cancel()

    def stop(self) -> None:
        if not self._told:
            self.world.trace.add(self.name, "is stopped")
            self._signal_to_stop()
            if self.supervisor is not None and self.supervisor.current.settings.shutdown.delay:
                self.drained_at = min(self.drained_at, trio.current_time())

    def hurry(self) -> None:
        """Tells it once more."""
        if self._told and self.supervisor is not None:
            self.world.trace.add(self.name, "is told to hurry")
            self._signal_to_stop()

    def _signal_to_stop(self) -> None:
        self._told.append(trio.current_time())
        self._signals.send_nowait(signal.SIGTERM)
        self._background.start_soon(self._watch_stop, len(self._told) > 1)

    async def _watch_stop(self, hurried: bool) -> None:
        """Whatever its workers do, it ends in time: what is left then are dead processes' tasks."""
        shutdowns = [config.communications_api.shutdown for config in self._configs]
        longest = max(each.delay + each.grace + each.spread for each in shutdowns) + STOP_MARGIN + 1.0
        bound = _HURRIED_BOUND if hurried else longest
        await trio.sleep(bound)
        if left := [process.name for process in self.running if not process.dead]:
            raise Violation("stops", f"{self.name} was told to stop {bound:.0f} s ago, and has {left}")

    async def reload(self) -> None:
        """A signal: it reads its configuration again, also once more when it is reading it."""
        if self.is_up and not self._told:
            self.world.trace.add(self.name, "reloads")
            self.asked_at = trio.current_time()
            self._signals.send_nowait(signal.SIGHUP)
        await trio.lowlevel.checkpoint()

    async def reload_by_tool(self) -> bool:
        """As ``wazuh-comms reload``: waits, and says whether it was done."""
        supervisor, ended, done = self.supervisor, trio.Event(), False
        if supervisor is None:
            return False

        async def ask() -> None:
            nonlocal done
            try:
                done = (await supervisor.reload())["reloaded"]
            finally:
                ended.set()

        self.world.trace.add(self.name, "is told to reload")
        self._background.start_soon(ask)
        await ended.wait()
        return done

    def drain(self) -> None:
        if self.supervisor is not None:
            self.drained_at = trio.current_time()
            self.supervisor.drain.begin()

    def end_drain(self) -> None:
        self.drained_at = inf
        if self.supervisor is not None:
            self.supervisor.drain.end()

    # --- what its machine asks

    def read_files(self) -> tuple[LoadedConfig, Mapping[str, str]]:
        """The configuration as it is now, and its keys."""
        number = len(self._configs) + 1
        config = self.world.config_of(self.number, number)
        config = self.keys.configured(config)
        self._configs.append(config)
        self.read_at = trio.current_time()
        return LoadedConfig(config, (), Path("/simulated"), str(number)), self.keys.files()

    def config_of(self, text: str) -> Config:
        return self._configs[int(text) - 1]

    def verified_keys(self) -> VerifiedKeys | None:
        if self._verified is None:
            return None
        return VerifiedKeys(self._verified / FILE_NAME, self.world.keys.derive(b"verified"))

    def notified(self, lines: Sequence[str]) -> None:
        """The service manager is told something."""
        if "RELOADING=1" in lines:
            self._machine.reloads.append(trio.current_time())
        if "READY=1" not in lines:
            return
        served, reading = self._served.get(self.reading, set()), self.reading
        if len(served) < (self.workers if self.is_ready and reading != self._first else 1):
            raise Violation("starts", f"{self.name} is ready, and of {self.workers} workers {len(served)} have served")
        if not self.is_ready:
            self.is_ready, self._first = True, reading

    def note_serving(self, process: Process) -> None:
        self._served.setdefault(process.reading, set()).add(process.slot)

    def note_failed_start(self) -> None:
        self._machine.failed_starts += 1

    def note_end(self, process: Process) -> None:
        self.running.remove(process)
        self.last_death = trio.current_time()

    # --- what checks ask

    @property
    def workers(self) -> int:
        """How many there are to be."""
        return 0 if self.supervisor is None else self.supervisor.current.settings.workers

    @property
    def reading(self) -> int:
        """The number of the configuration that is in force; 0: the node is down."""
        return 0 if self.supervisor is None else int(self.supervisor.current.loaded.text)
