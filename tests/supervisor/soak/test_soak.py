"""What ``scripts/soak`` does for long, for seconds; and how it judges what it saw."""

from __future__ import annotations

import random
import sys
from typing import Any, cast

import attrs
import pytest
import trio

from tests.lossy_network import CANNOT, in_namespace
from tests.supervisor.soak.hour import Load, Sample, growth, judge

MB = 1_000_000


@pytest.mark.real_clock
@pytest.mark.processes
async def test_polls_that_are_parked_while_packets_are_lost() -> None:
    command = [sys.executable, "-m", "tests.supervisor.soak", "polls", "--in-namespace", "--polls=40", "--seconds=5"]
    done = await trio.run_process(in_namespace(command), capture_stdout=True, capture_stderr=True, check=False)
    said = done.stdout.decode()
    if done.returncode == CANNOT or "skipped" in said:
        pytest.skip(said.strip() or done.stderr.decode().strip())
    assert done.returncode == 0, said + done.stderr.decode()
    assert "40 ended with 408" in said


# --- the hour

SECONDS, WINDOW = 3600.0, 600.0


def samples(pid: int, *, start: int, hourly: int, spikes: int = 0) -> list[Sample]:
    """Every ten seconds from the twentieth minute on; ``spikes``: bytes that are there half of the time."""
    moments = [1200 + 10 * n for n in range(240)]
    return [
        Sample(moment, pid, start + int(hourly * moment / 3600) + spikes * (n % 2), 30, 40)
        for n, moment in enumerate(moments)
    ]


def load_with(first: float, last: float) -> Load:
    """Answers that took so long, in the first and in the last ten minutes."""
    load = Load(cast(Any, None), cast(Any, None), [], random.Random(1))
    load.times = [(n / 2, first if n < 3600 else last) for n in range(7200)]
    return load


def verdict(load: Load, seen: list[Sample], after: Sample) -> list[str]:
    before = Sample(0, after.pid, 0, 30, 40)
    return judge(load, 0.0, SECONDS, WINDOW, seen, [before], [after], lambda text: None)


QUIET = Sample(3700, 1, 0, 30, 40)


def test_growth_is_what_stays() -> None:
    assert growth(samples(1, start=90 * MB, hourly=0, spikes=20 * MB)) == 0
    assert growth(samples(1, start=90 * MB, hourly=5 * MB, spikes=20 * MB)) == pytest.approx(5, abs=0.1)
    assert growth(samples(1, start=90 * MB, hourly=-3 * MB)) == pytest.approx(-3, abs=0.1)


def test_an_hour_without_fault() -> None:
    seen = samples(1, start=90 * MB, hourly=MB // 2, spikes=3 * MB)
    assert verdict(load_with(0.010, 0.011), seen, QUIET) == []
    assert verdict(load_with(0.010, 0.011), seen, attrs.evolve(QUIET, descriptors=32, tasks=38)) == []


@pytest.mark.parametrize(
    ("changes", "hourly", "last", "said"),
    [
        ({}, 2 * MB, 0.010, "worker 1 grew by 2.0"),
        ({"descriptors": 33}, 0, 0.010, "kept descriptors or tasks"),
        ({"tasks": 43}, 0, 0.010, "kept descriptors or tasks"),
        ({}, 0, 0.0125, "p99 grew to 1.25 x"),
    ],
)
def test_what_is_wrong(changes: dict[str, int], hourly: int, last: float, said: str) -> None:
    seen = samples(1, start=90 * MB, hourly=hourly)
    (sentence,) = verdict(load_with(0.010, last), seen, attrs.evolve(QUIET, **changes))
    assert said in sentence


def test_a_worker_that_was_replaced_and_requests_that_failed() -> None:
    load = load_with(0.010, 0.010)
    load.failed["poll: 503"] = 2
    before = Sample(0, 1, 0, 30, 40)
    wrong = judge(load, 0.0, SECONDS, WINDOW, [], [before], [attrs.evolve(QUIET, pid=2)], lambda text: None)
    assert wrong == ["failed: 2 x poll: 503", "a worker was replaced"]
