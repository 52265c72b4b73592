"""One set of backends, as the configuration says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from wazuh_comms_trio.backends.base import Backends
from wazuh_comms_trio.backends.files import FolderFiles
from wazuh_comms_trio.backends.ndjson import open_engine
from wazuh_comms_trio.backends.sqlite import open_sqlite
from wazuh_comms_trio.backends.sqlite_faults import StateUnusable
from wazuh_comms_trio.backends.state_lock import hold_state
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine_store import StoredQuarantine, open_quarantine_store

__all__ = ["StateUnusable", "open_backends", "open_embedded", "open_quarantine", "quarantine_folder"]


@asynccontextmanager
async def open_backends(config: Config, *, wall_clock: Callable[[], float] = time.time) -> AsyncIterator[Backends]:
    """What ``communications_api.backend`` names. Raises ``StateUnusable`` when it can't be opened as it is. On leaving,
    what was accepted is written."""
    if config.communications_api.backend == "embedded":
        async with open_embedded(config, wall_clock=wall_clock) as backends:
            yield backends
        return
    raise StateUnusable("communications_api.backend: 'wazuh' isn't available in this version; use 'embedded'")


@asynccontextmanager
async def open_embedded(config: Config, *, wall_clock: Callable[[], float] = time.time) -> AsyncIterator[Backends]:
    """Everything in ``embedded.path``, but the folder of files."""
    api = config.communications_api
    folder = api.embedded.path
    with hold_state(folder):
        async with (
            open_sqlite(folder, wall_clock=wall_clock) as sqlite,
            open_engine(folder / "events", api.embedded.events, wall_clock=wall_clock) as engine,
        ):
            yield Backends(
                agents=sqlite.agents,
                events=sqlite.events,
                commands=sqlite.commands,
                engine=engine,
                files=FolderFiles(api.files.path),
            )


def quarantine_folder(config: Config) -> Path:
    api = config.communications_api
    return api.quarantine.path or api.embedded.path / "quarantine"


@asynccontextmanager
async def open_quarantine(
    config: Config, *, wall_clock: Callable[[], float] = time.time
) -> AsyncIterator[StoredQuarantine]:
    """The quarantine, whatever the backend. Raises ``StateUnusable``."""
    limit = config.communications_api.quarantine.max_bytes
    async with open_quarantine_store(quarantine_folder(config), max_bytes=limit, wall_clock=wall_clock) as quarantine:
        yield quarantine
