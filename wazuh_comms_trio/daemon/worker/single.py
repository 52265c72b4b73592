"""The daemon as one process: a worker with its own listeners, signals and service manager, and no supervisor."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import trio

from wazuh_comms_trio.config.models import CommunicationsApi, Config, Shutdown
from wazuh_comms_trio.daemon.command_socket import Auditor
from wazuh_comms_trio.daemon.drain import Drain
from wazuh_comms_trio.daemon.listeners import (
    ListenAddresses,
    announce,
    check_file_limit,
    open_listeners,
    operators_token,
)
from wazuh_comms_trio.daemon.remembered_keys import SIGNS_HERE, KeyMemory, node_folder
from wazuh_comms_trio.daemon.status import readiness, report_document, status_document, worker_document
from wazuh_comms_trio.daemon.stopping import STOP_MARGIN, Stop, Terminal, stop_when_noticed
from wazuh_comms_trio.daemon.supervisor.node_metrics import node_metrics
from wazuh_comms_trio.daemon.systemd import Notifier, keep_notified
from wazuh_comms_trio.daemon.worker.environment import (
    certificate_end,
    forget_earlier_keys,
    load_keys,
    revocation_list,
)
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.daemon.worker.serving import serve_worker
from wazuh_comms_trio.daemon.worker.tree import Worker
from wazuh_comms_trio.foundation.log_context import WORKER
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.snapshots import add_up
from wazuh_comms_trio.services.agent_journal import merged

__all__ = ["serve"]

logger = logging.getLogger(__name__)

#: Of the operators' listener: see ``daemon.supervisor.operators``, which a worker doesn't know.
KeepOperators = Callable[
    [trio.SocketListener, CommunicationsApi, str | None, Callable[[str], Awaitable[dict[str, Any]]]], Awaitable[None]
]
NO_RELOAD: Final = (
    "one worker runs without a supervisor, which a reload needs: restart the daemon; with `workers` at 2 or more it can"
    " be reloaded from then on"
)


async def serve(
    config: Config,
    *,
    ready: Callable[[ListenAddresses], None] | None = None,
    stop: Stop | None = None,
    keep_operators: KeepOperators | None = None,
) -> None:
    """Serves until ``stop`` or a signal. ``keep_operators`` keeps the process of the operators'
    listener. Raises ``StartError``, or a backend's error, when it can't start."""
    WORKER.set("1")
    settings = config.communications_api
    stop = Stop() if stop is None else stop
    notifier = Notifier()
    key_memory = KeyMemory(node_folder(settings))
    control = SingleControl(settings, key_memory)

    def on_serving(background: trio.Nursery, worker: Worker, heartbeat: Heartbeat) -> None:
        control.begin(worker, heartbeat)
        control.warnings = addresses.warnings
        background.start_soon(trio.to_thread.run_sync, key_memory.note_signing, keys.public_pem.decode())
        announce(addresses)
        notifier.ready(_status_line(heartbeat))
        for listener in listeners.operators:
            if keep_operators is not None:
                background.start_soon(keep_operators, listener, settings, token, control.answer)
        background.start_soon(keep_notified, notifier, partial(_status_line, heartbeat))
        if ready is not None:
            ready(addresses)

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        check_file_limit()
        if settings.workers > 1:
            logger.info("one worker runs (workers is %d)", settings.workers)
        earlier = key_memory.read().seconds_left(time.time())
        keys, ssl_context = load_keys(settings, earlier=[pem.encode() for pem in earlier])
        keys.revoke(key_memory.known.revoked)
        token = operators_token(settings)
        async with open_listeners(settings) as (listeners, addresses):
            await serve_worker(
                config,
                listeners,
                keys,
                ssl_context,
                stop,
                on_serving=on_serving,
                background=[
                    partial(handle_signals, signals, stop, settings.shutdown, control, notifier),
                    partial(_tell_stopping, notifier, stop, settings.shutdown.grace),
                    partial(forget_earlier_keys, keys, earlier),
                ],
                control=control,
                metrics=control.counted,
                certificate_end=certificate_end(settings),
                revoked=revocation_list(settings),
            )
    logger.info("stopped")


class SingleControl:
    """``Control`` of one worker that runs alone."""

    def __init__(self, settings: CommunicationsApi, key_memory: KeyMemory) -> None:
        self._key_memory = key_memory
        self._started = time.time()
        self._began = trio.current_time()
        self.note = Auditor(lambda: settings).note
        self.counted: Metrics = Metrics()
        #: Once the worker runs.
        self.worker: Worker | None = None
        self.heartbeat: Heartbeat | None = None
        self.drained = Drain(self._tell_worker)
        self.warnings: Sequence[str] = ()

    def begin(self, worker: Worker, heartbeat: Heartbeat) -> None:
        """The worker runs: it is told now of what was asked for before."""
        self.worker, self.heartbeat = worker, heartbeat
        self._tell_worker(self.drained.seconds is not None)

    def _tell_worker(self, on: bool) -> None:
        if self.worker is not None:
            self.worker.services.readiness.drain(on)

    async def status(self) -> dict[str, Any]:
        if self.heartbeat is not None:
            await self.heartbeat.look()
        worker = worker_document(
            "1",
            generation=1,
            state="starting" if self.heartbeat is None else "serving",
            heard=0.0,
            report={"pid": os.getpid()} if self.heartbeat is None else report_document(self.heartbeat.report()),
        )
        return status_document(
            started=self._started,
            up=trio.current_time() - self._began,
            warnings=self.warnings,
            generation=1,
            configured_workers=1,
            reload=False,
            workers=[worker],
            drained=self.drained.seconds,
        )

    async def about_agent(self, agent_id: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return merged([] if self.worker is None else [self.worker.services.about_agent(agent_id)])

    async def metrics(self) -> dict[str, Any]:
        return await self.answer("metrics")

    async def answer(self, about: str) -> dict[str, Any]:
        """Answers a question of the operators' process."""
        if about == "metrics":
            own = node_metrics(
                ["serving"], configured=1, generation=1, started=self._started, restarts=0, has_leader=True
            )
            return add_up([self.counted.snapshot(), own])
        status = await self.status()
        return readiness(status) if about == "ready" else status

    async def reload(self) -> dict[str, Any]:
        return {"reloaded": False, "problems": [NO_RELOAD], "warnings": [], "needs_restart": []}

    async def revoke_key(self, key_id: str) -> dict[str, Any]:
        services = None if self.worker is None else self.worker.services
        if services is not None and services.keys is not None and services.keys.kid == key_id:
            return {"revoked": False, "problem": SIGNS_HERE}
        since = {key_id: round(time.time(), 3)}
        kept = await trio.to_thread.run_sync(self._key_memory.revoke, since)
        if services is not None:
            services.revoke_keys(since)
        return {"revoked": True, "kept": kept}

    async def drain(self, on: bool) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        parked = 0 if self.worker is None else self.worker.services.commands.parked
        return self.drained.switch(on, parked)


