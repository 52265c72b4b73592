"""What a worker says of itself in metrics beside what it counts: read when somebody asks, or looked at now and then
where looking costs something."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from attrs import define, field, frozen

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.backends.local_node import NODE_KINDS, LocalNode
from wazuh_comms_trio.daemon.worker.early_warnings import KINDS, SHARE, ListValidity, Measures, find_warnings
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import WallClock
from wazuh_comms_trio.foundation.file_writes import tally
from wazuh_comms_trio.foundation.outage_log import WarningLog
from wazuh_comms_trio.foundation.resources import (
    descriptor_limit,
    left_out_without_threads,
    memory_limit,
    resident_bytes,
)
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Reading
from wazuh_comms_trio.quarantine.interface import Quarantine

__all__ = ["WorkerGauges"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at what costs something.
INTERVAL: Final = 30.0


@define(eq=False)
class WorkerGauges:
    """Gauges of the worker's process and stores. ``certificate_end`` in epoch seconds."""

    backends: Backends
    quarantine: Quarantine
    heartbeat: Heartbeat
    certificate_end: float | None = None
    #: What is written to, whose disks are looked at.
    folders: Collection[Path] = ()
    #: What became of the databases that are kept here, by name: a sentence when one is gone as a whole. They block.
    losses: Mapping[str, Callable[[], str | None]] = field(factory=dict)
    workers: int = 1
    node: LocalNode | None = None
    revoked: ListValidity | None = None
    wall_clock: WallClock = time.time
    _log: WarningLog = field(init=False, factory=lambda: WarningLog(logger))
    _seen: list[Reading] = field(init=False, factory=list)

    def read(self) -> Iterator[Reading]:
        """Reads the gauges. Doesn't block."""
        yield families.LOOP_LAG, (), self.heartbeat.lag
        yield families.TASKS, (), trio.lowlevel.current_statistics().tasks_living
        yield families.SYNCS, (), tally.syncs
        yield families.AGENTS_SHARED, (), float(self.backends.presence.keeps_news)
        if self.certificate_end is not None:
            yield families.CERTIFICATE_END, (), self.certificate_end
        if self.node is not None:
            for kind in NODE_KINDS:
                yield families.WARNINGS, (kind,), float(bool(self.node.warnings.get(kind)))
        yield from self._seen

    async def run(self) -> None:
        """Looks now and then, until cancelled."""
        while True:
            with left_out_without_threads():
                await self.look()
            await sleep_until_next_tick(INTERVAL)

    async def look(self) -> None:
        """Looks at what costs something, and at what follows from it."""
        process = await trio.to_thread.run_sync(_look_at_process)
        disks = await trio.to_thread.run_sync(_look_at_disks, self.folders)
        losses = await trio.to_thread.run_sync(_look_at_losses, self.losses)
        stores: dict[str, tuple[float, float]] = {}
        seen: list[Reading] = []
        with suppress(BackendUnavailable):
            usage = await self.quarantine.usage()
            stores["quarantine"] = (usage.bytes, usage.max_bytes)
            seen.append((families.QUARANTINE_ENTRIES, (), usage.entries))
        # Only a store with a limit of its own can say.
        if (usage_of_events := getattr(self.backends.engine, "usage", None)) is not None:
            with suppress(BackendUnavailable):
                stores["events"] = await usage_of_events()
        shares: dict[str, tuple[float, float]] = {}
        if (usage_of_documents := getattr(self.backends.events, "usage", None)) is not None:
            with suppress(BackendUnavailable):
                used_and_limit = await usage_of_documents()
                if used_and_limit[1]:
                    stores["documents"] = used_and_limit
                    near = await self.backends.events.near_share(SHARE)  # type: ignore[attr-defined]  # of the same store
                    shares = {each.agent_id: (each.used, each.share) for each in near}
        for name, (used, limit) in stores.items():
            seen += [(families.STORE_USED, (name,), used), (families.STORE_LIMIT, (name,), limit)]
        files = None if process.files_limit is None else (process.open_files, process.files_limit)
        memory = (process.resident, memory_limit() // self.workers)
        measures = Measures(stores, shares, disks, files, memory, self.certificate_end, losses, self.revoked)
        found = find_warnings(measures, self.wall_clock())
        self._log.tell(found)
        self.heartbeat.warnings = [sentence for sentences in found.values() for sentence in sentences]
        seen += [(families.WARNINGS, (kind,), float(kind in found)) for kind in KINDS]
        seen += [(families.RESIDENT, (), process.resident), (families.OPEN_FILES, (), process.open_files)]
        if process.files_limit is not None:
            seen.append((families.MAX_FILES, (), process.files_limit))
        self._seen = seen


@frozen
class _Process:
    resident: int
    open_files: int
    files_limit: int | None


def _look_at_process() -> _Process:
    """Looks at the process. Blocks."""
    try:
        open_files = len(os.listdir("/proc/self/fd"))
    except OSError:
        open_files = 0
    return _Process(resident_bytes(), open_files, descriptor_limit())


def _look_at_losses(losses: Mapping[str, Callable[[], str | None]]) -> dict[str, str]:
    """What was lost, by name. Blocks."""
    return {name: loss for name, look in losses.items() if (loss := look()) is not None}


def _look_at_disks(folders: Collection[Path]) -> dict[str, tuple[float, float]]:
    """The free and all bytes of each folder's disk. Blocks."""
    found = {}
    for folder in folders:
        with suppress(OSError):
            disk = os.statvfs(folder)
            found[str(folder)] = (float(disk.f_bavail * disk.f_frsize), float(disk.f_blocks * disk.f_frsize))
    return found
