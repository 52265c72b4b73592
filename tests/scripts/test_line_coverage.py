"""``scripts/lib/line_coverage.py``: what a process ran is told, however it ends in order, and what it didn't isn't."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from coverage import CoverageData

MEASURE = Path(__file__).parents[2] / "scripts/lib/line_coverage.py"
MODULE = "def ran() -> str:\n    return 'ran'\n\n\ndef never() -> str:\n    return 'never'\n"
START = "exec(open({0!r}).read(), {{'__name__': 'collecting', '__file__': {0!r}}})\n"

pytestmark = pytest.mark.processes


@pytest.fixture
def measure(tmp_path: Path) -> Path:
    """The program in a tree whose package has two functions."""
    program = tmp_path / "scripts/lib/line_coverage.py"
    program.parent.mkdir(parents=True)
    shutil.copy(MEASURE, program)
    (tmp_path / "wazuh_comms_trio").mkdir()
    (tmp_path / "wazuh_comms_trio/__init__.py").touch()
    (tmp_path / "wazuh_comms_trio/module.py").write_text(MODULE)
    (tmp_path / "wazuh_comms_trio/unused.py").write_text(MODULE)
    (tmp_path / "collected").mkdir()
    return program


@pytest.mark.parametrize("end", ["", "import os; os._exit(0)", "import sys; sys.exit()", "raise KeyboardInterrupt"])
def test_lines_that_ran(measure: Path, tmp_path: Path, end: str) -> None:
    folder = tmp_path / "collected"
    program = START.format(str(measure)) + f"from wazuh_comms_trio.module import ran\nran()\n{end}"
    environment = {**os.environ, "LINE_COVERAGE": str(folder)}
    for _ in range(2):  # two processes are one figure
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    subprocess.run([sys.executable, measure, "report", folder], check=True)
    data = CoverageData(str(folder / "data"))
    data.read()
    ran = {Path(file).name: data.lines(file) for file in data.measured_files()}
    assert ran["module.py"] == [1, 2, 5]
    assert ran["unused.py"] == []


def test_elsewhere_nothing_is_measured(measure: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "wazuh_comms_trio", elsewhere / "wazuh_comms_trio")
    program = START.format(str(measure)) + "import wazuh_comms_trio.module"
    environment = {**os.environ, "LINE_COVERAGE": str(tmp_path / "collected")}
    subprocess.run([sys.executable, "-c", program], cwd=elsewhere, env=environment, check=True)
    assert {part.read_text() for part in (tmp_path / "collected").iterdir()} == {"{}"}
