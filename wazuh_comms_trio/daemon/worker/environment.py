"""A worker in the world: the real clock, chance and threads, and the keys that its configuration names."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import TypeVar

import trio

from wazuh_comms_trio.api.command_socket import Control
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.config.models import CommunicationsApi, Config
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.daemon.exit_status import BadConfiguration
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.worker.tree import Stop, Worker, run_worker
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.quarantine.interface import Quarantine
from wazuh_comms_trio.services.authentication.tokens import TokenKeyError, TokenKeys
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers

__all__ = ["load_keys", "start_worker"]

T = TypeVar("T")


async def start_worker(
    nursery: trio.Nursery,
    config: Config,
    listeners: Listeners,
    backends: Backends,
    quarantine: Quarantine,
    keys: TokenKeys,
    ssl_context: ssl.SSLContext,
    stop: Stop,
    *,
    other_workers: OtherWorkers = NO_OTHER_WORKERS,
    control: Control | None = None,
) -> Worker:
    """``run_worker`` in ``nursery``; returns when every listener accepts."""
    worker: Worker = await nursery.start(
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
            ssl_context=ssl_context,
            stop=stop,
            other_workers=other_workers,
            control=control,
        )
    )
    return worker


def thread_runner() -> RunBlocking:
    """Runs blocking work in threads, as many at once as there are cores: it is hashing, which releases the GIL and uses
    a core each.
    """
    limiter = trio.CapacityLimiter(max(1, len(os.sched_getaffinity(0))))

    async def run(fn: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(fn, *args, limiter=limiter)

    return run


def load_keys(settings: CommunicationsApi, *, earlier: Iterable[bytes] = ()) -> tuple[TokenKeys, ssl.SSLContext]:
    """The key that signs tokens, and TLS; ``earlier``: public keys that signed them before. Blocks, before anything
    runs. Raises ``BadConfiguration``."""
    key_file, password = settings.token.private_key, None
    if key_file is None:
        key_file, password = settings.ssl.key, settings.ssl.keyfile_password
    try:
        keys = TokenKeys.from_pem(key_file.read_bytes(), password, earlier=earlier)
    except OSError as error:
        raise BadConfiguration(f"{key_file} can't be read: {error.strerror}") from error
    except TokenKeyError as error:
        raise BadConfiguration(f"{key_file}: {error}") from error
    try:
        return keys, server_context(settings.ssl)
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"communications_api.ssl can't be used: {error}") from error
