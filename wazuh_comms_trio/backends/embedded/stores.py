"""Embedded registry, state index and command store: one SQLite file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from wazuh_comms_trio.backends.embedded.agents import SqliteAgents
from wazuh_comms_trio.backends.embedded.commands import SqliteCommands
from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
from wazuh_comms_trio.backends.embedded.database.file_watch import MadeMark
from wazuh_comms_trio.backends.embedded.documents import SqliteEvents
from wazuh_comms_trio.backends.embedded.presence import SqlitePresence
from wazuh_comms_trio.backends.embedded.process_locks import hold_process_lock
from wazuh_comms_trio.backends.embedded.pruning import run_pruning
from wazuh_comms_trio.backends.embedded.quota.counting import run_counting
from wazuh_comms_trio.backends.embedded.quota.limits import DocumentQuota
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.config.models import EmbeddedDocuments, Keep
from wazuh_comms_trio.foundation.folders import make_folder
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery


@frozen
class SqliteStores:
    agents: SqliteAgents
    events: SqliteEvents
    commands: SqliteCommands
    database: Database
    presence: SqlitePresence


@asynccontextmanager
async def open_sqlite(
    folder: Path,
    *,
    wall_clock: Callable[[], float] = time.time,
    tolerant: bool = False,
    leadership: Leadership | None = None,
    keep: Keep | None = None,
    documents: EmbeddedDocuments | None = None,
    own_ids: bool = True,
) -> AsyncIterator[SqliteStores]:
    """The stores in ``folder``, which is made if it isn't there. Raises ``StateUnusable``, ``tolerant`` as
    ``open_database``. What was accepted is written before this ends. ``keep``, for a daemon: what is older goes
    meanwhile. ``documents``, for a daemon: how much there may be; ``own_ids``: whether an id says whose document it is.
    """
    with ExitStack() as stack:
        try:
            make_folder(folder)
            process_lock = stack.enter_context(hold_process_lock(folder / "owners"))
        except OSError as exc:
            raise StateUnusable(f"{folder}: the state can't be opened: {exc.strerror}") from exc
        async with (
            open_database(
                folder / STATE.name, STATE, tolerant=tolerant, made=MadeMark(folder, folder / STATE.name)
            ) as database,
            BackgroundNursery() as background,
        ):
            if keep is not None:
                background.start_soon(run_pruning, database, keep, wall_clock, leadership)
            quota = None
            if documents is not None:
                background.start_soon(partial(run_counting, database, wanted=documents.max_bytes > 0), leadership)
                quota = DocumentQuota(documents, own_ids=own_ids) if documents.max_bytes else None
            yield SqliteStores(
                SqliteAgents(database),
                SqliteEvents(database, wall_clock, quota),
                SqliteCommands(database, process_lock, wall_clock, leadership),
                database,
                SqlitePresence(database, wall_clock),
            )
