from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wazuh_comms_trio.backends.embedded.database import connections, recovery
from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
from wazuh_comms_trio.backends.embedded.database.schema import Migration, Schema

NOTES = Schema("notes.db", 0x4E4F5445, [Migration("CREATE TABLE notes (text TEXT UNIQUE)", usable_since=1)])


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked file is waited for as long as a test can."""
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 0.2)
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_IN_OUTAGE", 0.05)
    monkeypatch.setattr(recovery, "RETRY_INTERVAL", 0.02)


@pytest.fixture
async def notes(tmp_path: Path, short_waits: None) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        yield database
