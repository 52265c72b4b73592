"""Checksums of rows in ``state.db``: SQLite doesn't notice a byte that changes inside a row's content.

A row that another version wrote or changed has none (NULL; a trigger sees to it), and isn't checked. Covered is what is
not written again with every step: an agent's own data and groups, a command's order, a document's id and body.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Final, cast
from zlib import crc32

import apsw

AGENT_COLUMNS: Final = "id, name, key_hash, type, version, groups, host"
COMMAND_COLUMNS: Final = "id, target_type, target_id, created_at, timeout, body"


def document_checksum(document_id: str, body: bytes) -> int:
    return crc32(body, crc32(document_id.encode()))


def row_checksum(*values: object) -> int:
    """The checksum of a row's values as SQLite gives them back."""
    return crc32("\0".join("" if value is None else str(value) for value in values).encode())


def seal_agent(connection: apsw.Connection, agent_id: str) -> None:
    """Writes the checksum of an agent's row after a change to it, in the same transaction."""
    row = connection.execute(f"SELECT {AGENT_COLUMNS} FROM agents WHERE id = ?", (agent_id,)).fetchone()
    if row is not None:
        connection.execute("UPDATE agents SET checksum = ? WHERE id = ?", (row_checksum(*row), agent_id))


def damaged_rows(connection: apsw.Connection) -> Iterator[str]:
    """Names the rows whose content isn't what was written. Raises SQLite's errors."""
    for table, columns, what in (("agents", AGENT_COLUMNS, "agent"), ("commands", COMMAND_COLUMNS, "command")):
        for row in _rows(connection, f"checksum, {columns}", table):
            if isinstance(row, str) or row_checksum(*row[1:]) != row[0]:
                yield f"{what} {row if isinstance(row, str) else row[1]}"
    documents = "documents LEFT JOIN indices ON indices.no = index_no"
    for row in _rows(connection, "checksum, documents.id, body, name", documents, row_id="documents.id"):
        if isinstance(row, str):
            yield f"document {row}"
            continue
        checksum, document_id, body, index = row
        sound = isinstance(document_id, str) and isinstance(body, bytes)
        if not sound or document_checksum(document_id, body) != checksum or index is None:
            yield f"document {index}/{document_id}"


def _rows(connection: apsw.Connection, columns: str, table: str, *, row_id: str = "id") -> Iterator[Any]:
    """The rows with a checksum; of a row whose text isn't text only its id."""
    rest = f"FROM {table} WHERE checksum IS NOT NULL"
    cursor = connection.execute(f"SELECT {columns} {rest}")
    for position in count():
        try:
            row = next(cursor, None)
        except UnicodeDecodeError:
            query = f"SELECT CAST({row_id} AS BLOB) {rest} LIMIT 1 OFFSET {position}"
            raw = cast("bytes", connection.execute(query).get)
            yield raw.decode("utf-8", "backslashreplace")
            continue
        if row is None:
            return
        yield row
