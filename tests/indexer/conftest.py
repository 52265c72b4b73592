"""The real indexer that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.indexer.cluster import shared_node
from tests.indexer.harness import wipe


@pytest.fixture
def port() -> Iterator[int]:
    """Where it listens; empty before and after."""
    node = shared_node().port
    wipe(node)
    yield node
    wipe(node)
