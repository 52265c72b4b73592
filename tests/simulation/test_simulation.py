"""The simulator itself: its runs are repeatable, seeds pass, and it fails when something is wrong."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.simulation.plan import BACKUPS, CALLS, DISK, INDEX, NETWORK, NODES, POWER, SUDDEN, make_plan
from tests.simulation.planted.faults import PATCHES, search

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.real_clock
def test_a_seed_does_the_same_twice(tmp_path: Path) -> None:
    traces = []
    for name, arguments in (("first", ("--seed", "11")), ("second", ("--seed", "11"))):
        run = simulate(*arguments, "--trace", str(tmp_path / name))
        assert run.returncode == 0, run.stdout + run.stderr
        traces.append((tmp_path / name).read_text())
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 100


@pytest.mark.real_clock
def test_what_ran_before_changes_nothing() -> None:
    """What modules of the project keep is reset."""
    alone = simulate("--seeds", "1", "--from", "12", "--hashes")
    after = simulate("--seeds", "2", "--from", "11", "--hashes")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    hashes = [line for line in alone.stdout.splitlines() if line.startswith("hash of 12")]
    assert len(hashes) == 1
    assert hashes[0] in after.stdout


@pytest.mark.real_clock
def test_seeds_pass() -> None:
    """``scripts/simulate`` runs more."""
    run = simulate("--seeds", "200", "--from", "1000", "--jobs", "2", "--quiet", "--seconds", "150")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("patch", sorted(PATCHES.glob("*.patch")), ids=lambda patch: patch.stem)
def test_a_planted_fault_applies(patch: Path) -> None:
    """Whoever changes what it breaks brings it up to date."""
    command = ["patch", "-p1", "--dry-run", "--batch", "--forward", "--fuzz=1", "-i", str(patch)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.real_clock
@pytest.mark.parametrize("name", ["confirmed-early", "connection-left-open", "foreign-metadata"])
def test_a_planted_fault_is_found(name: str) -> None:
    """``scripts/simulate --planted`` tries all."""
    assert search(PATCHES / f"{name}.patch", 40).seeds is not None


def test_trios_private_switches_are_there() -> None:
    assert isinstance(trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, bool)
    assert isinstance(trio._core._run._r, random.Random)


def test_a_plan_is_the_seeds_and_every_kind_of_fault_comes() -> None:
    assert make_plan(5) == make_plan(5)
    assert make_plan(5) != make_plan(6)
    kinds = {fault.kind for seed in range(200) for fault in make_plan(seed).faults}
    assert kinds == {*SUDDEN, *NETWORK, *CALLS, *INDEX, *POWER, *DISK, *BACKUPS, *NODES}


def test_faults_can_be_left_out_and_nothing_else_changes() -> None:
    whole = make_plan(5)
    part = make_plan(5, only={whole.faults[0].number})
    assert part.faults == whole.faults[:1]
    assert (part.nodes, part.seconds, part.agents) == (whole.nodes, whole.seconds, whole.agents)
