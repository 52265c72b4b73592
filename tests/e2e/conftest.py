"""What the tests of real processes start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.processes import Files, write_files


@pytest.fixture
def daemon_files(tmp_path: Path, certificates: Certificates) -> Files:
    return write_files(tmp_path, certificates.cert, certificates.key)
