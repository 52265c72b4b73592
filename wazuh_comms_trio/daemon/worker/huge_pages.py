"""The worker's memory in huge pages, where the system has them.

What one request touches lies in a thousand pages of 4 kB, all over the heap. Where others use the processor's caches,
too, finding a page takes longer than using what is on it, and in a virtual machine it is looked up twice.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, BinaryIO, Final

import trio

from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.foundation.resources import left_out_without_threads, private_bytes

__all__ = ["use_huge_pages"]

SETTINGS: Final = Path("/sys/kernel/mm/transparent_hugepage")
#: ``MADV_COLLAPSE`` of Linux 6.1: makes one page of what is there, now, and changes nothing for what comes later, so
#: that memory that was given back isn't filled again.
COLLAPSE: Final = 25
#: Pages that are there already of those that become one: a thread's stack has a few of thousands.
FILLED: Final = 3 / 4
#: Seconds between two looks whether the process has grown, and bytes by which it has: what comes with the first
#: requests is used by all later ones.
INTERVAL: Final = 10.0
GROWN: Final = 4 * 1024 * 1024
#: Huge pages that one call makes, and seconds between two calls. A page takes up to 4 ms of CPU, during which nobody
#: here maps memory or comes to a page that isn't there: with twenty of them in a call the event loop of a daemon that
#: was held to a fifth of a core stood still for 180 ms.
AT_ONCE: Final = 1
PAUSE: Final = 0.25
#: Each call waits for all processors first. Where that takes so many seconds the next one makes so many times as many,
#: up to the last: on a machine with nine times the work it can do, one page a call, a mapping waited for up to 2.7 s.
#: What a thread has beside its CPU, up to so many times that, isn't such waiting.
LONG: Final = 0.1
MORE: Final = 4
MOST_AT_ONCE: Final = 64
CPU_SHARE: Final = 10
#: Private memory without a file, and the heap.
_ANONYMOUS: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?\n?")

#: Which of eight bytes is the highest, and those of pages that aren't there.
_HIGHEST: Final = 7 if sys.byteorder == "little" else 0
_NOT_THERE: Final = bytes(range(0x80))


async def use_huge_pages(run_blocking: RunBlocking) -> None:
    """At once, and again whenever the process has grown, in threads and in small pieces. Ends where the system has
    none, its operator wants none, or this kernel can't."""
    size = huge_page_bytes() if can_collapse() else 0
    most, made = 0, set[int]()
    while size:
        if (held := private_bytes()) >= most + GROWN:
            with left_out_without_threads():
                filled = await run_blocking(filled_pages, size)
                made.intersection_update(filled)
                await make_pages([one for one in filled if one not in made], size, made, run_blocking)
                most = held
        await sleep_until_next_tick(INTERVAL)


async def make_pages(addresses: Sequence[int], size: int, made: set[int], run_blocking: RunBlocking) -> None:
    """Makes huge pages of those at ``addresses``, in their order, and adds them to ``made``; what couldn't become one
    is left out."""
    done, most = 0, AT_ONCE
    while done < len(addresses):
        count = neighbours(addresses, done, size, most)
        is_made, waited = await run_blocking(timed, collapse, addresses[done], addresses[done] + count * size)
        if is_made:
            made.update(addresses[done : done + count])
        if waited >= LONG:
            most = min(MORE * most, MOST_AT_ONCE)
        done += count
        await trio.sleep(PAUSE)


def huge_page_bytes(settings: Path = SETTINGS) -> int:
    """0: there are none, or none are wanted."""
    try:
        if "[never]" in (settings / "enabled").read_text():
            return 0
        return int((settings / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def whole_pages(maps: Iterable[str], size: int) -> Iterator[int]:
    """Where a huge page fits into what ``maps``, lines of ``/proc/self/maps``, say is private memory."""
    for line in maps:
        if found := _ANONYMOUS.fullmatch(line):
            begin, end = (int(one, 16) for one in found.groups())
            yield from range(-(-begin // size) * size, end // size * size, size)


def is_filled(pagemap: BinaryIO, address: int, size: int) -> bool:
    """Whether most of the ``size`` bytes at ``address`` are there. Of each page ``/proc/self/pagemap`` has eight bytes
    in the machine's order, the highest bit of which says so."""
    pagemap.seek(address // PAGESIZE * 8)
    highest = pagemap.read(size // PAGESIZE * 8)[_HIGHEST::8]
    return len(highest.translate(None, _NOT_THERE)) >= FILLED * size / PAGESIZE


def filled_pages(size: int) -> list[int]:
    """The addresses of what huge pages can be made of, those that are such already among them; nothing where the system
    doesn't let this process look, or not now."""
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            return [one for one in whole_pages(maps, size) if is_filled(pagemap, one, size)]
    except OSError:
        return []


def neighbours(addresses: Sequence[int], first: int, size: int, most: int) -> int:
    """How many from the ``first`` on lie side by side, ``most`` at most."""
    count = 1
    while (
        count < most and first + count < len(addresses) and addresses[first + count] == addresses[first] + count * size
    ):
        count += 1
    return count


def timed(fn: Callable[[int, int], bool], begin: int, end: int) -> tuple[bool, float]:
    """What ``fn`` returns, and the seconds for which it had to wait for others."""
    wall, cpu = time.perf_counter(), time.thread_time()
    done = fn(begin, end)
    return done, time.perf_counter() - wall - CPU_SHARE * (time.thread_time() - cpu)


def can_collapse() -> bool:
    """Whether the kernel knows how: of nothing at all it says only that."""
    return collapse(0, 0)


def collapse(begin: int, end: int) -> bool:
    """Makes huge pages of a range, in the kernel and without Python's lock. What is no memory any more stays away."""
    try:
        library: Any = ctypes.CDLL(None)
        return not library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), COLLAPSE)
    except (OSError, AttributeError):
        return False
