"""A worker of several, as a process of its own: started by the supervisor with a link and listening descriptors.

    python -m wazuh_comms_trio.daemon.worker_start NAME LINK_DESCRIPTOR

The first message on the link says everything else. Everything is read anew here: code, keys and certificates.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import attrs
import trio
from msgspec import UNSET

from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import Enrollment
from wazuh_comms_trio.daemon.bound_sockets import StartError
from wazuh_comms_trio.daemon.exit_status import EXIT_OK, report_failure
from wazuh_comms_trio.daemon.key_files import key_files_in_memory
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.logging.formats import set_up_logs
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory, node_folder
from wazuh_comms_trio.daemon.stopping import Stop
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.worker.environment import (
    certificate_end,
    forget_earlier_keys,
    load_keys,
    revocation_list,
)
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.daemon.worker.hub_client import HubLeadership, HubOtherWorkers, run_hub_client
from wazuh_comms_trio.daemon.worker.parent_watchdog import ParentWatchdog, wake_when_parent_dies
from wazuh_comms_trio.daemon.worker.serving import serve_worker
from wazuh_comms_trio.daemon.worker.tree import Worker
from wazuh_comms_trio.foundation.log_context import WORKER
from wazuh_comms_trio.foundation.nurseries import exceptions_of
from wazuh_comms_trio.metrics.counting import Metrics

logger = logging.getLogger(__name__)


def main() -> int:
    # Ctrl-C in a terminal reaches the whole group; the supervisor decides what its workers do then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    name, descriptor = sys.argv[1], int(sys.argv[2])
    WORKER.set(name)
    wake_when_parent_dies()
    try:
        trio.run(_run, descriptor)
    except Exception as error:
        return report_failure(error)
    return EXIT_OK


async def _run(descriptor: int) -> None:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
    watchdog = ParentWatchdog()
    watchdog.start(descriptor)
    try:
        first = await link.receive()
    except LinkBroken:
        return  # the supervisor has changed its mind
    try:
        if not isinstance(first, messages.WorkerConfig):
            raise StartError(f"the supervisor's first message isn't a configuration: {first}")
        await _serve(link, first, watchdog)
    except Exception as error:
        reasons = "; ".join(str(getattr(leaf, "message", leaf)) for leaf in exceptions_of(error))
        link.send_nowait(messages.Failed(reason=reasons))
        with trio.move_on_after(1):
            await link.flush()
        raise


async def _serve(link: Link, first: messages.WorkerConfig, watchdog: ParentWatchdog) -> None:
    # The supervisor has checked the files.
    config = load_config(Path(first.file), text=first.text, check_files=False).config
    if first.listeners.enrollment and config.communications_api.enrollment is None:
        # The section went with a reload, but the supervisor listens until it is restarted. No agent may join any more,
        # and each that tries is told so.
        without_users = attrs.evolve(config.communications_api, enrollment=Enrollment())
        config = attrs.evolve(config, communications_api=without_users)
    set_up_logs(config.communications_api.logging)
    watchdog.grace = config.communications_api.shutdown.grace
    with key_files_in_memory(config.communications_api, first.materials) as settings:
        keys, ssl_context = load_keys(settings, earlier=[pem.encode() for pem in first.earlier.public_keys])
        end = certificate_end(settings)
        revoked = revocation_list(settings)
    key_memory = KeyMemory(node_folder(config.communications_api))
    keys.revoke(key_memory.read().revoked)
    metrics = Metrics()
    listeners = Listeners(
        _inherited_listeners(first.listeners.api), (), _inherited_listeners(first.listeners.enrollment)
    )
    stop = Stop()
    other_workers, leadership = HubOtherWorkers(link), HubLeadership(link, hub_knows=first.duty)

    def on_serving(background: trio.Nursery, worker: Worker, heartbeat: Heartbeat) -> None:
        dispatcher, services = worker.services.commands, worker.services
        client = partial(run_hub_client, link, other_workers, leadership, dispatcher, heartbeat, stop, services)
        background.start_soon(client, metrics)
        link.send_nowait(messages.Ready(public_key=keys.public_pem.decode(), pid=os.getpid(), duty=True))

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        await serve_worker(
            config,
            listeners,
            keys,
            ssl_context,
            stop,
            on_serving=on_serving,
            background=[
                link.run,
                partial(_handle_signals, signals, stop, config.communications_api.shutdown.delay),
                partial(forget_earlier_keys, keys, lifetimes(first.earlier)),
            ],
            other_workers=other_workers,
            leadership=leadership,
            metrics=metrics,
            certificate_end=end,
            revoked=revoked,
        )
    # What was counted until the end is kept by the supervisor.
    link.send_nowait(messages.MetricsReport(snapshot=metrics.snapshot()))
    with trio.move_on_after(1):
        await link.flush()


def _inherited_listeners(descriptors: list[int]) -> list[trio.SocketListener]:
    """Listeners on inherited descriptors, which the workers share."""
    listeners = []
    for descriptor in descriptors:
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        sock.setblocking(False)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
    return listeners


def lifetimes(earlier: messages.EarlierKeys) -> dict[str, float]:
    """How many seconds each earlier key still counts, by public key. A supervisor of an earlier version says one time
    for all of them."""
    each = [earlier.seconds] * len(earlier.public_keys) if earlier.lifetimes is UNSET else earlier.lifetimes
    return dict(zip(earlier.public_keys, each, strict=False))


async def _handle_signals(signals: AsyncIterator[int], stop: Stop, delay: float) -> None:
    """Handles signals to the worker: a service manager may signal every process, so that a SIGTERM counts only when the
    supervisor hasn't spoken ``delay`` seconds later. SIGHUP is its own."""
    async for number in signals:
        if number == signal.SIGTERM:
            with trio.move_on_after(delay):
                await stop.requested.wait()
            stop.request()
