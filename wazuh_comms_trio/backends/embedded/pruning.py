"""What would grow for ever in ``state.db`` doesn't: finished commands, documents of removed agents, and, only where the
configuration says so, documents that nobody changed.

Ages are counted by the store's own clock, ``age``: seconds that a daemon was running, and of a time in which none was a
day at most. A wall clock that jumps makes nothing old, and what was there before the store had this clock is new to it.
Rows go in small steps, each a transaction of its own, so that no writer waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import apsw
import trio
from attrs import frozen

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.config.models import Keep
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick

logger = logging.getLogger(__name__)

DAY: Final = 86_400
#: Seconds between two looks.
INTERVAL: Final = 600.0
#: Rows of one transaction, and the pause to the next one: others write meanwhile.
ROWS: Final = 100
PAUSE: Final = 0.05
#: Days after which a note of how far documents were numbered isn't needed for any limit.
_LONGEST: Final = 36_500

_ENDED: Final = "status IN ('success', 'failed')"


@frozen
class Due:
    """How many rows are old enough to go."""

    commands: int = 0
    documents_of_removed_agents: int = 0
    documents: int = 0

    def __bool__(self) -> bool:
        return bool(self.commands or self.documents_of_removed_agents or self.documents)

    def __str__(self) -> str:
        return (
            f"{self.commands} finished commands, {self.documents_of_removed_agents} documents of removed agents, "
            f"{self.documents} documents that nobody changed"
        )


def age_of(connection: apsw.Connection) -> int:
    return _number(connection, "SELECT value FROM counters WHERE name = 'age'")


def _number(connection: apsw.Connection, query: str, values: Any = ()) -> int:
    found = connection.execute(query, values).get
    return found if isinstance(found, int) else 0


def live_through(connection: apsw.Connection, now: float, seconds: float | None) -> None:
    """Moves the store's clock: by ``seconds`` that this process has been there, or (None: at its first look) by what
    the wall clock says has passed since the last look of any, a day at most."""
    if seconds is None:
        before = _number(connection, "SELECT value FROM counters WHERE name = 'age_at'")
        seconds = min(max(0.0, now - before), DAY) if before else 0.0
    connection.execute("UPDATE counters SET value = value + ? WHERE name = 'age'", (round(seconds),))
    connection.execute("UPDATE counters SET value = ? WHERE name = 'age_at'", (round(now),))


def note_ends(connection: apsw.Connection) -> int:
    """Commands that have ended get the age at which that was seen; how many did."""
    query = (
        "UPDATE commands SET ended_age = (SELECT value FROM counters WHERE name = 'age') WHERE no IN"
        f" (SELECT no FROM commands WHERE ended_age IS NULL AND {_ENDED} LIMIT {ROWS})"
    )
    connection.execute(query)
    return connection.changes()


def note_documents(connection: apsw.Connection) -> None:
    """Once a day: up to which number documents were unchanged since then."""
    age = age_of(connection)
    if _number(connection, "SELECT count(*) FROM document_marks WHERE age > ?", (age - DAY,)):
        return
    connection.execute(
        "INSERT OR IGNORE INTO document_marks SELECT value, ? FROM counters WHERE name = 'documents'", (age,)
    )
    connection.execute("DELETE FROM document_marks WHERE age < ?", (age - _LONGEST * DAY,))


_OLD_COMMANDS: Final = f"SELECT no FROM commands WHERE {_ENDED} AND ended_age <= :limit"
_OLD_DOCUMENTS: Final = "SELECT no FROM documents WHERE no <= (SELECT max(no) FROM document_marks WHERE age <= :limit)"
#: A row that a disk has damaged may stand where its id wouldn't be looked for: deleting it would delete nothing.
_GONE: Final = (
    "SELECT CAST(id AS BLOB) FROM removed_agents WHERE age <= :limit AND NOT EXISTS"
    " (SELECT 1 FROM agents WHERE agents.id = removed_agents.id)"
    " AND EXISTS (SELECT 1 FROM removed_agents AS found WHERE found.id = removed_agents.id)"
)
#: Documents of an agent have its uuid (text, or its bytes) and an underscore before their id; a backquote comes after
#: that.
OF_AGENT: Final = (
    "SELECT no FROM documents WHERE index_no = :index"
    " AND id >= CAST(:agent AS TEXT) || '_' AND id < CAST(:agent AS TEXT) || '`' LIMIT :rows"
)


def due(connection: apsw.Connection, keep: Keep) -> Due:
    """How many rows would be deleted now; nothing in the store's first day."""
    age = age_of(connection)
    if age < DAY:
        return Due()

    def count(query: str, days: int) -> int:
        return _number(connection, f"SELECT count(*) FROM ({query})", {"limit": age - days * DAY}) if days else 0

    of_removed = 0
    if keep.removed_agents:
        for (agent_id,) in connection.execute(_GONE, {"limit": age - keep.removed_agents * DAY}):
            for index in _indices(connection):
                values = {"index": index, "agent": agent_id, "rows": -1}
                of_removed += _number(connection, f"SELECT count(*) FROM ({OF_AGENT})", values)
    return Due(count(_OLD_COMMANDS, keep.finished_commands), of_removed, count(_OLD_DOCUMENTS, keep.documents))


