"""A home folder whose path leaves room for sockets, and a socket that listens in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.peers import Listening, listening


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of its own with a short name: a socket's path may have 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="wz") as folder:
        yield Path(folder)


@pytest.fixture
def server(home: Path) -> Iterator[Listening]:
    with listening(home / "s") as made:
        yield made
