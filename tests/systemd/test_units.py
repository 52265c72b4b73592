"""The units, as systemd's own checks see them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE, SOCKET = UNITS / "wazuh-comms-apid.service", UNITS / "wazuh-comms-apid.socket"

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't here")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs_analyze
@pytest.mark.processes
def test_the_units_are_sound(tmp_path: Path) -> None:
    # With programs that are there: the check looks for them.
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit.name).write_text(re.sub(r"/usr/local/bin/wazuh-comms(-apid)?", "/bin/true", unit.read_text()))
    done = analyze(
        "verify", "--man=no", "--recursive-errors=no", str(tmp_path / SERVICE.name), str(tmp_path / SOCKET.name)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
@pytest.mark.processes
def test_the_exposure_is_below_2() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(SERVICE))
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert match, done.stdout + done.stderr
    assert float(match[1]) < 2.0


def test_what_the_daemon_relies_on() -> None:
    text = SERVICE.read_text()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "RestartPreventExitStatus=78",
        "KillMode=mixed",
        "WatchdogSec=30",
        "User=wazuh-comms",
        "LimitCORE=0",
    ):
        assert f"\n{line}\n" in text
    assert "\nFileDescriptorName=agents\n" in SOCKET.read_text()
