"""How many bytes each agent's documents take: ``document_usage``, kept by triggers.

So whatever writes to the file is counted in its own transaction: pruning, the operator's tool, an earlier version. The
triggers are there only while a quota is configured. What was in the file before is counted in small steps meanwhile, in
the order of the documents' numbers: a document that is written again gets a higher number than any before, so what is
behind the last counted one, and not newer than the triggers, isn't counted yet. Until the end there may be too little
in the sums, never too much.
"""

from __future__ import annotations

import logging
from typing import Final

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick

__all__ = [
    "ROW_BYTES",
    "TRIGGERS",
    "count_anew",
    "keep_counting",
    "owner_of",
    "run_counting",
    "stop_counting",
    "used_by_all",
    "used_bytes",
    "wrong_sums",
]

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the file counts.
_INTERVAL: Final = 600.0
#: What a document counts beside its body: its row, with id and index entry.
ROW_BYTES: Final = 200
#: Documents counted in one transaction, some milliseconds, and the pause to the next one: others write meanwhile.
_ROWS: Final = 2000
_PAUSE: Final = 0.01

TRIGGERS: Final = ("document_replaced", "document_added", "document_gone", "document_rewritten")


def _size(row: str = "") -> str:
    return f"length({row}body) + {ROW_BYTES}"


def _owner(row: str = "") -> str:
    """SQL's form of ``owner_of``."""
    return f"CASE WHEN substr({row}id, 37, 1) = '_' THEN substr({row}id, 1, 36) ELSE '' END"


def _counter(name: str) -> str:
    return f"(SELECT value FROM counters WHERE name = '{name}')"


_COUNTED: Final = f"({{row}}no <= {_counter('documents_counted')} OR {{row}}no > {_counter('documents_uncounted')})"
#: What a conflicting insert does isn't known before it is done: the size of what it may replace is noted before, and
#: taken off after. ``OR REPLACE`` calls no trigger for what it deletes. Noted once more where there is something: an
#: earlier version takes creates for done when there were as many changes, those of triggers included, as rows; so there
#: are always more, also of rows that were ignored, and it looks at each document.
_TRIGGERS: Final = f"""
CREATE TRIGGER document_replaced BEFORE INSERT ON documents BEGIN
    UPDATE counters SET value = coalesce((SELECT {_size()} FROM documents
        WHERE index_no = new.index_no AND id = new.id AND {{counted}}), 0) WHERE name = 'documents_replaced';
    UPDATE counters SET value = value WHERE name = 'documents_replaced'{{noted_again}};
END;
CREATE TRIGGER document_added AFTER INSERT ON documents BEGIN
    INSERT INTO document_usage SELECT {_owner("new.")}, {_size("new.")} - value
        FROM counters WHERE name = 'documents_replaced'
        ON CONFLICT (agent_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER document_gone AFTER DELETE ON documents WHEN {{counted_old}} BEGIN
    UPDATE document_usage SET bytes = bytes - ({_size("old.")}) WHERE agent_id = {_owner("old.")};
END;
CREATE TRIGGER document_rewritten AFTER UPDATE OF body ON documents WHEN {{counted_old}} BEGIN
    UPDATE document_usage SET bytes = bytes + length(new.body) - length(old.body) WHERE agent_id = {_owner("old.")};
END;
"""
_WHILE_COUNTING: Final = _TRIGGERS.format(
    counted=_COUNTED.format(row=""), counted_old=_COUNTED.format(row="old."), noted_again=""
)
_WHEN_COUNTED: Final = _TRIGGERS.format(counted="1", counted_old="1", noted_again=" AND value > 0")
_DROP: Final = "".join(f"DROP TRIGGER IF EXISTS {name};" for name in TRIGGERS)
_FORGET: Final = "DELETE FROM counters WHERE name IN ('documents_counted', 'documents_uncounted')"
_NOTE: Final = "INSERT OR REPLACE INTO counters VALUES ('documents_replaced', 0)"
_SUMS: Final = f"SELECT {_owner()} AS owner, sum({_size()}) AS bytes FROM documents"
_RIGHT: Final = f"{_SUMS} GROUP BY owner"


def owner_of(document_id: str) -> str:
    """The agent whose document this is, where ids are an agent's own: its uuid stands before an underscore. Else
    empty."""
    return document_id[:36] if document_id[36:37] == "_" else ""