def _indices(connection: apsw.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT no FROM indices")]


def prune_commands(connection: apsw.Connection, keep: Keep) -> int:
    """One step of deleting finished commands; how many rows went, 0 at the end. Nothing in the store's first day."""
    return _prune(connection, "commands", _OLD_COMMANDS, keep.finished_commands)


def prune_documents(connection: apsw.Connection, keep: Keep) -> int:
    """One step of deleting documents that nobody changed, as ``prune_commands``."""
    return _prune(connection, "documents", _OLD_DOCUMENTS, keep.documents)


def _prune(connection: apsw.Connection, table: str, old: str, days: int) -> int:
    age = age_of(connection)
    if age < DAY or not days:
        return 0
    connection.execute(f"DELETE FROM {table} WHERE no IN ({old} LIMIT {ROWS})", {"limit": age - days * DAY})
    return connection.changes()


def prune_removed_agents(connection: apsw.Connection, keep: Keep) -> int:
    """One step of deleting removed agents' documents, as ``prune_commands``. Whether the uuid is back is asked in the
    transaction that deletes."""
    age = age_of(connection)
    if age < DAY or not keep.removed_agents:
        return 0
    agent_id = connection.execute(f"{_GONE} LIMIT 1", {"limit": age - keep.removed_agents * DAY}).get
    if agent_id is None:
        return 0
    for index in _indices(connection):
        values = {"index": index, "agent": agent_id, "rows": ROWS}
        connection.execute(f"DELETE FROM documents WHERE no IN ({OF_AGENT})", values)
        if connection.changes():
            return connection.changes()
    connection.execute("DELETE FROM removed_agents WHERE id = CAST(? AS TEXT)", (agent_id,))
    return 1  # the next agent's turn


async def prune(database: Database, keep: Keep) -> Due:
    """Deletes what is due, step by step; what went. Raises ``BackendUnavailable``."""
    gone = await database.read(lambda connection: due(connection, keep))
    if gone:
        for step in (prune_commands, prune_removed_agents, prune_documents):
            await _in_steps(database, lambda connection, step=step: step(connection, keep))  # type: ignore[misc]
    return gone


async def _in_steps(database: Database, step: Callable[[apsw.Connection], int]) -> None:
    while await database.write(step, durable=False):  # noqa: ASYNC110  # a pause for others, no waiting
        await trio.sleep(PAUSE)


async def run_pruning(
    database: Database, keep: Keep, wall_clock: Callable[[], float], leadership: Leadership | None
) -> None:
    """Prunes now and then; one process of a node does. Never ends. What fails is tried again at the next
    look."""
    looked: float | None = None
    while True:
        if leadership is not None:
            if not leadership.is_leader:
                looked = None
            await leadership.wait_until_leader()
        now = trio.current_time()
        lived = None if looked is None else now - looked
        try:
            await database.write(lambda connection: live_through(connection, wall_clock(), lived), durable=False)  # noqa: B023
            await _in_steps(database, note_ends)
            await database.write(note_documents, durable=False)
            if looked is None:
                await _announce(database, keep)
            looked = now
            gone = await prune(database, keep)
            if gone:
                logger.info("pruning: deleted %s", gone)
        except BackendUnavailable as exc:
            logger.debug("pruning: not now: %s", exc.message)
        await sleep_until_next_tick(INTERVAL)


async def _announce(database: Database, keep: Keep) -> None:
    """Logs, in the store's first day, what will be deleted, so that somebody can still say no."""
    if await database.read(age_of) >= DAY:
        return
    rules = [
        (keep.finished_commands, "commands that have ended"),
        (keep.removed_agents, "documents of agents that are removed"),
        (keep.documents, "documents that nobody changes"),
    ]
    named = [f"{what} after {days} days" for days, what in rules if days]
    if named:
        logger.info(
            "pruning: deletes nothing for a day; then, counted from now on: %s (communications_api.embedded.keep)",
            ", ".join(named),
        )
