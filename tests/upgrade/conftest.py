"""What the tests of two versions start from."""

from __future__ import annotations

from tests.supervisor.conftest import make_files

__all__ = ["make_files"]
