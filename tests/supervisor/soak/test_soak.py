"""What ``scripts/soak`` does for long, for seconds; and how it judges what it saw."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio

from tests.lossy_network import CANNOT, in_namespace
from tests.supervisor.soak.figures import MEMORY_SAMPLE, Memory, Sample, growth
from tests.supervisor.soak.hour import Load, judge
from tests.supervisor.soak.watches import WATCHDOG, WATCHDOG_USEC, OldToken, not_fed
from tests.systemd.manager import open_manager
from wazuh_comms_trio.daemon.systemd import Notifier, watchdog_interval
from wazuh_comms_trio.testing import Reply

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
    assert growth(samples(1, start=90 * MB, hourly=3 * MB)[:20]) == pytest.approx(3, abs=0.5)
    assert math.isnan(growth(samples(1, start=90 * MB, hourly=3 * MB)[:1]))


def given_back_each_minute(interval: float, rng: random.Random) -> list[Memory]:
    """Forty minutes of a worker that gives 10 MB back on each full minute and has them again a few seconds later, now
    sooner, now later; looked at about every ``interval``, since looking takes a while, too."""
    again = [rng.uniform(2, 20) for _ in range(60)]
    samples, moment = [], 1200.0
    while moment < SECONDS:
        minute, second = divmod(moment, 60)
        gone = 10 * MB * max(0.0, 1 - second / again[int(minute)])
        samples.append(Memory(moment, 1, 100 * MB - int(gone)))
        moment += interval * rng.uniform(1, 1.04)
    return samples


def test_what_is_given_back_each_minute_is_no_growth() -> None:
    seeds = range(10)
    assert all(abs(growth(given_back_each_minute(MEMORY_SAMPLE, random.Random(seed)))) < 0.2 for seed in seeds)
    # Why it is looked at so often.
    assert any(abs(growth(given_back_each_minute(10, random.Random(seed)))) > 1 for seed in seeds)


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


# --- what is watched beside it


async def test_a_watchdog_that_is_fed_and_one_that_is_not(tmp_path: Path, autojump_clock: Any) -> None:
    async with open_manager(tmp_path) as manager:
        assert manager.fed(0.0) == (0, math.inf)
        environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": WATCHDOG_USEC}
        assert watchdog_interval(environment) == WATCHDOG
        notifier = Notifier(environment)
        began = trio.current_time()
        for number, later in enumerate((0.0, 10.0, 20.0 + WATCHDOG, 30.0 + WATCHDOG), 1):
            await trio.sleep_until(began + later)
            notifier.status("serving")
            notifier.alive()
            await manager.told("WATCHDOG", "1", times=number)
        fed, pause = manager.fed(trio.current_time())
        assert (fed, pause) == (4, pytest.approx(40))
        assert not_fed(pause) == ["the watchdog wasn't fed for 40.0 s"]
        assert not_fed(WATCHDOG) == []
        assert manager.fed(trio.current_time() + 50) == (4, pytest.approx(50))


@pytest.mark.parametrize(
    ("age", "status", "right"),
    [(30, 200, True), (30, 403, False), (900, 200, True), (900, 403, True), (930, 403, True), (930, 200, False)],
)
def test_an_old_token(age: float, status: int, right: bool) -> None:
    token = OldToken(cast(Any, None))
    token.judge(Reply(status, (), b""), age)
    assert (token.wrong == []) == right
