from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wazuh_comms_trio.backends.embedded.database import connection as sqlite_connection
from wazuh_comms_trio.backends.embedded.database.connection import Database, open_database
from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema

NOTES = Schema("notes.db", 0x4E4F5445, [Migration("CREATE TABLE notes (text TEXT UNIQUE)", usable_since=1)])


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked file is waited for as long as a test can."""
    monkeypatch.setattr(sqlite_connection, "BUSY_TIMEOUT", 0.2)
    monkeypatch.setattr(sqlite_connection, "BUSY_TIMEOUT_AGAIN", 0.05)
    monkeypatch.setattr(sqlite_connection, "RETRY_INTERVAL", 0.02)


@pytest.fixture
async def notes(tmp_path: Path, short_waits: None) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        yield database
