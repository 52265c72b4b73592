"""The supervisor of several workers: it starts, watches and stops them, and does no agent's work itself.

    SUPERVISOR   trio.run
     `- nursery: signals | command server (Unix socket) | service manager | generations
                  `- generation: keep_worker x N
                      `- keep_worker: spawn, watch, replace; stopped by a message, a bounded wait, SIGKILL

A reload is one mechanism for every change: a new generation of workers is started with the new configuration, and when
all of them serve, the old one is told to stop. Both accept from the same sockets meanwhile, so no connection is
refused.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio
from attrs import define, field

from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.daemon.bound_sockets import StartError
from wazuh_comms_trio.daemon.drain import Drain
from wazuh_comms_trio.daemon.exit_status import report_failure
from wazuh_comms_trio.daemon.key_files import read_key_files
from wazuh_comms_trio.daemon.listeners import (
    ListenAddresses,
    Listeners,
    announce,
    check_file_limit,
    open_listeners,
    operators_token,
)
from wazuh_comms_trio.daemon.logging.output import LogFileUnusable
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory, node_folder
from wazuh_comms_trio.daemon.status import readiness, status_document, worker_document
from wazuh_comms_trio.daemon.stopping import STOP_MARGIN, Terminal, stop_when_noticed
from wazuh_comms_trio.daemon.supervisor.generation import Generation, WorkerFailed, run_generation
from wazuh_comms_trio.daemon.supervisor.hub import Hub
from wazuh_comms_trio.daemon.supervisor.machine import Machine
from wazuh_comms_trio.daemon.supervisor.node_keys import NodeKeys
from wazuh_comms_trio.daemon.supervisor.node_metrics import node_metrics
from wazuh_comms_trio.daemon.supervisor.operators import keep_operators
from wazuh_comms_trio.daemon.systemd import keep_notified
from wazuh_comms_trio.foundation.log_context import WORKER
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery

__all__ = ["Supervisor", "supervise"]

logger = logging.getLogger(__name__)

#: A reload answers parked polls over at least this time, seconds: a fleet that is sent away comes back.
RELOAD_SPREAD: Final = 2.0
#: Seconds that a question after the status waits for workers.
STATUS_TIMEOUT: Final = 1.0


async def supervise(loaded: LoadedConfig, *, ready: Callable[[ListenAddresses], None] | None = None) -> None:
    """Runs the supervisor until a signal ends it. ``ready`` is called when the first worker serves. Raises
    ``StartError``."""
    WORKER.set("supervisor")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        check_file_limit()
        async with open_listeners(loaded.config.communications_api) as (listeners, addresses):
            key_files = await trio.to_thread.run_sync(read_key_files, loaded.config.communications_api)
            hub = Hub()
            node_keys = NodeKeys(KeyMemory(node_folder(loaded.config.communications_api)), hub)
            earlier_keys = await node_keys.before_generation(loaded.config.communications_api, key_files)
            supervisor = Supervisor(loaded, key_files, earlier_keys, listeners, addresses, hub, node_keys)
            async with BackgroundNursery() as background:
                background.start_soon(handle_signals, signals, supervisor)
                await supervisor.run(ready)
    logger.info("stopped")


class Supervisor:
    """``run`` keeps the workers; ``stop``, ``reload`` and ``status`` are for signals and the command socket."""

    def __init__(
        self,
        loaded: LoadedConfig,
        key_files: Mapping[str, str],
        earlier_keys: Sequence[tuple[str, float]],
        listeners: Listeners,
        addresses: ListenAddresses,
        hub: Hub,
        node_keys: NodeKeys,
        machine: Machine | None = None,
    ) -> None:
        self._listeners = listeners
        self._addresses = addresses
        self._machine = Machine() if machine is None else machine
        self._notifier = self._machine.notifier
        self._started = time.time()
        self._began = trio.current_time()
        #: The settings that the listeners were opened with.
        self._opened_with = loaded.config.communications_api
        #: ``stop`` was called; ``_stop`` is set once ``shutdown.delay`` is over.
        self._stopping = False
        self._operators_token = operators_token(self._opened_with)
        self._stop = trio.Event()
        self._generations: list[Generation] = []
        self._reloading = trio.Lock()
        #: The first worker serves, or the daemon was stopped before.
        self._is_up = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.hub = hub
        self.node_keys = node_keys
        self.drain = Drain(self.hub.drain)
        self.current = self._generation(1, loaded, key_files, earlier_keys)

    def _generation(
        self,
        number: int,
        loaded: LoadedConfig,
        key_files: Mapping[str, str],
        earlier_keys: Sequence[tuple[str, float]],
    ) -> Generation:
        return Generation(
            number,
            loaded,
            api=[listener.socket.fileno() for listener in self._listeners.api],  # type: ignore[attr-defined]
            enrollment=[listener.socket.fileno() for listener in self._listeners.enrollment],  # type: ignore[attr-defined]
            key_files=key_files,
            earlier_keys=earlier_keys,
            start_worker=self._machine.start_worker,
        )

    # --- for signals and the command socket

    def stop(self) -> None:
        """Begins the orderly procedure, once balancers had ``shutdown.delay`` to notice; a second call hurries."""
        if self._stopping:
            self._stop.set()
            for generation in self._generations:
                generation.stop.hurry()
            return
        self._stopping = True
        delay = self.drain.begin_to_stop(self.current.settings.shutdown.delay)
        if delay > 0 and self._nursery is not None and any(member.in_service for member in self.hub.members):
            self._nursery.start_soon(stop_when_noticed, delay, self._notifier, self._stop, self._begin_stop)
        else:
            self._begin_stop()

    def _begin_stop(self) -> None:
        self._stop.set()
        for generation in self._generations:
            if generation.stop.requested.is_set():
                generation.stop.shorten()  # it has had a reload's longer time until now
            else:
                generation.stop.request(spread=generation.settings.shutdown.spread)

    @property
    def stopping(self) -> bool:
        return self._stopping

    async def reload(self, *, wait: bool = False) -> dict[str, Any]:
        """Reads the configuration again. ``reloaded`` says whether it is in force; if not, nothing has changed, and
        ``problems`` say why. ``needs_restart`` names what stays as it was. ``wait``: after the one under way, if
        there is one; else that is refused."""
        if self._reloading.locked() and not wait:
            return _refusal("A reload is under way")
        async with self._reloading:
            await self._is_up.wait()  # a signal may come earlier, and a reload's end is told as ready
            if self.stopping:
                return _refusal("The daemon is stopping")
            self._notifier.reloading()
            try:
                return await self._reload()
            finally:
                if not self.stopping:
                    self._notifier.ready(self._status_line())

    async def _reload(self) -> dict[str, Any]:
        old = self.current
        try:
            loaded, key_files = await trio.to_thread.run_sync(self._machine.read_files, old.loaded.file)
        except ConfigError as error:
            return _refusal(*(problem.render(error.file) for problem in error.problems))
        except (StartError, LogFileUnusable) as error:
            return _refusal(str(error))
        warnings = [warning.render(loaded.file) for warning in loaded.warnings]
        for warning in warnings:
            logger.warning("%s", warning)
        fixed = keys_that_need_a_restart(self._opened_with, loaded.config.communications_api)
        for name in fixed:
            logger.warning("%s has changed; that needs a restart, and stays as it was until then", name)
        earlier_keys = await self.node_keys.before_generation(loaded.config.communications_api, key_files)
        new = self._generation(old.number + 1, loaded, key_files, earlier_keys)
        assert self._nursery is not None
        try:
            await self._nursery.start(partial(self._run_generation, new, whole=True))
        except WorkerFailed as error:
            return _refusal(str(error))
        if self.stopping:
            return _refusal("The daemon is stopping")
        try:
            self._machine.set_up_logs(loaded.config.communications_api.logging)
        except OSError as error:  # which the workers, a moment ago, could
            logger.error("%s", error)  # noqa: TRY400
        self.current = new
        await self.node_keys.signed_by(new.public_key)
        # As long as any of its requests may take: none fails because of a reload.
        old.stop.request(spread=max(RELOAD_SPREAD, new.settings.shutdown.spread), grace=longest_request(old.settings))
        logger.info("reloaded: %d workers serve with the configuration as it is now", new.settings.workers)
        return {"reloaded": True, "problems": [], "warnings": warnings, "needs_restart": fixed}

    async def fresh_status(self) -> dict[str, Any]:
        """The status after the workers have looked at their stores; one that hangs isn't waited for."""
        await self.hub.refresh(STATUS_TIMEOUT)
        return self.status()

    def status(self) -> dict[str, Any]:
        """The status document."""
        now = trio.current_time()
        workers = [
            worker_document(
                member.name,
                generation=member.generation,
                state=member.state,
                heard=now - member.heard,
                report=member.report,
            )
            for member in sorted(self.hub.members, key=lambda member: member.name)
        ]
        return status_document(
            started=self._started,
            up=now - self._began,
            warnings=self._addresses.warnings,
            generation=self.current.number,
            configured_workers=self.current.settings.workers,
            reload=True,
            workers=workers,
            drained=self.drain.seconds,
        )

    async def about_agent(self, agent_id: str) -> list[dict[str, Any]]:
        """What each worker knows of an agent."""
        return await self.hub.ask_about(agent_id, STATUS_TIMEOUT)

    async def answer(self, about: str) -> dict[str, Any]:
        """Answers a question of the operators' process."""
        if about == "metrics":
            await self.hub.refresh_metrics(STATUS_TIMEOUT)
            return self.hub.metrics.snapshot(self._own_metrics())
        status = await self.fresh_status()
        return readiness(status) if about == "ready" else status

    def _own_metrics(self) -> dict[str, Any]:
        return node_metrics(
            [member.state for member in self.hub.members],
            configured=self.current.settings.workers,
            generation=self.current.number,
            started=self._started,
            restarts=self.hub.restarts,
            has_leader=self.hub.has_leader,
        )

    # --- what runs

    async def run(self, ready: Callable[[ListenAddresses], None] | None = None) -> None:
        """Keeps generations running until ``stop``; then every generation has ended. Raises ``WorkerFailed``."""
        async with BackgroundNursery() as background:
            background.start_soon(self.hub.run)
            background.start_soon(keep_notified, self._notifier, self._status_line)
            async with trio.open_nursery() as generations:
                self._nursery = generations
                await generations.start(partial(self._run_generation, self.current, whole=False))
                await self.node_keys.signed_by(self.current.public_key)
                if not self.stopping:
                    announce(self._addresses)
                    self._notifier.ready(self._status_line())
                    if ready is not None:
                        ready(self._addresses)
                self._is_up.set()
                generations.start_soon(self._serve_commands)
                for listener in self._listeners.operators:
                    token = self._operators_token
                    background.start_soon(keep_operators, listener, self._opened_with, token, self.answer)
                await self._stop.wait()
                await self._begin_to_stop()

    async def _begin_to_stop(self) -> None:
        shutdown = self.current.settings.shutdown
        self._notifier.stopping()
        self._notifier.extend_timeout(shutdown.grace + shutdown.spread + STOP_MARGIN)
        # An agent that connects from now on is refused, and tries another server. (The service manager's sockets stay.)
        for listener in (*self._listeners.api, *self._listeners.enrollment):
            await listener.aclose()

    async def _run_generation(
        self, generation: Generation, *, whole: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Runs a generation; it counts as started when the first of its workers serves, or all (``whole``)."""
        self._generations.append(generation)
        if self.stopping:
            generation.stop.request()
        try:
            await run_generation(generation, self.hub, whole=whole, task_status=task_status)
        finally:
            self._generations.remove(generation)

    async def _serve_commands(self) -> None:
        # Imported now, when the workers are up: they are what is waited for at start-up.
        from wazuh_comms_trio.daemon.command_socket import HubPoster, SupervisorControl, serve_control

        settings = self.current.settings
        control = SupervisorControl(
            self.fresh_status,
            self.reload,
            lambda on: self.drain.switch(on, self.hub.parked),
            lambda: self.current.settings,
            self.about_agent,
            partial(self.answer, "metrics"),
            self.node_keys.revoke,
        )
        await serve_control(control, HubPoster(self.hub.post), self._listeners, settings, stop=self._stop)

    def _status_line(self) -> str:
        serving = [member for member in self.hub.members if member.in_service]
        parked = sum(member.report.get("parked", 0) for member in serving)
        drained = "" if self.drain.seconds is None else "; drained"
        return f"{len(serving)} of {self.current.settings.workers} workers serve; {parked} agents parked{drained}"


def keys_that_need_a_restart(old: CommunicationsApi, new: CommunicationsApi) -> list[str]:
    """Keys whose change needs a restart: what the supervisor itself listens on."""
    fixed = [
        ("host", old.host, new.host),
        ("port", old.port, new.port),
        ("command_socket", old.command_socket, new.command_socket),
        ("operators", old.operators, new.operators),
        ("enrollment.host", old.enrollment and old.enrollment.host, new.enrollment and new.enrollment.host),
        ("enrollment.port", old.enrollment and old.enrollment.port, new.enrollment and new.enrollment.port),
    ]
    return [f"communications_api.{name}" for name, before, after in fixed if before != after]


def longest_request(settings: CommunicationsApi) -> float:
    """How many seconds one request may take at most, polls apart."""
    limits, timeouts = settings.limits, settings.timeouts
    body = limits.body_timeout + limits.body_bytes / limits.body_rate
    work = max(timeouts.authentication, timeouts.stateless, timeouts.stateful, timeouts.files, timeouts.scan)
    return limits.handshake_timeout + limits.head_timeout + body + work + limits.send_timeout


def _refusal(*problems: str) -> dict[str, Any]:
    for problem in problems:
        logger.error("not reloaded: %s", problem)
    return {"reloaded": False, "problems": list(problems), "warnings": [], "needs_restart": []}


async def handle_signals(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    wanted, terminal = _ReloadRequest(), Terminal()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_reload_when_wanted, supervisor, wanted)
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP and not terminal.is_gone():
                logger.info("%s: reloading", name)
                wanted.made.set()
            else:
                if supervisor.stopping:
                    logger.warning("%s again: requests in flight are given up", name)
                else:
                    logger.info("%s: stopping", name)
                supervisor.stop()


@define
class _ReloadRequest:
    made: trio.Event = field(factory=trio.Event)


async def _reload_when_wanted(supervisor: Supervisor, wanted: _ReloadRequest) -> None:
    """Reloads for signals; once more for a signal that comes during a reload: the files may have changed since they
    were read. One is enough for however many."""
    while True:
        await wanted.made.wait()
        wanted.made = trio.Event()
        try:
            await supervisor.reload(wait=True)
        except Exception as error:
            report_failure(error)
