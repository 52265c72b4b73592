"""The daemon as a process: one worker in it, or a supervisor of several."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial

import trio
from attrs import evolve

from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.exit_status import EXIT_BAD_CONFIGURATION, EXIT_FAILED, EXIT_OK, report_failure
from wazuh_comms_trio.daemon.listeners import ListenAddresses
from wazuh_comms_trio.daemon.logging.formats import LogFileUnusable, set_up_logs
from wazuh_comms_trio.daemon.restore_wait import wait_for_restore

__all__ = ["ListenAddresses", "run_daemon"]

logger = logging.getLogger(__name__)


def run_daemon(
    config: Config,
    *,
    warnings: Sequence[str] = (),
    ready: Callable[[ListenAddresses], None] | None = None,
    loaded: LoadedConfig | None = None,
) -> int:
    """Runs the daemon in the foreground until SIGTERM or Ctrl-C. Returns its exit status: 0; 1 when it couldn't start
    or failed, and the log says why; 78 when the configuration can't be used. ``warnings`` are the configuration's, for
    the log; ``ready`` is called once it serves. Several workers need ``loaded``, what ``config`` was read from: each
    reads the same text. The process is to end with it: from then on it takes no more signals.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    # A reload that is asked for before the daemon listens to that waits until it does.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        return _run(config, warnings, ready, loaded)
    finally:
        # A second one may come while the interpreter ends; the exit status is to say how the daemon did.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _leave(*_: object) -> None:
    """Handles a signal before the daemon does, or after its end: there is nothing that could be lost."""
    os._exit(EXIT_OK)


def _run(
    config: Config,
    warnings: Sequence[str],
    ready: Callable[[ListenAddresses], None] | None,
    loaded: LoadedConfig | None,
) -> int:
    try:
        set_up_logs(config.communications_api.logging)
    except LogFileUnusable as error:
        set_up_logs(evolve(config.communications_api.logging, file=None))
        logger.critical("%s", error)
        return EXIT_FAILED if error.may_pass else EXIT_BAD_CONFIGURATION
    for warning in warnings:
        logger.warning("%s", warning)
    wait_for_restore(config)
    try:
        # Each brings what it needs and no more: importing is most of the time that starting takes.
        if loaded is not None and config.communications_api.workers > 1:
            from wazuh_comms_trio.daemon.supervisor.supervisor import supervise

            trio.run(partial(supervise, loaded, ready=ready))
        else:
            from wazuh_comms_trio.daemon.worker.single import serve

            if config.communications_api.operators is not None:
                from wazuh_comms_trio.daemon.supervisor.operators import keep_operators

                serve = partial(serve, keep_operators=keep_operators)
            trio.run(partial(serve, config, ready=ready))
    except Exception as error:
        return report_failure(error)
    return EXIT_OK
