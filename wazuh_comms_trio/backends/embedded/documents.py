"""The embedded state index."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain, count, repeat
from operator import attrgetter
from typing import Any, Final
from zlib import crc32

import apsw
from attrs import frozen

from wazuh_comms_trio.backends.document_rules import (
    CREATED,
    DELETED,
    NOT_FOUND,
    Document,
    Key,
    Requests,
    are_objects,
    key_of,
    keys_of,
    plan,
    refused,
    version_of,
)
from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.page_cache import may_be_kept
from wazuh_comms_trio.backends.embedded.database.text import storable
from wazuh_comms_trio.backends.embedded.database.transaction import Work
from wazuh_comms_trio.backends.embedded.quota.counting import used_bytes
from wazuh_comms_trio.backends.embedded.quota.limits import DocumentQuota, NearShare
from wazuh_comms_trio.backends.embedded.row_checksums import document_checksum
from wazuh_comms_trio.backends.embedded.row_reading import documents_named
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.errors import BackendUnavailable

#: What a row costs beside its body, for the weight of a group.
_ROW_BYTES: Final = 200
#: A bulk call is written in parts of about this weight, in some milliseconds each: others' writes may come in between.
_PART_BYTES: Final = 512 * 1024
#: Bytes of documents that one transaction works through, half a second or so: each operation reads all of its document.
_WORK_BYTES: Final = 32 * 1024 * 1024
#: Documents that are read by one statement.
_READ_TOGETHER: Final = 128
_NOT_NOW: Final = ItemResult(503, "not now", Outcome.PASSING)

_SELECT: Final = "SELECT id, version, body FROM documents WHERE index_no = ?"
_DELETE: Final = "DELETE FROM documents WHERE index_no = ?"

_INTO_DOCUMENTS: Final = "INTO documents (no, index_no, id, version, changed_at, body, checksum) VALUES (?,?,?,?,?,?,?)"

_action_of: Final = attrgetter("action")
_index_of: Final = attrgetter("index")

_ROWS_TOGETHER: Final = 50
_INSERT: Final = f"INSERT {_INTO_DOCUMENTS} ON CONFLICT DO NOTHING"
_INSERT_TOGETHER: Final = f"INSERT {_INTO_DOCUMENTS}{',(?,?,?,?,?,?,?)' * (_ROWS_TOGETHER - 1)} ON CONFLICT DO NOTHING"


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
    """``EventIndex``: what a batch does is worked out by ``document_rules.plan`` from what is stored, inside the
    write's own transaction."""

    def __init__(self, database: Database, wall_clock: Callable[[], float], quota: DocumentQuota | None = None) -> None:
        self._database = database
        self._now = wall_clock
        self._quota = quota

    async def probe(self) -> None:
        """Asks for the right to write, as every write does; where something was wrong, writes, too."""
        database = self._database
        failed_before = database.outage is not None
        try:
            await database.write(_touch if failed_before else _do_nothing, durable=failed_before)
        except BackendUnavailable as exc:
            raise BackendUnavailable(database.outage or exc.message) from exc

    async def bulk(
        self,
        operations: Sequence[DocumentOperation],
        *,
        boundaries: Sequence[int] = (),
        is_open: Callable[[int], bool] | None = None,
    ) -> Sequence[ItemResult]:
        if not operations:
            return ()
        plain = False not in [operation.plain for operation in operations]
        names = [] if plain else [f"{operation.index}{operation.document_id}" for operation in operations]
        if not storable("\n".join(names)):
            return await self._without_unstorable(operations, is_open)
        results = await self._bulk(operations, plain, Requests(boundaries, is_open))
        if self._quota is not None:
            self._quota.tell(operations, results)
        return results

    async def _bulk(
        self, operations: Sequence[DocumentOperation], plain: bool, requests: Requests
    ) -> Sequence[ItemResult]:
        weights = [len(operation.body or b"") + _ROW_BYTES for operation in operations]
        weight = sum(weights)
        now = self._now()
        if weight > _PART_BYTES:
            return await self._bulk_in_parts(operations, weights, now, plain, requests)
        results = await self._database.write(
            lambda connection: self._apply_open(connection, operations, now, plain, requests), weight=weight
        )
        while len(results) < len(operations):
            rest, first = operations[len(results) :], len(results)
            work = partial(self._apply_open, operations=rest, now=now, plain=plain, requests=requests, first=first)
            try:
                results += await self._database.write(work, weight=sum(weights[len(results) :]))
            except BackendUnavailable:
                results += [_NOT_NOW] * len(rest)
        return results

    async def _bulk_in_parts(
        self,
        operations: Sequence[DocumentOperation],
        weights: Sequence[int],
        now: float,
        plain: bool,
        requests: Requests,
    ) -> Sequence[ItemResult]:
        parts: list[tuple[Work[list[ItemResult]], int]] = []
        lengths = []
        start = weight = 0
        reached = list(accumulate(weights))
        while start < len(operations):
            end = min(bisect_left(reached, weight + _PART_BYTES) + 1, len(operations))
            part = operations[start:end]
            work = partial(self._apply_open, operations=part, now=now, plain=plain, requests=requests, first=start)
            parts.append((work, reached[end - 1] - weight))
            lengths.append(len(part))
            start, weight = end, reached[end - 1]
        results: list[ItemResult] = []
        failure: BackendUnavailable | None = None
        for length, made in zip(lengths, await self._database.write_parts(parts), strict=True):
            if isinstance(made, BackendUnavailable):
                failure = made
                results += [_NOT_NOW] * length
            else:
                results += made + [_NOT_NOW] * (length - len(made))
        if failure is not None and results.count(_NOT_NOW) == len(results):
            raise failure
        return results

    async def _without_unstorable(
        self, operations: Sequence[DocumentOperation], is_open: Callable[[int], bool] | None
    ) -> Sequence[ItemResult]:
        places = [
            place for place, operation in enumerate(operations) if storable(operation.document_id, operation.index)
        ]
        good = [operations[place] for place in places]
        asked = None if is_open is None else lambda position: is_open(places[position])
        made = await self.bulk(good, boundaries=range(len(good)), is_open=asked)
        bad = refused("failed to parse: the id is not valid Unicode")
        results = [bad] * len(operations)
        for place, result in zip(places, made, strict=True):
            results[place] = result
        return results

    def _apply_open(
        self,
        connection: apsw.Connection,
        operations: Sequence[DocumentOperation],
        now: float,
        plain: bool,
        requests: Requests,
        first: int = 0,
    ) -> list[ItemResult]:
        """As ``_apply``, without the operations of requests that are closed by now: their agents come again, perhaps to
        another process, which may have written what is newer while this transaction waited for the file.
        ``first``: the position of the first operation."""
        closed = requests.closed(first, len(operations))
        if not closed:
            return self._apply(connection, operations, now, plain)
        wanted = [operation for place, operation in enumerate(operations) if place not in closed]
        made = iter(self._apply(connection, wanted, now, plain) if wanted else ())
        results: list[ItemResult] = []
        for place in range(len(operations)):
            result = _NOT_NOW if place in closed else next(made, None)
            if result is None:
                break
            results.append(result)
        return results

    def _apply(
        self, connection: apsw.Connection, operations: Sequence[DocumentOperation], now: float, plain: bool
    ) -> list[ItemResult]:
        """Applies as many of the operations as are done in one transaction, at least one; returns their results."""
        room = None if self._quota is None else self._quota.room_for(connection, operations)
        actions = set(map(_action_of, operations))
        if len(actions) == 1 and (plain or not any(map(_has_conditions, operations))):
            if actions == {"delete"}:
                return self._delete(connection, operations)
            if actions == {"create"} and room is None:
                results = self._create(connection, operations, now, plain)
                if results is not None:
                    return results
        operations, present = self._with_documents(connection, operations)
        results, changes = plan(operations, present, None if room is None else room.take)
        upserts = []
        deletes = []
        last = _last_number(connection)
        for number, ((index, document_id), document) in enumerate(changes.items(), last + 1):
            index_no = self._index_number(connection, index)
            if document is None:
                deletes.append((index_no, document_id))
            else:
                checksum = document_checksum(document_id, document.body)
                upserts.append((number, index_no, document_id, document.version, now, document.body, checksum))
        if upserts:
            kept = may_be_kept([row[5] for row in upserts])
            connection.executemany(f"INSERT OR REPLACE {_INTO_DOCUMENTS}", upserts, can_cache=kept)
            _set_last_number(connection, last + len(changes))
        if deletes:
            connection.executemany("DELETE FROM documents WHERE index_no = ? AND id = ?", deletes)
        return results

    def _create(
        self, connection: apsw.Connection, operations: Sequence[DocumentOperation], now: float, plain: bool
    ) -> list[ItemResult] | None:
        """Creates documents that don't exist, which is what agents send most. Written without looking first; None, and
        nothing is written, when it turns out that looking is needed."""
        if not plain and not are_objects([operation.body for operation in operations]):
            return None
        indices = set(map(_index_of, operations))
        index_numbers = {index: self._index_number(connection, index) for index in indices}
        first = _last_number(connection) + 1
        ids = [operation.document_id for operation in operations]
        bodies = [operation.body or b"" for operation in operations]
        checksums = map(crc32, bodies, map(crc32, map(str.encode, ids)))  # as document_checksum
        numbers_of_indices = [index_numbers[operation.index] for operation in operations]
        rows = list(zip(count(first), numbers_of_indices, ids, repeat(1), repeat(now), bodies, checksums, strict=False))
        kept = may_be_kept(bodies)
        connection.execute("SAVEPOINT creates")
        # A batch that comes a second time shows it in its first row.
        connection.execute(_INSERT, rows[0], can_cache=kept)
        written = connection.changes()  # without those of triggers
        if written:
            # One statement for many rows takes a fifth less than one for each.
            together = 1 + (len(rows) - 1) // _ROWS_TOGETHER * _ROWS_TOGETHER
            for start in range(1, together, _ROWS_TOGETHER):
                values = chain.from_iterable(rows[start : start + _ROWS_TOGETHER])
                connection.execute(_INSERT_TOGETHER, tuple(values), can_cache=kept)
                written += connection.changes()
            for row in rows[together:]:
                connection.execute(_INSERT, row, can_cache=kept)
                written += connection.changes()
        complete = written == len(rows)
        if not complete:
            connection.execute("ROLLBACK TO creates")
        connection.execute("RELEASE creates")
        if not complete:
            return None
        _set_last_number(connection, first + len(rows) - 1)
        return [CREATED] * len(rows)

    def _delete(self, connection: apsw.Connection, operations: Sequence[DocumentOperation]) -> list[ItemResult]:
        """Deletes documents without reading them: in the order of the index, each is found once."""
        there = {
            (index, row[0]) for index, row in documents_named(connection, keys_of(operations), _DELETE, " RETURNING id")
        }
        results = []
        for operation in operations:
            key = key_of(operation)
            results.append(DELETED if key in there else NOT_FOUND)
            there.discard(key)
        return results

    def _with_documents(
        self, connection: apsw.Connection, operations: Sequence[DocumentOperation]
    ) -> tuple[Sequence[DocumentOperation], dict[Key, Document]]:
        """As many of these operations as are done in one transaction, and those of their documents that exist. Others'
        writes wait for it, and all of them are in memory."""
        keys = list(dict.fromkeys(map(key_of, operations)))
        present: dict[Key, Document] = {}
        size = start = 0
        while start < len(keys) and size <= _WORK_BYTES:
            found = self._present(connection, keys[start : start + _READ_TOGETHER])
            size += sum(len(document.body) for document in found.values())
            present |= found
            start += _READ_TOGETHER
        unread = frozenset(keys[start:])
        return operations[: _done_together(operations, present, unread)], present

    def _present(self, connection: apsw.Connection, keys: Collection[Key]) -> dict[Key, Document]:
        """The documents of those named that exist."""
        found: dict[Key, Document] = {}
        for index, (document_id, version, body) in documents_named(connection, keys, _SELECT):
            found[(index, document_id)] = Document(body, version)
        return found

    def _index_number(self, connection: apsw.Connection, index: str) -> int:
        """An index's number. Asked for within each transaction: one that was rolled back leaves nothing remembered."""
        query = "SELECT no FROM indices WHERE name = ?"
        number = connection.execute(query, (index,)).get
        if number is None:
            number = connection.execute("INSERT INTO indices (name) VALUES (?) RETURNING no", (index,)).get
        assert isinstance(number, int)
        return number

    async def usage(self) -> tuple[int, int]:
        """How many bytes the documents take, and how many they may; 0: as many as they will. Raises
        ``BackendUnavailable``."""
        if self._quota is None:
            return 0, 0
        return await self._database.read(used_bytes), self._quota.limit

    async def near_share(self, part: float) -> Sequence[NearShare]:
        """The agents whose documents have at least that part of what one agent may have. Raises
        ``BackendUnavailable``."""
        quota = self._quota
        return () if quota is None else await self._database.read(lambda connection: quota.near_share(connection, part))

    async def get(self, index: str, document_id: str) -> bytes | None:
        query = "SELECT body FROM documents WHERE id = ? AND index_no = (SELECT no FROM indices WHERE name = ?)"

        if not storable(index, document_id):
            return None

        def select(connection: apsw.Connection) -> bytes | None:
            body = connection.execute(query, (document_id, index)).get
            return body if isinstance(body, bytes) else None

        return await self._database.read(select)

    async def versions(self, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        keys = {key for key in documents if storable(*key)}
        present = await self._database.read(lambda connection: self._present(connection, keys))
        return [version_of(present.get(key)) if key in keys else "" for key in documents]


def _done_together(
    operations: Sequence[DocumentOperation], present: Mapping[Key, Document], unread: Collection[Key]
) -> int:
    sizes = {key: len(document.body) for key, document in present.items()}
    work = 0
    for position, operation in enumerate(operations):
        key = key_of(operation)
        if key in unread:
            return position
        sizes[key] = size = sizes.get(key, 0) + len(operation.body or b"")
        work += size
        if work > _WORK_BYTES and position:
            return position
    return len(operations)


def _has_conditions(operation: DocumentOperation) -> bool:
    return bool(operation.expected or operation.refused)


def _do_nothing(connection: apsw.Connection) -> None:
    """The work of a probe: only the transaction around it matters."""


def _touch(connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO counters VALUES ('probes', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")


def _last_number(connection: apsw.Connection) -> int:
    value = connection.execute("SELECT value FROM counters WHERE name = 'documents'").get
    assert isinstance(value, int)
    return value


def _set_last_number(connection: apsw.Connection, number: int) -> None:
    connection.execute("UPDATE counters SET value = ? WHERE name = 'documents'", (number,))


def stored_documents(connection: apsw.Connection, after: int = 0, limit: int = 1000) -> list[StoredDocument]:
    """The first ``limit`` documents whose number is greater than ``after``, in that order."""
    query = (
        "SELECT documents.no, CAST(indices.name AS BLOB), CAST(id AS BLOB), version, changed_at, body FROM documents"
        " JOIN indices ON indices.no = index_no WHERE documents.no > ? ORDER BY documents.no LIMIT ?"
    )
    found: list[Any] = connection.execute(query, (after, limit)).fetchall()
    return [StoredDocument(no, _shown(index), _shown(name), *rest) for no, index, name, *rest in found]


def _shown(text: bytes | None) -> str:
    return (text or b"").decode("utf-8", "backslashreplace")  # a disk may have damaged it
