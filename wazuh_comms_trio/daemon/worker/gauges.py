"""What a worker says of itself in metrics beside what it counts: read when somebody asks, or looked at now and then
where looking costs something."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.file_writes import tally
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Reading
from wazuh_comms_trio.quarantine.interface import Quarantine

__all__ = ["WorkerGauges"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at what costs something.
INTERVAL: Final = 30.0
_PAGE: Final = resource.getpagesize()


@define(eq=False)
class WorkerGauges:
    """Of the worker's process and stores. ``certificate_end`` in epoch seconds."""

    backends: Backends
    quarantine: Quarantine
    heartbeat: Heartbeat
    certificate_end: float | None = None
    _seen: list[Reading] = field(init=False, factory=list)

    def read(self) -> Iterator[Reading]:
        """Doesn't block."""
        yield families.LOOP_LAG, (), self.heartbeat.lag
        yield families.TASKS, (), trio.lowlevel.current_statistics().tasks_living
        yield families.SYNCS, (), tally.syncs
        if self.certificate_end is not None:
            yield families.CERTIFICATE_END, (), self.certificate_end
        yield from self._seen

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._seen = await self._look()
            await sleep_until_next_tick(INTERVAL)

    async def _look(self) -> list[Reading]:
        seen: list[Reading] = await trio.to_thread.run_sync(_look_at_process)
        with suppress(BackendUnavailable):
            usage = await self.quarantine.usage()
            seen += [
                (families.STORE_USED, ("quarantine",), usage.bytes),
                (families.STORE_LIMIT, ("quarantine",), usage.max_bytes),
                (families.QUARANTINE_ENTRIES, (), usage.entries),
            ]
        # Only a store with a limit of its own can say.
        if (usage_of_events := getattr(self.backends.engine, "usage", None)) is not None:
            with suppress(BackendUnavailable):
                used, limit = await usage_of_events()
                seen += [(families.STORE_USED, ("events",), used), (families.STORE_LIMIT, ("events",), limit)]
        return seen


def _look_at_process() -> list[Reading]:
    """Blocks."""
    seen: list[Reading] = []
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((families.RESIDENT, (), pages * _PAGE))
        seen.append((families.OPEN_FILES, (), len(os.listdir("/proc/self/fd"))))
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY:
            seen.append((families.MAX_FILES, (), limit))
    return seen
