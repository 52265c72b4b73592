"""Debian's Prometheus and promtool, as scripts/test unpacks them; without them a test is skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / ".cache/prometheus/usr/bin"
RULES = ROOT / "conf/prometheus/wazuh-comms.rules.yml"


def program(name: str) -> str:
    """``prometheus`` or ``promtool``."""
    found = UNPACKED / name
    path = str(found) if found.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}: scripts/test unpacks it where apt-get can fetch the package")
    return path


def promtool(*arguments: str, given: bytes = b"") -> str:
    """What it printed; fails when it finds something."""
    done = subprocess.run([program("promtool"), *arguments], input=given, capture_output=True, check=False, timeout=60)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output
