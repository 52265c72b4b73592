"""Checksums of rows in ``state.db``: SQLite doesn't notice a byte that changes inside a row's content.

A row that another version wrote or changed has none (NULL; a trigger sees to it), and isn't checked. Covered is what is
not written again with every step: an agent's own data and groups, a command's order, a document's id and body.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zlib import crc32

import apsw

AGENT_COLUMNS: Final = "id, name, key_hash, type, version, groups, host"
COMMAND_COLUMNS: Final = "id, target_type, target_id, created_at, timeout, body"


def document_checksum(document_id: str, body: bytes) -> int:
    return crc32(body, crc32(document_id.encode()))


def row_checksum(*values: object) -> int:
    """Of the values as SQLite gives them back."""
    return crc32("\0".join("" if value is None else str(value) for value in values).encode())


def seal_agent(connection: apsw.Connection, agent_id: str) -> None:
    """After a change to an agent's row, in the same transaction."""
    row = connection.execute(f"SELECT {AGENT_COLUMNS} FROM agents WHERE id = ?", (agent_id,)).fetchone()
    if row is not None:
        connection.execute("UPDATE agents SET checksum = ? WHERE id = ?", (row_checksum(*row), agent_id))


def damaged_rows(connection: apsw.Connection) -> Iterator[str]:
    """Names the rows whose content isn't what was written. Raises SQLite's errors."""
    for table, columns, what in (("agents", AGENT_COLUMNS, "agent"), ("commands", COMMAND_COLUMNS, "command")):
        query = f"SELECT checksum, {columns} FROM {table} WHERE checksum IS NOT NULL"
        for checksum, *values in connection.execute(query):
            if row_checksum(*values) != checksum:
                yield f"{what} {values[0]}"
    query = (
        "SELECT checksum, documents.id, body, name FROM documents LEFT JOIN indices ON indices.no = index_no"
        " WHERE checksum IS NOT NULL"
    )
    for checksum, document_id, body, index in connection.execute(query):
        sound = isinstance(document_id, str) and isinstance(body, bytes)
        if not sound or document_checksum(document_id, body) != checksum or index is None:
            yield f"document {index}/{document_id}"
