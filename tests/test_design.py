"""docs/design.md leads to files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_that_the_design_names_exists() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", text)) | set(re.findall(r"^# ([\w/]+\.py)", text, re.MULTILINE))
    there = [path.relative_to(ROOT / "wazuh_comms_trio") for path in (ROOT / "wazuh_comms_trio").rglob("*.py")]
    missing = {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in there)}
    assert len(named) > 30
    assert missing == set()
