"""What the tests of keys start from."""

from __future__ import annotations

from tests.supervisor.conftest import make_files

__all__ = ["make_files"]
