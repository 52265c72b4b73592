"""The daemon as a process: real sockets, stores, clocks, threads and signals around one worker's tree."""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, TypeVar

import trio
from attrs import frozen

from wazuh_comms_trio.api.tls import server_context
from wazuh_comms_trio.backends.factory import open_backends, open_quarantine
from wazuh_comms_trio.config.models import CommunicationsApi, Config
from wazuh_comms_trio.daemon.logs import set_up_logs
from wazuh_comms_trio.daemon.sockets import (
    StartError,
    format_address,
    open_command_listener,
    open_tcp_listeners,
    raise_file_limit,
)
from wazuh_comms_trio.daemon.worker import Listeners, Stop, run_worker
from wazuh_comms_trio.errors import WazuhException
from wazuh_comms_trio.services.seams import RunBlocking
from wazuh_comms_trio.services.tokens import TokenKeyError, TokenKeys

__all__ = ["Ready", "run_daemon", "serve"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_CONFIGURATION: Final = 78

#: Files that aren't connections: the stores', logs, the event loop's.
FILES_WITHOUT_AGENTS: Final = 128
#: Room for fewer agents at once is worth a warning.
FEW_AGENTS: Final = 4096


class BadConfiguration(StartError):
    """What only shows when it is used: exit status 78."""


@frozen
class Ready:
    """Where the daemon listens, once it does. Ports are the real ones, also where the configuration says 0."""

    api: Sequence[tuple[str, int]]
    enrollment: Sequence[tuple[str, int]]
    command_socket: Path


def run_daemon(config: Config, *, warnings: Sequence[str] = (), ready: Callable[[Ready], None] | None = None) -> int:
    """Runs the daemon in the foreground until SIGTERM or Ctrl-C. Returns its exit status: 0; 1 when it couldn't start
    or failed, and the log says why; 78 when the configuration can't be used. ``warnings`` are the configuration's, for
    the log; ``ready`` is called once it serves.
    """
    set_up_logs(config.communications_api.logging)
    for warning in warnings:
        logger.warning("%s", warning)
    try:
        trio.run(partial(serve, config, ready=ready))
    except KeyboardInterrupt:
        pass  # before or after the signals were ours: nothing is served then
    except Exception as error:
        return report_failure(error)
    return EXIT_OK


def report_failure(error: Exception) -> int:
    """Logs why the daemon ends, a line a reason, and returns the exit status. What has a name needs no traceback."""
    reasons = list(leaves(error))
    for reason in reasons:
        if isinstance(reason, StartError):
            logger.critical("%s", reason)
        elif isinstance(reason, WazuhException):
            logger.critical("%s", reason.message)
        else:
            logger.critical("the daemon failed: %r", reason, exc_info=reason)
    if any(isinstance(reason, BadConfiguration) for reason in reasons):
        return EXIT_BAD_CONFIGURATION
    return EXIT_FAILED


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


async def serve(config: Config, *, ready: Callable[[Ready], None] | None = None, stop: Stop | None = None) -> None:
    """Serves until ``stop`` or a signal. Raises ``StartError``, or a backend's error, when it can't start."""
    settings = config.communications_api
    stop = Stop() if stop is None else stop
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        check_file_limit()
        if settings.workers > 1:
            logger.info("one worker runs (workers is %d)", settings.workers)
        keys, context = load_keys(settings)
        async with (
            open_listeners(settings) as (listeners, addresses),
            open_backends(config) as backends,
            open_quarantine(config) as quarantine,
            trio.open_nursery() as signalling,
        ):
            signalling.start_soon(obey_signals, signals, stop)
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    partial(
                        run_worker,
                        config,
                        listeners=listeners,
                        backends=backends,
                        quarantine=quarantine,
                        wall_clock=time.time,
                        rng=Random(),
                        run_blocking=thread_runner(),
                        keys=keys,
                        ssl_context=context,
                        stop=stop,
                    )
                )
                announce(addresses)
                if ready is not None:
                    ready(addresses)
            signalling.cancel_scope.cancel()
    logger.info("stopped")


def announce(addresses: Ready) -> None:
    for address in addresses.api:
        logger.info("agents are served on https://%s", format_address(address))
    for address in addresses.enrollment:
        logger.info("agents can join on https://%s", format_address(address))
    logger.info("commands are taken on %s", addresses.command_socket)


async def obey_signals(signals: AsyncIterator[int], stop: Stop) -> None:
    """The first SIGTERM or SIGINT stops, a second one hurries. SIGHUP stops when it means that the terminal is gone."""
    async for number in signals:
        name = signal.Signals(number).name
        if number == signal.SIGHUP and not sys.stdin.isatty():
            logger.warning("%s: the configuration can't be read again while the daemon runs; restart it", name)
        elif stop.requested.is_set():
            logger.warning("%s again: requests in flight are given up", name)
            stop.hurry()
        else:
            logger.info("%s: stopping", name)
            stop.request()


def thread_runner() -> RunBlocking:
    """Runs blocking work in threads, as many at once as there are cores: it is hashing, which releases the GIL and uses
    a core each.
    """
    limiter = trio.CapacityLimiter(max(1, len(os.sched_getaffinity(0))))

    async def run(fn: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(fn, *args, limiter=limiter)

    return run


def load_keys(settings: CommunicationsApi) -> tuple[TokenKeys, ssl.SSLContext]:
    """The key that signs tokens, and TLS. Blocks, before anything runs. Raises ``BadConfiguration``."""
    key_file, password = settings.token.private_key, None
    if key_file is None:
        key_file, password = settings.ssl.key, settings.ssl.keyfile_password
    try:
        keys = TokenKeys.from_pem(key_file.read_bytes(), password)
    except OSError as error:
        raise BadConfiguration(f"{key_file} can't be read: {error.strerror}") from error
    except TokenKeyError as error:
        raise BadConfiguration(f"{key_file}: {error}") from error
    try:
        return keys, server_context(settings.ssl)
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"communications_api.ssl can't be used: {error}") from error


def check_file_limit() -> None:
    limit = raise_file_limit()
    if (agents := max(0, limit - FILES_WITHOUT_AGENTS)) < FEW_AGENTS:
        logger.warning("at most %d files may be open, room for about %d agents at once", limit, agents)


@asynccontextmanager
async def open_listeners(settings: CommunicationsApi) -> AsyncIterator[tuple[Listeners, Ready]]:
    """Everything the daemon listens on. Raises ``StartError``, with nothing left open."""
    async with AsyncExitStack() as stack:

        async def listen(hosts: Sequence[str], port: int, what: str) -> list[trio.SocketListener]:
            opened = await open_tcp_listeners(hosts, port, what)
            for listener in opened:
                stack.push_async_callback(trio.aclose_forcefully, listener)
            return opened

        api = await listen(settings.host, settings.port, "communications_api")
        enrollment: list[trio.SocketListener] = []
        if settings.enrollment is not None:
            enrollment = await listen(settings.enrollment.host, settings.enrollment.port, "enrollment")
        command = await stack.enter_async_context(open_command_listener(settings.command_socket))
        addresses = Ready(
            [listener.socket.getsockname()[:2] for listener in api],
            [listener.socket.getsockname()[:2] for listener in enrollment],
            settings.command_socket,
        )
        yield Listeners(api, [command], enrollment), addresses