def used_bytes(connection: apsw.Connection, agent_id: str | None = None) -> int:
    """How many bytes are counted for an agent's documents, or for all."""
    if agent_id is None:
        return used_by_all(connection)[0]
    found = connection.execute("SELECT bytes FROM document_usage WHERE agent_id = ?", (agent_id,)).get
    return found if isinstance(found, int) else 0


def used_by_all(connection: apsw.Connection) -> tuple[int, int]:
    """What is counted of all agents' documents, and of how many agents. Takes 0.1 µs for each."""
    for used, agents in connection.execute("SELECT coalesce(sum(bytes), 0), count(*) FROM document_usage"):
        return used, agents
    return 0, 0


def start_counting(connection: apsw.Connection) -> None:
    """From now on what is written is counted; nothing where it is already."""
    if _is_counting(connection):
        return
    connection.execute(_FORGET)
    connection.execute("DELETE FROM document_usage")
    connection.execute(
        "INSERT OR REPLACE INTO counters SELECT 'documents_uncounted', value FROM counters WHERE name = 'documents'"
    )
    connection.execute("INSERT OR REPLACE INTO counters VALUES ('documents_counted', 0)")
    connection.execute(_NOTE)
    connection.execute(_WHILE_COUNTING)


def count_some(connection: apsw.Connection) -> bool:
    """Counts some more documents; False when all are counted."""
    done = connection.execute("SELECT value FROM counters WHERE name = 'documents_counted'").get
    if done is None:
        return False
    limit = connection.execute("SELECT value FROM counters WHERE name = 'documents_uncounted'").get
    query = f"SELECT max(no) FROM (SELECT no FROM documents WHERE no > ? AND no <= ? ORDER BY no LIMIT {_ROWS})"
    until = connection.execute(query, (done, limit)).get
    if until is None:
        connection.execute(_DROP + _WHEN_COUNTED + _FORGET)
        return False
    connection.execute(
        f"INSERT INTO document_usage SELECT * FROM ({_SUMS} WHERE no > ? AND no <= ? GROUP BY owner) WHERE true"
        " ON CONFLICT (agent_id) DO UPDATE SET bytes = bytes + excluded.bytes",
        (done, until),
    )
    connection.execute("UPDATE counters SET value = ? WHERE name = 'documents_counted'", (until,))
    return True


def stop_counting(connection: apsw.Connection) -> None:
    """Nothing is counted, and writing costs nothing for it."""
    if _is_counting(connection):
        connection.execute(_DROP + _FORGET)
    connection.execute("DELETE FROM document_usage")


async def keep_counting(database: Database) -> None:
    """Counts, step by step, the documents that aren't counted yet. Raises ``BackendUnavailable``. Cancelled: the next
    call goes on."""
    await database.write(start_counting, durable=False)
    while await database.write(count_some, durable=False):  # noqa: ASYNC110  # a pause for others, no waiting
        await trio.sleep(_PAUSE)
    await database.write(_forget_empty, durable=False)


async def run_counting(database: Database, leadership: Leadership | None, *, wanted: bool) -> None:
    """One process of a node sees to it that the file counts, or doesn't, as is ``wanted``. Never ends. What
    fails is tried again at the next look."""
    while True:
        if leadership is not None:
            await leadership.wait_until_leader()
        try:
            if wanted:
                await keep_counting(database)
            else:
                await database.write(stop_counting, durable=False)
        except BackendUnavailable as exc:
            logger.debug("documents can't be counted now: %s", exc.message)
        await sleep_until_next_tick(_INTERVAL)


def _forget_empty(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM document_usage WHERE bytes = 0")


def _is_counting(connection: apsw.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?"
    return connection.execute(query, (TRIGGERS[0],)).get is not None


def wrong_sums(connection: apsw.Connection) -> int | None:
    """How many agents' sums aren't those of their documents; None where nothing is counted, or not all yet."""
    if not _is_counting(connection) or connection.execute(f"SELECT {_counter('documents_counted')}").get is not None:
        return None
    kept = "SELECT agent_id, bytes FROM document_usage WHERE bytes <> 0"
    query = (
        f"SELECT count(DISTINCT owner) FROM (SELECT * FROM (SELECT * FROM ({_RIGHT}) EXCEPT {kept})"
        f" UNION ALL SELECT agent_id, bytes FROM ({kept} EXCEPT SELECT * FROM ({_RIGHT})))"
    )
    found = connection.execute(query).get
    return found if isinstance(found, int) else 0


def count_anew(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM document_usage")
    connection.execute(f"INSERT INTO document_usage {_RIGHT}")
    connection.execute(_NOTE)
