"""A process that gets a part of a core: by a control group's quota, or beside a loop that goes before it and leaves it
its part of every millisecond, as on a processor that is so much slower.

A quota of 2 ms in 10 is spent at once, and what it holds is found out at the kernel's own ticks: with 250 of them a
second a process runs for up to 4 ms, and then waits for up to 16.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from bench.processes import cores, repeating

How = Literal["quota", "loop"]
GROUP = f"wazuh-comms-held-{os.getpid()}"
#: Of a quota.
PERIOD_MS = 10
#: Of the loop, seconds.
LOOP_S = 0.001
#: Against whatever else runs: the group gets its part at once.
SHARES = 262_144
#: Without control groups: seconds of one stop and go.
DUTY_S = 0.01


@contextmanager
def held_down(
    pid: int, share: float, how: How = "quota", period_ms: int = PERIOD_MS, *, core: int | None = None
) -> Iterator[str]:
    """Gives what holds it down: ``cpu.cfs_quota_us``, ``cpu.max``, ``SIGSTOP`` or ``a loop``. Its threads lose a
    real-time scheduling that they may have inherited: quotas aren't for that. ``core``: it is put on; the servers'."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(int(thread.name), {cores()[0] if core is None else core})
    group = made_group(f"{GROUP}-{pid}", share, how, period_ms)
    if group is None:
        with busy_beside(share) if how == "loop" else stop_and_go(pid, share):
            yield "a loop" if how == "loop" else "SIGSTOP"
        return
    folder, limit = group
    try:
        (folder / "cgroup.procs").write_text(str(pid))
        if how == "quota":
            yield f"{limit}, {share * period_ms:g} ms in {period_ms}"
        else:
            with busy_beside(share):
                yield "a loop"
    finally:
        with suppress(OSError):
            (folder.parent / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            folder.rmdir()


def made_group(name: str, share: float, how: How, period_ms: int) -> tuple[Path, str] | None:
    """A control group that goes before others, with its quota if that is how; None where there can't be one."""
    for folder, limit in (
        (Path("/sys/fs/cgroup/cpu") / name, "cpu.cfs_quota_us"),
        (Path("/sys/fs/cgroup") / name, "cpu.max"),
    ):
        try:
            folder.mkdir()
        except OSError:
            continue
        with suppress(OSError):
            if (folder / limit).exists():
                prefer_group(folder, limit)
                if how == "quota":
                    limit_group(folder, limit, share, period_ms)
                return folder, limit
        folder.rmdir()
    return None


def limit_group(folder: Path, limit: str, share: float, period_ms: int) -> None:
    period = 1000 * period_ms
    quota = int(share * period)
    if limit == "cpu.max":
        (folder / limit).write_text(f"{quota} {period}")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(period))
        (folder / limit).write_text(str(quota))


def prefer_group(folder: Path, limit: str) -> None:
    if limit == "cpu.max":
        (folder / "cpu.weight").write_text("10000")
    else:
        (folder / "cpu.shares").write_text(str(SHARES))


@contextmanager
def busy_beside(share: float) -> Iterator[None]:
    """On the servers' core, and before everything else there."""
    process = subprocess.Popen([sys.executable, "-m", "bench.overload.held_down", str(share)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"busy\n":
            raise SystemExit("the loop that is to hold the server down couldn't begin: it needs root")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def be_busy(share: float) -> None:
    """Until its parent is gone."""
    os.sched_setaffinity(0, {cores()[0]})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    parent = os.getppid()
    print("busy", flush=True)
    clock, end = time.perf_counter, time.perf_counter()
    while os.getppid() == parent:
        end += LOOP_S
        busy = end - share * LOOP_S
        while clock() < busy:
            pass
        time.sleep(max(0.0, end - clock()))


@contextmanager
def stop_and_go(pid: int, share: float) -> Iterator[None]:
    def run_a_while() -> None:
        os.kill(pid, signal.SIGCONT)
        time.sleep(share * DUTY_S)
        os.kill(pid, signal.SIGSTOP)

    try:
        with repeating(run_a_while, (1 - share) * DUTY_S):
            yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    be_busy(float(sys.argv[1]))
