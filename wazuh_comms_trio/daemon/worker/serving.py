"""One worker in this process: stores and quarantine around its tree of tasks, its health nursery it."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import trio

from wazuh_comms_trio.api.command_socket import Control
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.files.group_digests import GroupDigests
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import OWN_KEY_REVOKED, LocalNode
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.command_socket import Auditor
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory, node_folder
from wazuh_comms_trio.daemon.stopping import Stop
from wazuh_comms_trio.daemon.worker.allocator import return_free_memory, return_large_blocks
from wazuh_comms_trio.daemon.worker.early_warnings import ListValidity
from wazuh_comms_trio.daemon.worker.environment import WorkerEnvironment, own_runner
from wazuh_comms_trio.daemon.worker.garbage_collector import calm_collector
from wazuh_comms_trio.daemon.worker.gauges import WorkerGauges
from wazuh_comms_trio.daemon.worker.hashing_threads import hashing_runner
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.daemon.worker.huge_pages import use_huge_pages
from wazuh_comms_trio.daemon.worker.tree import Worker, run_worker
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.foundation.resources import memory_watch
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.quarantine.opening import made_marks, open_quarantine
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, VerifiedKeys
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers

__all__ = ["serve_worker"]

logger = logging.getLogger(__name__)

#: Seconds for which a thread keeps Python's lock at most, while another waits for it. The thread that commits takes it
#: a dozen times in each commit, and with Python's own 5 ms was kept waiting by an event loop that has much to do: a
#: command's commit took twice as long.
SWITCH_INTERVAL: Final = 0.0005


async def serve_worker(
    config: Config,
    listeners: Listeners,
    keys: TokenKeys,
    ssl_context: ssl.SSLContext,
    stop: Stop,
    *,
    on_serving: Callable[[trio.Nursery, Worker, Heartbeat], None],
    background: Iterable[Callable[[], Awaitable[object]]] = (),
    other_workers: OtherWorkers = NO_OTHER_WORKERS,
    leadership: Leadership | None = None,
    control: Control | None = None,
    metrics: Metrics | None = None,
    certificate_end: float | None = None,
    revoked: ListValidity | None = None,
) -> None:
    """Opens the stores and serves until ``stop``, then ends in order. The tasks of ``background`` run once the stores
    are open, until the worker has ended; so does what ``on_serving`` starts in the nursery that it is given, once every
    listener accepts. Raises a backend's error when the worker can't start."""
    metrics = Metrics() if metrics is None else metrics
    api = config.communications_api
    node = LocalNode.of(api.port, str(api.command_socket), keys.kid, lambda: keys.kids)
    node.files = partial(trio.to_thread.run_sync, GroupDigests(api.files.path).read, abandon_on_cancel=True)
    if keys.kid in keys.revoked:
        node.warnings["revoked"] = {"this node": OWN_KEY_REVOKED}
        logger.warning("%s", OWN_KEY_REVOKED)
    last_error = LastError(mask)
    with last_error.attached():
        async with (
            open_backends(config, tolerant=True, node=node, leadership=leadership) as backends,
            open_quarantine(config, tolerant=True) as quarantine,
            BackgroundNursery() as nursery,
        ):
            for task in background:
                nursery.start_soon(task)
            path, secret = node_folder(api) / FILE_NAME, keys.derive(b"proven keys")
            verified_keys = VerifiedKeys(path, secret, written_by_task=True)
            nursery.start_soon(verified_keys.run, own_runner())
            environment = WorkerEnvironment(
                listeners=listeners,
                backends=backends,
                quarantine=quarantine,
                keys=keys,
                ssl_context=ssl_context,
                other_workers=other_workers,
                control=control,
                run_hashing=hashing_runner(),
                memory_short=memory_watch(config.communications_api.workers),
                metrics=metrics,
                verified_keys=verified_keys,
                note_enrolment=Auditor(lambda: config.communications_api).enrolled,
                leadership=Leadership() if leadership is None else leadership,
            )
            async with trio.open_nursery() as serving:
                worker: Worker = await serving.start(partial(run_worker, config, environment, stop))
                heartbeat = Heartbeat(worker, last_error, node)
                node.revoke = partial(_revoke, worker)
                node.keep_revoked = partial(_keep_revoked, KeyMemory(node_folder(api)))
                nursery.start_soon(heartbeat.run)
                folders = {api.embedded.path, api.quarantine.path or api.embedded.path}
                gauges = WorkerGauges(
                    backends,
                    quarantine,
                    heartbeat,
                    certificate_end,
                    folders=folders,
                    losses={name: mark.loss for name, mark in made_marks(config).items()},
                    workers=api.workers,
                    node=node,
                    revoked=revoked,
                )
                metrics.read(gauges.read)
                nursery.start_soon(gauges.run)
                on_serving(nursery, worker, heartbeat)
                calm_collector()
                return_large_blocks()
                sys.setswitchinterval(SWITCH_INTERVAL)
                run_own = own_runner()
                nursery.start_soon(return_free_memory, run_own)
                nursery.start_soon(use_huge_pages, run_own)


def _revoke(worker: Worker, keys: Mapping[str, float]) -> None:
    """Another node's operator revoked these keys: since when, by id."""
    if worker.services.revoke_keys(keys):
        logger.warning("keys were revoked: what they signed isn't good any more: %s", ", ".join(sorted(keys)))


async def _keep_revoked(memory: KeyMemory, keys: Mapping[str, float]) -> None:
    await trio.to_thread.run_sync(partial(memory.revoke, dict(keys), own=False))
