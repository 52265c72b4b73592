"""Folders that killed runs leave go with the next run, and no folder of one that lives."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import open_files
from tests.simulation.stores import scratch
from tests.simulation.stores.scratch import PREFIX

ROOT = Path(__file__).parents[3]
RUN = """
import sys
from pathlib import Path
from tests.simulation.stores.scratch import own_folder
folder = own_folder(Path(sys.argv[1]))
(folder / "of a run").mkdir()
(folder / "of a run" / "state.db").write_text("x")
print(folder, flush=True)
sys.stdin.read()
"""


def start(place: Path) -> tuple[subprocess.Popen[str], Path]:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(place)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    return run, Path(run.stdout.readline().strip())


def end(run: subprocess.Popen[str]) -> None:
    run.communicate("", timeout=60)


@pytest.mark.real_clock
def test_what_a_killed_run_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    killed, left = start(tmp_path)
    living, used = start(tmp_path)
    killed.kill()
    end(killed)
    assert (left / "of a run" / "state.db").exists()
    other = tmp_path / "somebody-elses"
    other.mkdir()
    last, _ = start(tmp_path)
    assert not left.exists()
    assert (used / "of a run" / "state.db").exists()
    assert other.exists()
    end(last)
    end(living)
    assert list(tmp_path.iterdir()) == [other]
    assert (last.returncode, living.returncode) == (0, 0)


def test_a_folder_that_was_swept_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's sweep comes between the two; what it takes away it has locked before."""
    flock, swept = fcntl.flock, []

    def sweep_first(descriptor: int, how: int) -> None:
        if not swept:
            (folder,) = tmp_path.glob(f"{PREFIX}*")
            swept.append(folder)
            folder.rmdir()
        flock(descriptor, how)

    monkeypatch.setattr(scratch.atexit, "register", lambda *_, **__: None)
    monkeypatch.setattr(fcntl, "flock", sweep_first)
    folder = scratch.own_folder.__wrapped__(tmp_path)
    assert folder not in swept
    assert list(tmp_path.iterdir()) == [folder]
    (held,) = [descriptor for descriptor, target in open_files() if target == str(folder)]
    os.close(int(held))
