"""Copies of this tree, for tests of what is made of it: somebody may work on it meanwhile."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: Beside what begins with a dot.
_MADE: Final = ("dist", "build", "var")


def copy_tree(folder: Path) -> None:
    """This tree without what is made in it, into a folder that isn't there yet."""

    def left_out(where: str, names: list[str]) -> set[str]:
        made = {name for name in names if name.startswith(".") and name not in (".importlinter", ".gitignore")}
        return made | {"__pycache__"} | (set(_MADE) if where == str(ROOT) else set())

    shutil.copytree(ROOT, folder, ignore=left_out)


def lend_environment(folder: Path, lock: str = "requirements.lock") -> None:
    """Has the copy's scripts find this tree's virtual environment as the one that they would make."""
    venv = folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("bin/python", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(ROOT / ".venv" / name)
    text = (folder / lock).read_bytes() + (folder / "pyproject.toml").read_bytes()
    sums = subprocess.run(["cksum"], input=text, capture_output=True, check=True).stdout
    (venv / f".installed-{lock}").write_bytes(sums)
    (venv / ".made-in").write_text(f"{folder}\n")
