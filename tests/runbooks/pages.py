"""A page's commands -> steps, and their run.

Every block that is marked ``sh`` is run, in the page's order, on the machine that a comment before it names
(``<!-- on: old -->``; else on ``node``). ``<!-- not run: why -->`` leaves one out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import frozen

__all__ = ["Step", "run_page", "steps_of"]

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
HERE = Path(__file__).parent
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child")
_NOTE = r"(?: *<!-- (?P<note>.*?) -->\n+)?"
_BLOCK = re.compile(rf"^{_NOTE}(?P<indent> *)```sh\n(?P<text>.*?)\n *```$", re.MULTILINE | re.DOTALL)
LIMIT = 240.0


@frozen
class Step:
    machine: str
    text: str


def steps_of(page: str) -> list[Step]:
    """Indented blocks, as they stand in lists, lose their indent."""
    steps = []
    for block in _BLOCK.finditer(page):
        note, indent = block["note"] or "", block["indent"]
        if note.startswith("not run: "):
            continue
        assert not note or note.startswith("on: "), f"unknown note: {note}"
        lines = [line.removeprefix(indent) for line in block["text"].split("\n")]
        steps.append(Step(note.removeprefix("on: ") or "node", "\n".join(lines) + "\n"))
    return steps


def run_page(name: str, folder: Path, *, before: Sequence[Step] = (), after: Sequence[Step] = ()) -> list[str]:
    """What each step of the page, and of ``after``, printed. Fails with all that was printed when a step fails; skips
    where namespaces can't be made."""
    require_namespaces()
    steps = [*before, *steps_of((PAGES / f"{name}.md").read_text()), *after]
    shutil.copytree(HERE / "stubs", folder / "stubs")
    (folder / "steps").mkdir()
    for number, step in enumerate(steps):
        (folder / "steps" / f"{number:03}.{step.machine}").write_text(_patient(step.text))
    machines = sorted({step.machine for step in steps})
    command = [*UNSHARE, "sh", str(HERE / "machines.sh"), str(folder), str(Path(sys.executable).parent)]
    command += [str(HERE.parents[1]), *machines]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    parts = re.split(r"^### \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(parts) == len(steps)
    return parts[len(before) :]


def _patient(text: str) -> str:
    """On a machine that is busy with other tests `status` rightly ends with 1: the event loop was late. What is to end
    with 1 by the page's own words has to."""
    text = re.sub(r"^wazuh-comms status( +#.*)?$", "wazuh-comms status || [ $? = 1 ]", text, flags=re.MULTILINE)
    failing = r"if \1; then false; else [ $? = 1 ]; fi"
    return re.sub(r"^(wazuh-comms .*?) +# exit status 1$", failing, text, flags=re.MULTILINE)


def require_namespaces() -> None:
    if os.geteuid() != 0:
        pytest.skip("machines for runbooks are namespaces, which root alone makes here")
    if missing := [program for program in ("unshare", "ip", "openssl", "curl") if shutil.which(program) is None]:
        pytest.skip(f"runbooks need what isn't here: {', '.join(missing)}")
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("no namespaces may be made here")
