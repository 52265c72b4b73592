"""A worker's memory becomes huge pages: where it is filled, where the system has them, and only then."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.daemon.worker import huge_pages
from wazuh_comms_trio.daemon.worker.environment import own_runner
from wazuh_comms_trio.daemon.worker.huge_pages import (
    LONG,
    PAUSE,
    huge_page_bytes,
    neighbours,
    use_huge_pages,
    whole_pages,
)
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick

HUGE = 0x200000

SCRIPT = """
import mmap, re
from functools import partial
from pathlib import Path
import trio
from trio.testing import MockClock
from wazuh_comms_trio.daemon.worker.huge_pages import use_huge_pages

MIB = 1024 * 1024

def huge():
    return sum(int(kib) for kib in re.findall(r"AnonHugePages: +([0-9]+) kB", Path("/proc/self/smaps").read_text()))

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def filled(size):
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * size)
    return block

async def inline(fn, *args):
    await trio.lowlevel.checkpoint()
    return fn(*args)

async def main():
    before = filled(16 * MIB)
    sparse = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(sparse), MIB):
        sparse[at] = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use_huge_pages, inline)
        await trio.sleep(9)
        first = huge()
        after = filled(16 * MIB)
        held = resident()
        await trio.sleep(20)
        print(first, huge(), resident() - held, before[-1], after[-1])
        nursery.cancel_scope.cancel()

