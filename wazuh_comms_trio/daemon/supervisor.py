"""The supervisor of several workers: it keeps them, tells them what to do, and does no agent's work itself.

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
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import trio

from wazuh_comms_trio.config.load import LoadedConfig, load_config
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.daemon.exits import report_failure
from wazuh_comms_trio.daemon.generation import Generation, WorkerFailed, run_generation
from wazuh_comms_trio.daemon.hub import Hub
from wazuh_comms_trio.daemon.listening import Listeners, Ready, announce, check_file_limit, open_listeners
from wazuh_comms_trio.daemon.logs import set_up_logs
from wazuh_comms_trio.daemon.notify import Notifier, keep_notified

__all__ = ["Supervisor", "supervise"]

logger = logging.getLogger(__name__)

#: A reload answers parked polls over at least this time, seconds: a fleet that is sent away comes back.
RELOAD_SPREAD: Final = 2.0
#: How long earlier keys' tokens can be good: their life, and the requests that were under way.
EARLIER_KEYS_LIFETIME: Final = 930.0


async def supervise(loaded: LoadedConfig, *, ready: Callable[[Ready], None] | None = None) -> None:
    """Runs until a signal ends it. ``ready`` is called when the first worker serves. Raises ``StartError``."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        check_file_limit()
        async with open_listeners(loaded.config.communications_api) as (listeners, addresses):
            supervisor = Supervisor(loaded, listeners, addresses)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey_signals, signals, supervisor)
                await supervisor.run(ready)
                nursery.cancel_scope.cancel()
    logger.info("stopped")


