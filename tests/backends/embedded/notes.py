"""A table of notes: the least that shows what ``Database`` does."""

from __future__ import annotations

import logging

import apsw
import pytest

from wazuh_comms_trio.backends.embedded.database.database import Database


async def write(database: Database, text: str) -> None:
    await database.write(lambda connection: insert(connection, text))


def insert(connection: apsw.Connection, text: str) -> None:
    connection.execute("INSERT INTO notes VALUES (?) ON CONFLICT DO NOTHING", (text,))


def select(connection: apsw.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT text FROM notes")}


async def read(database: Database) -> set[str]:
    return await database.read(select)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged at WARNING and above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
