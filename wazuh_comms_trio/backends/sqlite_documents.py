"""The embedded state index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import apsw
from attrs import frozen

from wazuh_comms_trio.backends.base import DocumentOperation, ItemResult
from wazuh_comms_trio.backends.documents import Document, Key, keys_of, plan
from wazuh_comms_trio.backends.sqlite_connection import Database

#: What a row costs beside its body, for the weight of a group.
_ROW_BYTES: Final = 200


_SELECT: Final = "SELECT id, version, body FROM documents WHERE index_no = ?"


@frozen
class StoredDocument:
    """One document of the index, for the operator's eyes; ``no`` is a higher one after each change. ``changed_at`` in
    epoch seconds."""

    no: int
    index: str
    document_id: str
    version: int
    changed_at: float
    body: bytes


class SqliteEvents:
    """``EventIndex``: what a batch does is worked out by ``documents.plan`` from what is stored, inside the write's own
    transaction."""

    def __init__(self, database: Database, wall_clock: Callable[[], float]) -> None:
        self._database = database
        self._now = wall_clock

    async def bulk(self, operations: Sequence[DocumentOperation]) -> Sequence[ItemResult]:
        if not operations:
            return ()
        weight = sum(len(operation.body or b"") + _ROW_BYTES for operation in operations)
        now = self._now()
        return await self._database.write(lambda connection: self._apply(connection, operations, now), weight=weight)

    def _apply(
        self, connection: apsw.Connection, operations: Sequence[DocumentOperation], now: float
    ) -> list[ItemResult]:
        results, changes = plan(operations, self._present(connection, operations))
        upserts = []
        deletes = []
        for (index, document_id), document in changes.items():
            number = self._number(connection, index)
            if document is None:
                deletes.append((number, document_id))
            else:
                upserts.append((number, document_id, document.version, now, document.body))
        if upserts:
            connection.executemany(
                "INSERT OR REPLACE INTO documents (index_no, id, version, changed_at, body) VALUES (?,?,?,?,?)",
                upserts,
            )
        if deletes:
            connection.executemany("DELETE FROM documents WHERE index_no = ? AND id = ?", deletes)
        return results

    def _present(self, connection: apsw.Connection, operations: Sequence[DocumentOperation]) -> dict[Key, Document]:
        """Those of the documents named that exist."""
        by_index: dict[str, list[str]] = {}
        for index, document_id in keys_of(operations):
            by_index.setdefault(index, []).append(document_id)
        found: dict[Key, Document] = {}
        for index, ids in by_index.items():
            number = connection.execute("SELECT no FROM indices WHERE name = ?", (index,)).get
            if number is None:
                continue
            # Several at once go as one array, which can't carry NULs.
            together = [i for i in ids if "\0" not in i] if len(ids) > 1 else []
            alone = ids if not together else [i for i in ids if "\0" in i]
            if together:
                query = f"{_SELECT} AND id IN carray(?)"
                for document_id, version, body in connection.execute(query, (number, apsw.carray(tuple(together)))):
                    found[(index, document_id)] = Document(body, version)
            for one in alone:
                for document_id, version, body in connection.execute(f"{_SELECT} AND id = ?", (number, one)):
                    found[(index, document_id)] = Document(body, version)
        return found

    def _number(self, connection: apsw.Connection, index: str) -> int:
        """An index's number. Asked for within each transaction: one that was rolled back leaves nothing remembered."""
        query = "SELECT no FROM indices WHERE name = ?"
        number = connection.execute(query, (index,)).get
        if number is None:
            number = connection.execute("INSERT INTO indices (name) VALUES (?) RETURNING no", (index,)).get
        assert isinstance(number, int)
        return number

    async def get(self, index: str, document_id: str) -> bytes | None:
        query = "SELECT body FROM documents WHERE id = ? AND index_no = (SELECT no FROM indices WHERE name = ?)"

        def select(connection: apsw.Connection) -> bytes | None:
            body = connection.execute(query, (document_id, index)).get
            return body if isinstance(body, bytes) else None

        return await self._database.read(select)


def stored_documents(connection: apsw.Connection, after: int = 0, limit: int = 1000) -> list[StoredDocument]:
    """The first ``limit`` documents whose number is greater than ``after``, in that order."""
    query = (
        "SELECT documents.no, indices.name, id, version, changed_at, body FROM documents"
        " JOIN indices ON indices.no = index_no WHERE documents.no > ? ORDER BY documents.no LIMIT ?"
    )
    return [StoredDocument(*row) for row in connection.execute(query, (after, limit))]
