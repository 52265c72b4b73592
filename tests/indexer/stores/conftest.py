"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.indexer.harness import settings
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch


@pytest.fixture
async def stores(port: int) -> AsyncIterator[OpenSearchStores]:
    async with open_opensearch(settings(port)) as opened:
        yield opened
