"""Embedded registry, state index and command store: one SQLite file."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import frozen

from wazuh_comms_trio.backends.folders import make_folder
from wazuh_comms_trio.backends.owners import hold_owner
from wazuh_comms_trio.backends.sqlite_agents import SqliteAgents
from wazuh_comms_trio.backends.sqlite_commands import SqliteCommands
from wazuh_comms_trio.backends.sqlite_connection import Database, open_database
from wazuh_comms_trio.backends.sqlite_documents import SqliteEvents
from wazuh_comms_trio.backends.sqlite_state import STATE


@frozen
class SqliteStores:
    agents: SqliteAgents
    events: SqliteEvents
    commands: SqliteCommands
    database: Database


@asynccontextmanager
async def open_sqlite(folder: Path, *, wall_clock: Callable[[], float] = time.time) -> AsyncIterator[SqliteStores]:
    """The stores in ``folder``, which is made if it isn't there. Raises ``StateUnusable``. What was accepted is written
    before this ends."""
    make_folder(folder)
    with hold_owner(folder / "owners") as owner:
        async with open_database(folder / "state.db", STATE) as database:
            yield SqliteStores(
                SqliteAgents(database),
                SqliteEvents(database, wall_clock),
                SqliteCommands(database, owner, wall_clock),
                database,
            )