class Supervisor:
    def __init__(self, loaded: LoadedConfig, listeners: Listeners, addresses: Ready) -> None:
        self._listeners = listeners
        self._addresses = addresses
        self._notifier = Notifier()
        self._started = time.time()
        self._stop = trio.Event()
        self._hurry = trio.Event()
        self._reloading = trio.Lock()
        self._earlier_keys: list[tuple[str, float]] = []
        self._nursery: trio.Nursery | None = None
        self.hub = Hub()
        self.current = self._generation(1, loaded)

    def _generation(self, number: int, loaded: LoadedConfig) -> Generation:
        now = trio.current_time()
        self._earlier_keys = [(pem, until) for pem, until in self._earlier_keys if until > now]
        return Generation(
            number,
            loaded,
            api=[listener.socket.fileno() for listener in self._listeners.api],  # type: ignore[attr-defined]
            enrollment=[listener.socket.fileno() for listener in self._listeners.enrollment],  # type: ignore[attr-defined]
            earlier_keys=[pem for pem, _ in self._earlier_keys],
            hurry=self._hurry,
        )

    # --- what it is told

    def stop(self) -> None:
        """The orderly procedure; a second call hurries."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def reload(self) -> dict[str, Any]:
        """Reads the configuration again. ``reloaded`` says whether it is in force; if not, nothing has changed, and
        ``problems`` say why. ``needs_restart`` names what stays as it was."""
        if self._reloading.locked():
            return _refusal("A reload is under way")
        async with self._reloading:
            self._notifier.reloading()
            try:
                return await self._reload()
            finally:
                self._notifier.ready(self._status_line())

    async def _reload(self) -> dict[str, Any]:
        old = self.current
        try:
            loaded = await trio.to_thread.run_sync(load_config, old.loaded.file)
        except ConfigError as error:
            problems = [problem.render(error.file) for problem in error.problems]
            for problem in problems:
                logger.error("not reloaded: %s", problem)  # noqa: TRY400  # a sentence says it all
            return _refusal(*problems)
        warnings = [warning.render(loaded.file) for warning in loaded.warnings]
        for warning in warnings:
            logger.warning("%s", warning)
        fixed = what_stays(old.settings, loaded.config.communications_api)
        for name in fixed:
            logger.warning("%s has changed; that needs a restart, and stays as it was until then", name)
        new = self._generation(old.number + 1, loaded)
        if old.public_key is not None:
            self._earlier_keys.append((old.public_key, trio.current_time() + EARLIER_KEYS_LIFETIME))
            new.earlier_keys.append(old.public_key)
        assert self._nursery is not None
        try:
            await self._nursery.start(partial(self._run_generation, new, whole=True))
        except WorkerFailed as error:
            logger.error("not reloaded: %s", error)  # noqa: TRY400  # a sentence says it all
            return _refusal(str(error))
        set_up_logs(loaded.config.communications_api.logging)
        self.current = new
        old.stop(spread=max(RELOAD_SPREAD, new.settings.shutdown.spread))
        logger.info("reloaded: %d workers serve with the configuration as it is now", new.settings.workers)
        return {"reloaded": True, "problems": [], "warnings": warnings, "needs_restart": fixed}

    def status(self) -> dict[str, Any]:
        """Times in epoch seconds, durations in seconds."""
        now = trio.current_time()
        workers = [
            {
                "name": member.name,
                "generation": member.generation,
                "state": "serving" if member.in_service else "starting" if not member.ready.is_set() else "stopping",
                "heard": round(now - member.heard, 1),
                **member.beat,
            }
            for member in sorted(self.hub.members, key=lambda member: member.name)
        ]
        return {
            "started": self._started,
            "generation": self.current.number,
            "configured_workers": self.current.settings.workers,
            "reload": True,
            "workers": workers,
        }

    # --- what runs

    async def run(self, ready: Callable[[Ready], None] | None = None) -> None:
        """Until ``stop``; then every generation has ended."""
        async with trio.open_nursery() as outer:
            self._nursery = outer
            try:
                await outer.start(partial(self._run_generation, self.current, whole=False))
            except WorkerFailed:
                if not self.stopping:
                    raise
            if self.stopping:
                return
            announce(self._addresses)
            self._notifier.ready(self._status_line())
            if ready is not None:
                ready(self._addresses)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_notified, self._notifier, self._status_line)
                nursery.start_soon(self._serve_commands)
                await self._stop.wait()
                logger.info("stopping")
                self._notifier.stopping()
                spread = self.current.settings.shutdown.spread
                self.current.stop(spread=spread)
                nursery.cancel_scope.cancel()

    async def _run_generation(
        self, generation: Generation, *, whole: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Started when the first of its workers serves, or all (``whole``)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_with_the_rest, generation, nursery.cancel_scope)
            await run_generation(generation, self.hub, whole=whole, task_status=task_status)
            nursery.cancel_scope.cancel()

    async def _stop_with_the_rest(self, generation: Generation, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        generation.stop(spread=generation.settings.shutdown.spread)

    async def _serve_commands(self) -> None:
        # Imported now, when the workers are up: they are what is waited for at start-up.
        from wazuh_comms_trio.daemon.control import SupervisorControl, serve_control

        settings = self.current.settings
        control = SupervisorControl(self.status, self.reload, settings)
        await serve_control(control, self.hub, self._listeners, settings)

    def _status_line(self) -> str:
        serving = [member for member in self.hub.members if member.in_service]
        parked = sum(member.beat.get("parked", 0) for member in serving)
        return f"{len(serving)} of {self.current.settings.workers} workers serve; {parked} agents parked"


def what_stays(old: CommunicationsApi, new: CommunicationsApi) -> list[str]:
    """Keys whose change needs a restart: what the supervisor itself listens on."""
    fixed = [
        ("host", old.host, new.host),
        ("port", old.port, new.port),
        ("command_socket", old.command_socket, new.command_socket),
        ("enrollment.host", old.enrollment and old.enrollment.host, new.enrollment and new.enrollment.host),
        ("enrollment.port", old.enrollment and old.enrollment.port, new.enrollment and new.enrollment.port),
    ]
    return [f"communications_api.{name}" for name, before, after in fixed if before != after]


def _refusal(*problems: str) -> dict[str, Any]:
    return {"reloaded": False, "problems": list(problems), "warnings": [], "needs_restart": []}


async def obey_signals(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    async with trio.open_nursery() as nursery:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                logger.info("%s: reloading", name)
                nursery.start_soon(_reload, supervisor)
            else:
                if supervisor.stopping:
                    logger.warning("%s again: requests in flight are given up", name)
                else:
                    logger.info("%s: stopping", name)
                supervisor.stop()


async def _reload(supervisor: Supervisor) -> None:
    try:
        await supervisor.reload()
    except Exception as error:
        report_failure(error)
