"""Schema versions of a SQLite file, and how one becomes the next.

``PRAGMA user_version`` counts the migrations applied. Two versions of this program may work on one file at the same
time, so each migration says since which one a program can still use its result (``usable_since``, kept in the file): an
older program opens a newer file if that includes its own version, else it says so and leaves it alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
from attrs import frozen

from wazuh_comms_trio.backends.unavailable import StateForeign


@frozen
class Migration:
    """``script``: its SQL statements, run in one transaction. ``usable_since``: the oldest schema version whose
    programs work with the result."""

    script: str
    usable_since: int


@frozen
class Schema:
    """``application_id`` marks the file as this program's (and which of its files); ``migrations`` in order: the first
    makes version 1."""

    name: str
    application_id: int
    migrations: Sequence[Migration]

    @property
    def version(self) -> int:
        return len(self.migrations)


_COMPATIBILITY = "CREATE TABLE IF NOT EXISTS compatibility (usable_since INTEGER NOT NULL)"


def migrate(connection: apsw.Connection, schema: Schema) -> bool:
    """Bring the file to this program's version, in one transaction; True when that changed it.

    Raises ``StateForeign`` for another program's file or one of a version that is too new, and SQLite's errors.
    """
    if check_usable(connection, schema):
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not check_usable(connection, schema):  # another process may have been faster
            _apply(connection, schema, _number(connection, "PRAGMA user_version"))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return True


def _number(connection: apsw.Connection, query: str) -> int:
    value = connection.execute(query).get
    assert isinstance(value, int)
    return value


def check_usable(connection: apsw.Connection, schema: Schema) -> bool:
    """Whether the file can be used as it is (False: it has to be migrated first). Raises ``StateForeign`` when it
    can't be used at all: another program's, or too new."""
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    tables = _number(connection, "SELECT count(*) FROM sqlite_schema")
    if application != schema.application_id and (application or version or tables):
        raise StateForeign(f"{schema.name}: this SQLite file belongs to another program")
    if version > schema.version:
        # Whatever a damaged one is, text that is no UTF-8 among that: it isn't read.
        query = "SELECT usable_since FROM compatibility WHERE typeof(usable_since) = 'integer'"
        usable_since = connection.execute(query).get
        if not isinstance(usable_since, int):  # nobody knows
            usable_since = version
        if usable_since > schema.version:
            raise StateForeign(
                f"{schema.name}: written by a newer version of this program (schema {version}, this one knows "
                f"{schema.version} and the file needs {usable_since} or newer); install that version again, or restore"
                " a backup made with this one"
            )
    return version >= schema.version


def _apply(connection: apsw.Connection, schema: Schema, version: int) -> None:
    for migration in schema.migrations[version:]:
        connection.execute(migration.script)
    connection.execute(_COMPATIBILITY)
    connection.execute("DELETE FROM compatibility")
    connection.execute("INSERT INTO compatibility VALUES (?)", (schema.migrations[-1].usable_since,))
    connection.execute(f"PRAGMA application_id = {schema.application_id}")
    connection.execute(f"PRAGMA user_version = {schema.version}")