trio.run(main, clock=MockClock(autojump_threshold=0))
"""


@pytest.mark.processes
def test_what_is_filled_becomes_huge_pages_and_what_is_not_stays() -> None:
    if not huge_page_bytes():
        pytest.skip("this system has no huge pages, or wants none")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    first, later, grown, *ends = map(int, done.stdout.split())
    if not first:
        pytest.skip("this kernel makes none when it is asked to (Linux 6.1)")
    assert first >= 12 * 1024  # KiB; of 16 MiB the ends may lie across
    assert later >= first + 12 * 1024
    assert grown < 8 * 1024 * 1024  # of what is sparse nothing
    assert ends == [ord("x")] * 2


def test_only_private_memory_without_a_file_is_looked_at() -> None:
    maps = [
        "00200000-00600000 rw-p 00000000 00:00 0                          [heap]",
        "00700000-00b00000 rw-p 00000000 00:00 0 ",
        "01000000-01400000 rw-p 00000000 00:00 0                          [stack]",
        "02000000-02400000 r-xp 00000000 fe:00 77                         /usr/lib/libc.so.6",
        "03000000-03400000 rw-s 00000000 00:01 0                          /dev/shm/x",
        "04000000-04400000 ---p 00000000 00:00 0 ",
        "05000000-05100000 rw-p 00000000 00:00 0 ",
    ]
    assert list(whole_pages(maps, HUGE)) == [0x200000, 0x400000, 0x800000]


@pytest.mark.parametrize(
    ("enabled", "bytes_"), [("always [madvise] never", 2097152), ("[always] madvise never", 2097152), ("[never]", 0)]
)
def test_who_wants_none_has_none(tmp_path: Path, enabled: str, bytes_: int) -> None:
    (tmp_path / "enabled").write_text(f"{enabled}\n")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    assert huge_page_bytes(tmp_path) == bytes_


def test_a_system_without_them_has_none(tmp_path: Path) -> None:
    assert huge_page_bytes(tmp_path) == 0


def test_neighbours_lie_side_by_side() -> None:
    addresses = [HUGE, 2 * HUGE, 3 * HUGE, 9 * HUGE]
    assert [neighbours(addresses, first, HUGE, 64) for first in range(4)] == [3, 2, 1, 1]
    assert neighbours(addresses, 0, HUGE, 2) == 2


class Kernel:
    """Makes huge pages, after a wait for other processors as on a busy machine, madvise(2). Where one is of what went
    away meanwhile it makes none: ``EINVAL``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, filled: list[int], *, waited: float = 0.0) -> None:
        self.filled = filled
        self.gone: set[int] = set()
        self.calls: list[tuple[float, int, int]] = []  # with the moment, and how many pages
        self._waited = waited
        monkeypatch.setattr(huge_pages, "huge_page_bytes", lambda: HUGE)
        monkeypatch.setattr(huge_pages, "can_collapse", lambda: True)
        monkeypatch.setattr(huge_pages, "filled_pages", self.look)
        monkeypatch.setattr(huge_pages, "timed", lambda fn, begin, end: (self.make(begin, end), self._waited))

    def look(self, size: int) -> list[int]:
        return list(self.filled)

    def make(self, begin: int, end: int) -> bool:
        self.calls.append((trio.current_time(), begin // HUGE, (end - begin) // HUGE))
        return not self.gone & set(range(begin, end, HUGE))

    @staticmethod
    async def run_blocking(fn: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return fn(*args)


async def test_a_call_makes_one_page_and_others_have_their_turn_before_the_next(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a page is made the event loop may stand still."""
    kernel = Kernel(monkeypatch, [number * HUGE for number in range(1, 31)])
    with trio.move_on_after(9):
        await use_huge_pages(kernel.run_blocking)
    assert [(page, count) for _, page, count in kernel.calls] == [(number, 1) for number in range(1, 31)]
    assert all(after[0] - before[0] >= 0.99 * PAUSE for before, after in pairwise(kernel.calls))


async def test_where_a_call_waits_for_the_machine_calls_become_few(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, [number * HUGE for number in range(1, 101)], waited=0.4)
    with trio.move_on_after(9):
        await use_huge_pages(kernel.run_blocking)
    assert [count for _, _, count in kernel.calls] == [1, 4, 16, 64, 15]


async def test_what_is_made_is_left_and_what_was_not_is_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the process has grown: each call costs something, of pages that are huge as well."""
    kernel = Kernel(monkeypatch, [HUGE, 3 * HUGE, 5 * HUGE])
    kernel.gone = {3 * HUGE}
    await sleep_until_next_tick(huge_pages.INTERVAL)
    held = iter(n * huge_pages.GROWN for n in (1, 2, 3))
    monkeypatch.setattr(huge_pages, "private_bytes", lambda: next(held))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use_huge_pages, kernel.run_blocking)
        await trio.sleep(5)
        kernel.filled = [3 * HUGE, 5 * HUGE, 7 * HUGE]  # the first one was given back
        kernel.gone = set()
        await trio.sleep(10)
        kernel.filled = [HUGE, 3 * HUGE, 5 * HUGE, 7 * HUGE]
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [page for _, page, _ in kernel.calls] == [1, 3, 5, 3, 7, 1]


def test_waiting_is_what_a_thread_had_no_cpu_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held to a fifth of a core a call takes five times its CPU: that is no waiting for other processors."""

    def call(wall: float, cpu: float) -> tuple[bool, float]:
        walls, cpus = iter([7.0, 7.0 + wall]), iter([3.0, 3.0 + cpu])
        monkeypatch.setattr(huge_pages.time, "perf_counter", lambda: next(walls))
        monkeypatch.setattr(huge_pages.time, "thread_time", lambda: next(cpus))
        return huge_pages.timed(lambda begin, end: end > begin, 0, HUGE)

    is_made, waited = call(0.125, 0.025)
    assert is_made
    assert waited < 0
    assert call(0.5, 0.01)[1] > LONG


async def test_where_no_file_can_be_opened_it_goes_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    async def run_blocking(fn: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        looks.append(fn)
        return fn(*args)

    monkeypatch.setattr(huge_pages, "huge_page_bytes", lambda: HUGE)
    monkeypatch.setattr(huge_pages, "can_collapse", lambda: True)
    monkeypatch.setattr(huge_pages, "collapse", lambda begin, end: True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            nursery.start_soon(use_huge_pages, run_blocking)
            await trio.sleep(15)
            assert not looks
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await trio.sleep(15)
        assert looks
        nursery.cancel_scope.cancel()


@pytest.mark.real_clock
async def test_the_worker_ends_while_pages_are_being_made() -> None:
    """A call that makes many of them takes seconds on a busy machine."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def make() -> None:
        begun.set()
        may_end.wait(5)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(own_runner(), make)
        await trio.to_thread.run_sync(begun.wait, 60)
        nursery.cancel_scope.cancel()
    assert not ended.is_set()
    may_end.set()
