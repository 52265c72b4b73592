"""Rows of ``quarantine.db``: how entries get into the table, within its limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw
from attrs import frozen

from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.quarantine.interface import AGENT_SHARE, Rejected, size_of
from wazuh_comms_trio.quarantine.payload_files import FILE, own_name

#: Payloads above this size are files of their own: SQLite would write them twice, through its log.
INLINE_BYTES: Final = 256 * 1024


class NoRoom(StorageFull):
    """Raised where a share is full; ``agent_id``: whose; None: all of it."""

    def __init__(self, agent_id: str | None) -> None:
        super().__init__("The quarantine is full")
        self.agent_id = agent_id


#: Of an equal entry: counted, and current again. One of an earlier version learns what it is about.
_AGAIN: Final = (
    "UPDATE entries SET count = count + 1, last_at = ?1, document = coalesce(?2, document),"
    " version = iif(?2 IS NULL, version, ?3), overtaken_at = NULL WHERE agent_id = ?4 AND digest = ?5 RETURNING id"
)


@frozen
class Row:
    """One entry on its way into the table; ``file``: the name of its payload's file, if it has one."""

    rejected: Rejected
    digest: bytes
    payload_bytes: int
    file: str | None = None


class EqualIsGone(BackendUnavailable):
    """An entry equal to a row was dropped since it was looked for, be it by a row before it: the row needs its
    payload's file."""


def insert_rows(
    connection: apsw.Connection, rows: Sequence[Row], now: float, max_bytes: int, *, limited: bool = True
) -> list[str]:
    """Inserts all rows or none: what is raised undoes the rows before it. ``limited``: within the limits. Returns the
    files of the entries that went."""
    gone: list[str] = []
    for row in rows:
        rejected = row.rejected
        document, version = rejected.document or None, rejected.version or None
        if document is not None:
            gone += _files(
                connection.execute(
                    f"DELETE FROM entries WHERE document = ? AND NOT (agent_id = ? AND digest = ?) RETURNING {FILE}",
                    (document, rejected.agent_id, row.digest),
                )
            )
        again = connection.execute(_AGAIN, (now, document, version, rejected.agent_id, row.digest)).get
        if again is not None:
            continue
        size = size_of(rejected, row.payload_bytes)
        if limited:
            gone += _make_room(connection, size, max_bytes)
            check_limits(connection, rejected.agent_id, size, max_bytes)
        if row.file is None and row.payload_bytes > INLINE_BYTES:
            raise EqualIsGone
        connection.execute(
            "INSERT INTO entries (agent_id, kind, reason, size, payload_bytes, first_at, last_at, digest, metadata,"
            " payload, file, document, version) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                rejected.agent_id,
                rejected.kind,
                rejected.reason,
                size,
                row.payload_bytes,
                now,
                now,
                row.digest,
                rejected.metadata,
                None if row.file is not None else rejected.payload,
                row.file,
                document,
                version,
            ),
        )
    return gone


def replace_row(
    connection: apsw.Connection, entry_id: int, rows: Sequence[tuple[Row, str]], now: float, max_bytes: int
) -> list[str]:
    """As ``Quarantine.replace``; ``rows``: each with why it stays. Returns the files that no row names any more."""
    old: Any = connection.execute(
        f"DELETE FROM entries WHERE id = ? RETURNING agent_id, size, first_at, last_at, {FILE}, arrival", (entry_id,)
    ).fetchone()
    if old is None:
        return [row.file for row, _ in rows if row.file is not None]
    agent_id, room, first_at, last_at, file, arrival = old
    gone = _names([file])
    for row, error in rows:
        document = row.rejected.document or None
        known = connection.execute(
            "SELECT 1 FROM entries WHERE (agent_id = ? AND digest = ?)"
            " OR (document = ? AND (coalesce(arrival, 0), last_at) > (coalesce(?, 0), ?))",
            (agent_id, row.digest, document, arrival, last_at),
        ).get
        if known is not None:
            gone += [] if row.file is None else [row.file]
            continue
        room -= size_of(row.rejected, row.payload_bytes)
        gone += insert_rows(connection, [row], now, max_bytes, limited=room < 0)
        connection.execute(
            "UPDATE entries SET first_at = ?, last_at = ?, arrival = ?, replayed_at = ?, replay_error = ?"
            " WHERE agent_id = ? AND digest = ?",
            (first_at, last_at, arrival, now, error, agent_id, row.digest),
        )
    return gone


def is_known(connection: apsw.Connection, row: Row, max_bytes: int) -> bool:
    """Whether an equal entry is there, also an overtaken one. Raises ``NoRoom`` where none is, and no room for it."""
    query = "SELECT 1 FROM entries WHERE agent_id = ? AND digest = ?"
    if connection.execute(query, (row.rejected.agent_id, row.digest)).get is not None:
        return True
    overtaken = connection.execute("SELECT sum(size) FROM entries WHERE overtaken_at IS NOT NULL").get or 0
    assert isinstance(overtaken, int)
    size = size_of(row.rejected, row.payload_bytes)
    check_limits(connection, row.rejected.agent_id, size, max_bytes, to_be_dropped=overtaken)
    return False


def _files(deleted: Iterable[Any]) -> list[str]:
    return _names(raw for (raw,) in list(deleted))


def _names(raw: Iterable[bytes | None]) -> list[str]:
    """Of a damaged name the file is found later, as one that no row names."""
    return [name for name in map(own_name, raw) if name is not None]


def _make_room(connection: apsw.Connection, size: int, max_bytes: int) -> list[str]:
    """Drops what is overtaken, the oldest first, as far as needed. Returns its files."""
    gone: list[str] = []
    while _used(connection, "") + size > max_bytes:
        oldest = connection.execute("SELECT min(id) FROM entries WHERE overtaken_at IS NOT NULL").get
        if oldest is None:
            break
        gone += _files(connection.execute(f"DELETE FROM entries WHERE id = ? RETURNING {FILE}", (oldest,)))
    return gone


def _used(connection: apsw.Connection, agent_id: str) -> int:
    used = connection.execute("SELECT bytes FROM usage WHERE agent_id = ?", (agent_id,)).get or 0
    return int(used) if isinstance(used, (int, float)) else 0  # a damaged one: ``store verify`` counts anew


def check_limits(
    connection: apsw.Connection, agent_id: str, size: int, max_bytes: int, *, to_be_dropped: int = 0
) -> None:
    """``to_be_dropped``: bytes that will go when room is needed. Raises ``NoRoom``."""
    if _used(connection, "") + size - to_be_dropped > max_bytes:
        raise NoRoom(None)
    if _used(connection, agent_id) + size > max_bytes // AGENT_SHARE:
        raise NoRoom(agent_id)
