"""What a worker is given by the program around it. By default that is the real world: its clock, chance and threads."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import TypeVar

import trio
from attrs import field, frozen

from wazuh_comms_trio.api.command_socket import Control
from wazuh_comms_trio.config.check import (
    FileProblem,
    end_of_list,
    lists_of_keys,
    read_certificates,
    read_crls,
    read_next_key,
    read_public_key,
    signing_key,
)
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.daemon.exit_status import BadConfiguration
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.worker.early_warnings import ListValidity
from wazuh_comms_trio.foundation.environment import RunBlocking, WallClock
from wazuh_comms_trio.services import ServiceEnvironment
from wazuh_comms_trio.services.authentication.tokens import TokenKeyError, TokenKeys, key_id

__all__ = ["WorkerEnvironment", "certificate_end", "forget_earlier_keys", "load_keys", "own_runner", "revocation_list"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def thread_runner() -> RunBlocking:
    """Runs blocking work in threads, as many at once as there are cores: it is hashing, which releases the GIL and uses
    a core each.
    """
    limiter = trio.CapacityLimiter(max(1, len(os.sched_getaffinity(0))))

    async def run(fn: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(fn, *args, limiter=limiter)

    return run


def own_runner() -> RunBlocking:
    """Runs what a worker does for itself, and no request waits for, in a thread: it takes none of those that requests
    have. Cancelled: what has begun goes on by itself, and the worker's end doesn't wait for it."""
    limiter = trio.CapacityLimiter(1)

    async def run(fn: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(fn, *args, abandon_on_cancel=True, limiter=limiter)

    return run


@frozen(kw_only=True)
class WorkerEnvironment(ServiceEnvironment):
    """Everything that a worker is given. The worker closes ``listeners``. ``control`` is for the command socket, where
    the worker serves that. ``memory_short``: whether this process has about all the memory that it may have."""

    listeners: Listeners
    ssl_context: ssl.SSLContext
    control: Control | None = None
    wall_clock: WallClock = time.time
    rng: Random = field(factory=Random)
    run_blocking: RunBlocking = field(factory=thread_runner)
    memory_short: Callable[[], bool] = lambda: False


def certificate_end(settings: CommunicationsApi) -> float | None:
    """When the first of the listeners' certificates ends, in epoch seconds; None where that can't be read. Blocks."""
    try:
        return min(certificate.not_valid_after_utc.timestamp() for certificate in read_certificates(settings.ssl.cert))
    except (FileProblem, ValueError):
        return None


def revocation_list(settings: CommunicationsApi) -> ListValidity | None:
    """When the list of revoked certificates that ends first was made and ends, of the lists of a CA's key the one
    that ends last; None where there is none, it has no end, or it can't be read. Blocks."""
    if settings.ssl.crl is None or settings.ssl.ca is None or not settings.ssl.use_ca:
        return None
    try:
        own = lists_of_keys(read_certificates(settings.ssl.ca), read_crls(settings.ssl.crl))
    except FileProblem:
        return None
    last = [max(of_one, key=end_of_list) for of_one in own]
    first = min(last, key=end_of_list, default=None)
    if first is None or first.next_update_utc is None:
        return None
    return ListValidity(first.last_update_utc.timestamp(), first.next_update_utc.timestamp())


def load_keys(settings: CommunicationsApi, *, earlier: Iterable[bytes] = ()) -> tuple[TokenKeys, ssl.SSLContext]:
    """Loads the key that signs tokens, and TLS; ``earlier``: public keys that signed them lately. Blocks, before
    anything runs. Raises ``BadConfiguration``."""
    key_file, password = signing_key(settings)
    try:
        others = [read_public_key(file) for file in settings.token.verify_keys]
        if (following := read_next_key(settings.token)) is not None:
            others.append(following[1])
        remembered = filter(_can_be_used, earlier)
        keys = TokenKeys.from_pem(key_file.read_bytes(), password, others=others, earlier=remembered)
    except OSError as error:
        raise BadConfiguration(f"{key_file} can't be read: {error.strerror}") from error
    except (TokenKeyError, FileProblem) as error:
        raise BadConfiguration(f"{key_file}: {error}") from error
    try:
        return keys, server_context(settings.ssl)
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"communications_api.ssl can't be used: {error}") from error


def _can_be_used(pem: bytes) -> bool:
    try:
        return bool(key_id(pem))
    except TokenKeyError as error:
        logger.warning("a key that signed before isn't trusted: %s", error)
        return False


async def forget_earlier_keys(keys: TokenKeys, lifetimes: Mapping[str, float]) -> None:
    """Forgets earlier keys when their tokens have expired; ``lifetimes``: seconds by public key (PEM). A stolen earlier
    key isn't to be of use for ever."""
    began = trio.current_time()
    for pem, seconds in sorted(lifetimes.items(), key=lambda entry: entry[1]):
        await trio.sleep_until(began + seconds)
        with suppress(TokenKeyError):  # it was never trusted
            keys.forget_earlier(key_id(pem.encode()))
