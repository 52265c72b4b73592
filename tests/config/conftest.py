"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config.loading import Load
from wazuh_comms_trio.config.load import LoadedConfig, load_config


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def load_it(text: str | bytes, **options: Any) -> LoadedConfig:
        file = tmp_path / "wazuh-server.yml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(file, **{"check_files": False, **options})

    return load_it
