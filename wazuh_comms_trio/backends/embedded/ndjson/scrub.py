"""The daemon reads its segments through when it starts, and once a day, and tells the log what acknowledged events can
no longer be read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage, find_damage
from wazuh_comms_trio.backends.embedded.ndjson.ledger import LEDGER, NO_LEDGER, is_something_else
from wazuh_comms_trio.foundation.folders import adopt, try_lock
from wazuh_comms_trio.foundation.resources import left_out_without_threads

logger = logging.getLogger(__name__)

#: Seconds from one reading's end to the next one's beginning.
INTERVAL: Final = 86_400.0

#: Bytes a second at most, so that disk and interpreter have room for what agents send.
_RATE: Final = 16 * 1024 * 1024

LOCK: Final = ".segments-read"


async def tell_damage(folder: Path) -> None:
    """Reads the segments through at the start and once a day, and logs the damage. Never ends. One process
    of a node reads; a damage is logged once as long as it stays the same. Cancelled, a file that is being read is left
    between two of its neighbours."""
    told: dict[str, Damage] = {}
    while True:
        stop: list[bool] = []
        try:
            with left_out_without_threads():
                await trio.to_thread.run_sync(partial(_read_through, folder, told, stop), abandon_on_cancel=True)
        except OSError as exc:
            logger.warning("events: %s can't be read through: %s", folder, exc)
        finally:
            stop.append(True)
        await trio.sleep(INTERVAL)


def _read_through(folder: Path, told: dict[str, Damage], stop: list[bool]) -> None:
    """Reads all segments through, in a thread."""

    def pause(size: int) -> None:
        left = size / _RATE
        while left > 0 and not stop:
            time.sleep(min(left, 0.1))
            left -= 0.1

    with _alone(folder) as alone:
        if not alone:
            return
        if is_something_else(folder):
            logger.error("events: %s/%s: %s", folder, LEDGER, NO_LEDGER)
        for damage in find_damage(folder, pause=pause):
            if stop:
                return
            if told.get(damage.file) != damage:
                told[damage.file] = damage
                logger.error("events: %s/%s", folder, damage)


def was_read_through(folder: Path) -> bool:
    """Whether a daemon has ever run on these events."""
    return (folder / LOCK).exists()


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        adopt(descriptor, folder)
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)
