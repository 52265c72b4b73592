"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wazuh_comms_trio.testing import FakeDaemon, WazuhDBModel, open_fake_daemon
from wazuh_comms_trio.transport import WazuhDB, open_wazuh_db


@pytest.fixture(params=["memory", "socket"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"home": tmp_path} if request.param == "socket" else {}


@pytest.fixture
async def database(model: WazuhDBModel) -> AsyncIterator[FakeDaemon]:
    """wazuh-db with the ``model`` of the test's module."""
    async with open_fake_daemon("wazuh-db", model) as daemon:
        yield daemon


@pytest.fixture
async def db(database: FakeDaemon) -> AsyncIterator[WazuhDB]:
    async with open_wazuh_db(connect=database.connect) as db:
        yield db
