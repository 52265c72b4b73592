"""The simulator itself: its runs are repeatable, seeds pass, and it fails when something is wrong."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio
from attrs import fields

from tests.simulation.plans.faults import (
    BACKUPS,
    BUSY,
    CALLS,
    DISK,
    ENGINE,
    INDEX,
    INDEXER,
    LEFT,
    NETWORK,
    POWER,
    STARTS,
    STOPPED,
    SUDDEN,
    TOLD,
)
from tests.simulation.plans.features import Features
from tests.simulation.plans.plan import make_plan
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
def test_ctrl_c_ends_all_jobs() -> None:
    """It is no failure of the seed that runs, and no process goes on."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "1000", "--jobs", "2", "--hashes", "--quiet"]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        jobs: set[int] = set()
        while len(jobs) < 2:  # both run seeds
            line = run.stdout.readline()
            assert line.startswith("hash of "), line
            jobs.add(int(line.split()[2].rstrip(":")) % 2)
        run.send_signal(signal.SIGINT)
        rest = run.stdout.read()  # until the last process has ended
    assert run.returncode == 128 + signal.SIGINT
    assert all(line.startswith("hash of ") for line in rest.splitlines()), rest


@pytest.mark.real_clock
def test_one_job_that_ends_badly_is_told_by_the_exit_status() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "1000", "--jobs", "2", "--hashes", "--seconds", "1"]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("hash of ")
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        while len(found := children.read_text().split()) < 2:  # the other one may be started later than that is said
            assert run.stdout.readline()
        os.kill(int(found[0]), signal.SIGKILL)
        run.stdout.read()
    assert run.returncode == 1


@pytest.mark.real_clock
def test_seeds_pass() -> None:
    """``scripts/simulate`` runs more. What each does is enough to find something."""
    run = simulate("--seeds", "200", "--from", "1000", "--jobs", "2", "--quiet", "--seconds", "150")
    assert run.returncode == 0, run.stdout + run.stderr
    fewest = [int(number) for number in re.findall(r"at least (\d+) requests in a seed", run.stdout)]
    assert len(fewest) == 2, run.stdout  # one of each job
    assert min(fewest) >= 100, run.stdout


def test_half_of_the_seeds_have_sqlite_and_a_third_the_indexers_client() -> None:
    stores = Counter(make_plan(seed).stores for seed in range(1000, 3000))
    assert stores["embedded"] / stores.total() == pytest.approx(1 / 2, abs=0.05)
    assert stores["indexer"] / stores.total() == pytest.approx(1 / 3, abs=0.05)


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
    assert kinds == {
        *SUDDEN,
        *NETWORK,
        *CALLS,
        *INDEX,
        *POWER,
        *DISK,
        *BACKUPS,
        *INDEXER,
        *ENGINE,
        *BUSY,
        *STOPPED,
        *LEFT,
        *STARTS,
        *TOLD,
    }


def test_every_feature_comes_and_none_always() -> None:
    plans = [make_plan(seed) for seed in range(200)]
    for feature in fields(Features):
        assert {getattr(plan.features, feature.name) for plan in plans} == {True, False}, feature.name


def test_faults_can_be_left_out_and_nothing_else_changes() -> None:
    whole = make_plan(5)
    part = make_plan(5, only={whole.faults[0].number})
    assert part.faults == whole.faults[:1]
    assert (part.nodes, part.seconds, part.agents) == (whole.nodes, whole.seconds, whole.agents)
