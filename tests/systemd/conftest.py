"""What the tests under a service manager start from."""

from __future__ import annotations

from tests.supervisor.conftest import make_files

__all__ = ["make_files"]
