"""The quarantine where the configuration says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.store import StoredQuarantine, open_quarantine_store

__all__ = ["open_quarantine", "quarantine_folder"]


def quarantine_folder(config: Config) -> Path:
    api = config.communications_api
    return api.quarantine.path or api.embedded.path / "quarantine"


@asynccontextmanager
async def open_quarantine(
    config: Config, *, wall_clock: Callable[[], float] = time.time, tolerant: bool = False
) -> AsyncIterator[StoredQuarantine]:
    """Opens the quarantine, whatever the backend. Raises ``StateUnusable``; ``tolerant`` as ``open_backends``."""
    async with open_quarantine_store(
        quarantine_folder(config),
        max_bytes=config.communications_api.quarantine.max_bytes,
        wall_clock=wall_clock,
        tolerant=tolerant,
    ) as quarantine:
        yield quarantine
