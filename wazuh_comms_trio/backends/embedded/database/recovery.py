"""Opens a database file again after a fault, as soon as that can be done.

A file that was damaged, replaced or taken away isn't written to any more (no promise would hold). Its connections are
closed, and opened again when it is well.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from wazuh_comms_trio.backends.embedded.database.connections import Connections
from wazuh_comms_trio.backends.embedded.database.faults import fault_of
from wazuh_comms_trio.backends.embedded.database.file_watch import FileWatch
from wazuh_comms_trio.backends.embedded.database.health import Health
from wazuh_comms_trio.backends.unavailable import StateUnusable

#: Seconds between looks at a file that can't be used.
RETRY_INTERVAL: Final = 0.25


async def run_recovery(connections: Connections, watch: FileWatch, health: Health) -> None:
    """Opens the file again whenever it has become unusable. Never ends."""
    while True:
        await health.wait_unusable()
        await connections.close()
        failed_look: object = None
        while True:
            untouched = watch.look() == failed_look
            if not (health.damaged and untouched):
                if await _reopen(connections, watch, health):
                    break
                failed_look = watch.look()
            await trio.sleep(RETRY_INTERVAL)
        health.mark_usable()


async def _reopen(connections: Connections, watch: FileWatch, health: Health) -> bool:
    """Whether the file is open again; else the log was told why not."""
    try:
        watch.set_log_aside()
        with trio.CancelScope(shield=True):  # bounded by the busy timeouts, as the first opening
            await connections.open()
    except Exception as exc:
        fault = fault_of(exc)
        if fault is not None:
            health.report(fault)
        elif isinstance(exc, StateUnusable):
            health.outage.failed(exc, kind="another database stands in its place", level=logging.ERROR)
        elif not isinstance(exc, OSError):
            raise
        return False
    return True
