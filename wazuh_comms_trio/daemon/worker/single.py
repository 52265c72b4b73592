"""One worker in this process: real sockets, stores, clocks, threads and signals around its tree."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.factory import open_backends, open_quarantine
from wazuh_comms_trio.config.models import CommunicationsApi, Config
from wazuh_comms_trio.daemon.command_socket import Auditor
from wazuh_comms_trio.daemon.listeners import ListenAddresses, announce, check_file_limit, open_listeners
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.systemd import Notifier, keep_notified
from wazuh_comms_trio.daemon.terminal import Terminal
from wazuh_comms_trio.daemon.worker.environment import load_keys, start_worker
from wazuh_comms_trio.daemon.worker.garbage_collector import calm_collector
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.daemon.worker.tree import Stop
from wazuh_comms_trio.foundation.log_context import WORKER

__all__ = ["serve"]

logger = logging.getLogger(__name__)

#: After the grace period: draining, closing stores, and leaving; for the service manager. Seconds.
STOP_MARGIN: Final = 8.0
NO_RELOAD: Final = (
    "one worker runs without a supervisor, which a reload needs: restart the daemon; with `workers` at 2 or more it can"
    " be reloaded from then on"
)


async def serve(
    config: Config, *, ready: Callable[[ListenAddresses], None] | None = None, stop: Stop | None = None
) -> None:
    """Serves until ``stop`` or a signal. Raises ``StartError``, or a backend's error, when it can't start."""
    WORKER.set("1")
    settings = config.communications_api
    stop = Stop() if stop is None else stop
    notifier = Notifier()
    control = SingleControl(settings)
    last_error = LastError(mask)
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        last_error.attached(),
    ):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        check_file_limit()
        if settings.workers > 1:
            logger.info("one worker runs (workers is %d)", settings.workers)
        keys, context = load_keys(settings)
        async with (
            open_listeners(settings) as (listeners, addresses),
            open_backends(config, tolerant=True, token_key=keys.kid) as backends,
            open_quarantine(config, tolerant=True) as quarantine,
            trio.open_nursery() as beside,
        ):
            beside.start_soon(handle_signals, signals, stop, settings.shutdown.spread)
            beside.start_soon(_tell_stopping, notifier, stop, settings.shutdown.grace)
            async with trio.open_nursery() as nursery:
                worker = await start_worker(
                    nursery, config, listeners, backends, quarantine, keys, context, stop, control=control
                )
                control.heartbeat = heartbeat = Heartbeat(worker, last_error, wall_clock=time.time)
                beside.start_soon(heartbeat.run)
                announce(addresses)
                notifier.ready(_status_line(heartbeat))
                beside.start_soon(keep_notified, notifier, partial(_status_line, heartbeat))
                if ready is not None:
                    ready(addresses)
                calm_collector()
            beside.cancel_scope.cancel()
    logger.info("stopped")


class SingleControl:
    """``Control`` of one worker that runs alone."""

    def __init__(self, settings: CommunicationsApi) -> None:
        self._started = time.time()
        self.note = Auditor(lambda: settings).note
        #: Once the worker runs.
        self.heartbeat: Heartbeat | None = None

    def status(self) -> dict[str, Any]:
        report = {"pid": os.getpid()} if self.heartbeat is None else self.heartbeat.report()
        worker = {
            "name": "1",
            "generation": 1,
            "state": "starting" if self.heartbeat is None else "serving",
            "heard": 0.0,
        }
        return {
            "started": self._started,
            "generation": 1,
            "configured_workers": 1,
            "reload": False,
            "workers": [worker | report],
        }

    async def reload(self) -> dict[str, Any]:
        return {"reloaded": False, "problems": [NO_RELOAD], "warnings": [], "needs_restart": []}


def _status_line(heartbeat: Heartbeat) -> str:
    return f"one worker serves; {heartbeat.report()['parked']} agents parked"


async def _tell_stopping(notifier: Notifier, stop: Stop, grace: float) -> None:
    await stop.requested.wait()
    notifier.stopping()
    notifier.extend_timeout(grace + stop.spread + STOP_MARGIN)


async def handle_signals(signals: AsyncIterator[int], stop: Stop, spread: float) -> None:
    """The first SIGTERM or SIGINT stops, a second one hurries. SIGHUP stops when it means that the terminal is gone."""
    terminal = Terminal()
    async for number in signals:
        name = signal.Signals(number).name
        if number == signal.SIGHUP and not terminal.is_gone():
            logger.warning("%s: the configuration can't be read again while the daemon runs; restart it", name)
        elif stop.requested.is_set():
            logger.warning("%s again: requests in flight are given up", name)
            stop.hurry()
        else:
            logger.info("%s: stopping", name)
            stop.request(spread=spread)
