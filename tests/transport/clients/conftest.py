"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(params=["memory", "socket"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {"home": tmp_path} if request.param == "socket" else {}
