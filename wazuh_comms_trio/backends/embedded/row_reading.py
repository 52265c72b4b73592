"""Rows of SQLite files as values; one that can't be read costs no other row anything.

SQLite keeps any value in any column, and doesn't notice a byte that changes inside of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import apsw

from wazuh_comms_trio.backends.document_rules import Key
from wazuh_comms_trio.backends.unreadable import describe_decode_error, escaped
from wazuh_comms_trio.errors import DocumentUnreadable

T = TypeVar("T")
Make = Callable[[Any], T]
"""From a row, whose first value is its id, to what it holds. Raises ``ValueError`` or ``RecursionError``."""


def read_rows(
    connection: apsw.Connection,
    table: str,
    columns: str,
    rest: str,
    values: Sequence[Any],
    make: Make[T],
    *,
    file: str = "state.db",
) -> Iterator[T | DocumentUnreadable]:
    """``rest``: which rows, and in which order; ``file``: what errors call it."""
    place = f"{file}: {table}"
    cursor = connection.execute(f"SELECT {columns} FROM {table} {rest}", values)
    position = -1
    while True:
        position += 1
        try:
            row = next(cursor)
        except StopIteration:
            return
        except UnicodeDecodeError as exc:
            yield _unreadable(place, _id_at(connection, table, rest, values, position), exc)
            continue
        yield _made(place, row, make)


def read_row(connection: apsw.Connection, table: str, columns: str, row_id: str, make: Make[T]) -> T | None:
    """Reads one row; None where there is none. Raises ``DocumentUnreadable``, with the text of its columns."""
    found = next(read_rows(connection, table, columns, "WHERE id = ?", (row_id,), make), None)
    if isinstance(found, DocumentUnreadable):
        raise DocumentUnreadable(found.name, found.why, _text(connection, table, columns, row_id))
    return found


def _made(place: str, row: Any, make: Make[T]) -> T | DocumentUnreadable:
    try:
        return make(row)
    except (ValueError, RecursionError) as exc:
        return _unreadable(place, str(row[0]), exc)


def _unreadable(place: str, row_id: str, exc: Exception) -> DocumentUnreadable:
    return DocumentUnreadable(f"{place}/{escaped(row_id)}", describe_decode_error(exc))


def _id_at(connection: apsw.Connection, table: str, rest: str, values: Sequence[Any], position: int) -> str:
    """The id of the row at this place of the same selection."""
    found: Any = connection.execute(f"SELECT CAST(id AS BLOB) FROM {table} {rest}", values).fetchall()
    raw = found[position][0] if position < len(found) else b"?"
    return bytes(raw).decode("utf-8", "backslashreplace")


def _text(connection: apsw.Connection, table: str, columns: str, row_id: str) -> str:
    """The text of a damaged row for the operator, an agent's key hash aside."""
    names = [name for name in columns.split(", ") if name != "key_hash"]
    cast = ", ".join(f"CAST({name} AS BLOB)" for name in names)
    row: Any = connection.execute(f"SELECT {cast} FROM {table} WHERE id = ?", (row_id,)).fetchone()
    if row is None:
        return ""
    values = zip(names, row, strict=True)
    return " ".join(
        f"{name}={value.decode('utf-8', 'backslashreplace')}" for name, value in values if value is not None
    )


def documents_named(
    connection: apsw.Connection, keys: Collection[Key], statement: str, returning: str = ""
) -> Iterator[tuple[str, Any]]:
    """The rows that a statement on one index's documents gives for these, each with its index. To be read to the
    end."""
    for index, ids in _by_index(keys).items():
        number = connection.execute("SELECT no FROM indices WHERE name = ?", (index,)).get
        if number is None:
            continue
        together, alone = _for_carray(ids)
        if together:
            query = f"{statement} AND id IN carray(?){returning}"
            for row in connection.execute(query, (number, apsw.carray(together))):
                yield index, row
        for one in alone:
            for row in connection.execute(f"{statement} AND id = ?{returning}", (number, one)):
                yield index, row


def _by_index(keys: Collection[Key]) -> dict[str, list[str]]:
    by_index: dict[str, list[str]] = {}
    for index, document_id in keys:
        by_index.setdefault(index, []).append(document_id)
    return by_index


def _for_carray(ids: Sequence[str]) -> tuple[tuple[str, ...], Sequence[str]]:
    """Several values at once go to SQLite as one array, which can't carry NULs; the rest goes one by one."""
    if len(ids) < 2:
        return (), ids
    return tuple(i for i in ids if "\0" not in i), [i for i in ids if "\0" in i]
