"""The quarantine where the configuration says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from wazuh_comms_trio.backends.embedded.database.file_watch import MadeMark
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.schema import QUARANTINE
from wazuh_comms_trio.quarantine.store import StoredQuarantine, open_quarantine_store

__all__ = ["made_marks", "open_quarantine", "quarantine_folder", "quarantine_mark"]


def quarantine_folder(config: Config) -> Path:
    api = config.communications_api
    return api.quarantine.path or api.embedded.path / "quarantine"


def quarantine_mark(config: Config) -> MadeMark:
    """Where it is noted that there is a quarantine: in the state's folder, which outlives the quarantine's."""
    return MadeMark(config.communications_api.embedded.path, quarantine_folder(config) / QUARANTINE.name)


def made_marks(config: Config) -> dict[str, MadeMark]:
    """The marks of all databases that a node keeps, by their names."""
    api = config.communications_api
    marks = {QUARANTINE.name: quarantine_mark(config)}
    if api.backend == "embedded":
        marks["state.db"] = MadeMark(api.embedded.path, api.embedded.path / "state.db")
    return marks


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
        made=quarantine_mark(config),
    ) as quarantine:
        yield quarantine
