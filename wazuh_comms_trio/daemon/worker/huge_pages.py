"""The worker's memory in huge pages, where the system has them.

What one request touches lies in a thousand pages of 4 kB, all over the heap. Where others use the processor's caches,
too, finding a page takes longer than using what is on it, and in a virtual machine it is looked up twice.
"""

from __future__ import annotations

import ctypes
import errno
import re
from array import array
from collections.abc import Iterable, Iterator
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, BinaryIO, Final

from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import RunBlocking

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
#: Private memory without a file, and the heap.
_ANONYMOUS: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?\n?")


async def use_huge_pages(run_blocking: RunBlocking) -> None:
    """At once, and again whenever the process has grown, in a thread. Ends where the system has none, its operator
    wants none, or this kernel can't."""
    size = huge_page_bytes()
    most = 0
    while size:
        if (held := private_bytes()) >= most + GROWN:
            if not await run_blocking(collapse, size):
                return
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


def private_bytes() -> int:
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * PAGESIZE


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


def collapse(size: int) -> bool:
    """Makes huge pages of what is filled enough. False when the kernel can't."""
    library: Any = ctypes.CDLL(None, use_errno=True)
    done = refused = 0
    try:
        maps = Path("/proc/self/maps").read_text().splitlines()
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            for address in whole_pages(maps, size):
                if not is_filled(pagemap, address, size):
                    continue
                if not library.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), COLLAPSE):
                    done += 1
                elif ctypes.get_errno() == errno.EINVAL:
                    refused += 1
    except OSError:
        return False
    return done > 0 or not refused