def _status_line(heartbeat: Heartbeat) -> str:
    return f"one worker serves; {heartbeat.report().parked} agents parked"


async def _tell_stopping(notifier: Notifier, stop: Stop, grace: float) -> None:
    await stop.requested.wait()
    notifier.stopping()
    notifier.extend_timeout(grace + stop.spread + STOP_MARGIN)


async def handle_signals(
    signals: AsyncIterator[int], stop: Stop, shutdown: Shutdown, control: SingleControl, notifier: Notifier
) -> None:
    """The first SIGTERM or SIGINT stops, a second one hurries. SIGHUP stops when it means that the terminal is gone."""
    terminal, stopping, begin = Terminal(), False, partial(stop.request, spread=shutdown.spread)
    async with trio.open_nursery() as nursery:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP and not terminal.is_gone():
                logger.warning("%s: the configuration can't be read again while the daemon runs; restart it", name)
            elif stopping or stop.requested.is_set():
                logger.warning("%s again: requests in flight are given up", name)
                stop.hurry()
            else:
                logger.info("%s: stopping", name)
                stopping = True
                delay = control.drained.begin_to_stop(shutdown.delay) if control.worker is not None else 0.0
                if delay > 0:
                    nursery.start_soon(stop_when_noticed, delay, notifier, stop.requested, begin)
                else:
                    begin()
