"""What these tests start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.e2e.processes import Files, write_files


@pytest.fixture
def make_files(tmp_path: Path, certificates: Certificates) -> Callable[..., Files]:
    """``make_files(workers=2)``: a configuration in the test's own folder."""

    def make(**changes: Any) -> Files:
        return write_files(tmp_path, certificates.cert, certificates.key, **changes)

    return make
