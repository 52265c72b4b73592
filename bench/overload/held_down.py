"""A process that gets a part of a core: by a control group of its own, else by stopping it most of the time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.processes import cores, repeating

GROUP = f"wazuh-comms-overload-{os.getpid()}"
PERIOD_US = 10_000
#: Against whatever else runs: the group gets its part at once.
SHARES = 262_144
#: Without control groups: seconds of one stop and go.
DUTY_S = 0.01


@contextmanager
def held_down(pid: int, share: float) -> Iterator[str]:
    """Gives what holds it down: ``cpu.cfs_quota_us``, ``cpu.max`` or ``SIGSTOP``. Its threads lose a real-time
    scheduling that they may have inherited: quotas aren't for that."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(int(thread.name), {cores()[0]})
    for folder, limit in (
        (Path("/sys/fs/cgroup/cpu") / GROUP, "cpu.cfs_quota_us"),
        (Path("/sys/fs/cgroup") / GROUP, "cpu.max"),
    ):
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if not (folder / limit).exists():
                continue
            limit_group(folder, limit, share)
            (folder / "cgroup.procs").write_text(str(pid))
            yield limit
            return
        except OSError:
            continue
        finally:
            with suppress(OSError):
                (folder.parent / "cgroup.procs").write_text(str(pid))
            with suppress(OSError):
                folder.rmdir()
    with stop_and_go(pid, share):
        yield "SIGSTOP"


def limit_group(folder: Path, limit: str, share: float) -> None:
    quota = int(share * PERIOD_US)
    if limit == "cpu.max":
        (folder / limit).write_text(f"{quota} {PERIOD_US}")
        (folder / "cpu.weight").write_text("10000")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / limit).write_text(str(quota))
        (folder / "cpu.shares").write_text(str(SHARES))


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
