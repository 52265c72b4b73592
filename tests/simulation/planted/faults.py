"""``scripts/simulate --planted``: faults that are put into a copy of the program, one at a time; each has to be found.

A patch's first line says what was broken. Copies are of the package and the simulator alone, in a folder of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

__all__ = ["PATCHES", "Found", "apply", "search"]

ROOT = Path(__file__).parents[3]
PATCHES = ROOT / "tests" / "simulation" / "planted"


@frozen
class Found:
    """``seeds``: how many were tried until one failed; None: all passed. ``why``: what that one said."""

    patch: str
    seeds: int | None
    why: str
    seconds: float


def apply(patch: Path, folder: Path) -> None:
    """Makes a copy with the fault in it. Raises ``CalledProcessError`` when the patch doesn't apply."""
    for name in ("wazuh_comms_trio", "tests/simulation"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests" / "__init__.py").touch()
    (folder / "tests" / "indexer").mkdir()
    for file in (ROOT / "tests" / "indexer" / "__init__.py", *(ROOT / "tests" / "indexer").glob("fake*.py")):
        shutil.copy(file, folder / "tests" / "indexer")
    command = ["patch", "-p1", "--batch", "--forward", "--fuzz=1", "--silent", "-i", str(patch)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def search(patch: Path, seeds: int) -> Found:
    """Runs seeds from 1 on until one fails."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        apply(patch, Path(name))
        command = [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds), "--stop", "--quiet", "--no-shrink"]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        run = subprocess.run(command, cwd=name, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    failed = re.search(r"^seed (\d+): (.*)", run.stdout, re.MULTILINE)
    if failed is None and run.returncode:
        raise RuntimeError(run.stderr)
    if failed is None:
        return Found(patch.stem, None, "", seconds)
    return Found(patch.stem, int(failed[1]), failed[2], seconds)


def search_all(names: Sequence[str], seeds: int) -> int:
    """Returns how many weren't found. ``names``: of patches; none: all."""
    missed = 0
    for patch in sorted(PATCHES.glob("*.patch")):
        if names and patch.stem not in names:
            continue
        found = search(patch, seeds)
        missed += found.seeds is None
        tries = f"not found in {seeds} seeds" if found.seeds is None else f"found by seed {found.seeds}"
        print(f"{found.patch}: {tries} ({found.seconds:.0f} s): {found.why[:100]}", flush=True)
    return missed
