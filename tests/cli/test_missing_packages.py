"""A bare installation's tool: it names the extra of what was installed, and no package of an index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
sys.modules["msgspec"] = None  # as if it weren't installed
from wazuh_comms_trio.cli.tool import main
sys.exit(main())
"""
ANY_FILE = "install the wheel or the checkout again with its extra, as in: pip install './FILE.whl[daemon]'"


@pytest.mark.parametrize(
    ("noted", "hint"),
    [
        ('{"url": "file:///srv/my%20files/x.whl", "archive_info": {}}', "pip install '/srv/my files/x.whl[daemon]'"),
        ('{"url": "file:///srv/checkout", "dir_info": {}}', "pip install '/srv/checkout[daemon]'"),
        ('{"url": "https://git.invalid/x", "vcs_info": {}}', ANY_FILE),
        (None, ANY_FILE),  # from an index, or by hand
        ("no JSON", ANY_FILE),
        ("[]", ANY_FILE),
    ],
    ids=["a wheel", "a checkout", "a repository", "nothing", "no JSON", "no object"],
)
def test_the_hint_names_what_was_installed(noted: str | None, hint: str, tmp_path: Path) -> None:
    folder = tmp_path / "wazuh_comms_trio-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: wazuh-comms-trio\nVersion: 0.1.0\n")
    if noted is not None:
        (folder / "direct_url.json").write_text(noted)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "status"],
        env={**os.environ, "PYTHONPATH": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"needs the daemon's packages: {hint}\n")
    assert "'wazuh-comms-trio[" not in done.stderr
