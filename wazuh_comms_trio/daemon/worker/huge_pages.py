"""The worker's memory in huge pages, where the system has them.

What one request touches lies in a thousand pages of 4 kB, all over the heap. Where others use the processor's caches,
too, finding a page takes longer than using what is on it, and in a virtual machine it is looked up twice.
"""

from __future__ import annotations

import ctypes
import re
from array import array
from collections.abc import Iterable, Iterator
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, BinaryIO, Final

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
#: Huge pages that one call makes. Each call waits for all processors first, while nobody here maps or unmaps memory:
#: on a machine with nine times the work it can do, one page a call, the event loop stood still for up to 2.7 s.
AT_ONCE: Final = 64
#: Private memory without a file, and the heap.
_ANONYMOUS: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?\n?")


async def use_huge_pages(run_blocking: RunBlocking) -> None:
    """At once, and again whenever the process has grown, in threads: 64 pages take half a second. Ends where the system
    has none, its operator wants none, or this kernel can't."""
    size = huge_page_bytes() if can_collapse() else 0
    most = 0
    while size:
        if (held := private_bytes()) >= most + GROWN:
            with left_out_without_threads():
                for begin, end in await run_blocking(filled_ranges, size):
                    await run_blocking(collapse, begin, end)
                most = held
        await sleep_until_next_tick(INTERVAL)


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
    there = sum(entry >> 63 for entry in array("Q", pagemap.read(size // PAGESIZE * 8)))
    return there >= FILLED * size / PAGESIZE


def filled_ranges(size: int) -> list[tuple[int, int]]:
    """What becomes huge pages; nothing where the system doesn't let this process look, or not now."""
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            return list(in_one_go((one for one in whole_pages(maps, size) if is_filled(pagemap, one, size)), size))
    except OSError:
        return []


def in_one_go(addresses: Iterable[int], size: int) -> Iterator[tuple[int, int]]:
    """Neighbours together, as ranges, ``AT_ONCE`` at most."""
    begin = end = 0
    for address in addresses:
        if address != end or end - begin >= AT_ONCE * size:
            if end:
                yield begin, end
            begin = address
        end = address + size
    if end:
        yield begin, end


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
