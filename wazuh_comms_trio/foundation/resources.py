"""What this process may have: memory, and files open at a time. Reads ``/proc`` and ``/sys``."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = [
    "descriptor_limit",
    "left_out_without_threads",
    "memory_limit",
    "memory_watch",
    "private_bytes",
    "raise_descriptor_limit",
    "resident_bytes",
]

logger = logging.getLogger(__name__)

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")
_STATM: Final = Path("/proc/self/statm")
#: The share of its part of the memory limit from which on a process makes room.
_SHORT_ABOVE: Final = 0.9
#: The controllers' own word for "no limit" in version 1: the largest multiple of a page.
_UNLIMITED: Final = 1 << 62


def descriptor_limit() -> int | None:
    """How many files may be open at a time; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> int | None:
    """Raises the limit of open files as far as this process may; returns what ``descriptor_limit`` is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return descriptor_limit()


def memory_limit(groups: Path = _CGROUPS, own: Path = _OWN_GROUPS) -> int:
    """The memory this process may have, in bytes: the least of the limits of this process's control groups
    (``MemoryMax=`` is one), version 2 and 1, and of what the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(groups, own)])


def resident_bytes(statm: Path = _STATM) -> int:
    """What this process has in memory now; 0 where that isn't known."""
    resident, _ = _memory(statm)
    return resident


def private_bytes(statm: Path = _STATM) -> int:
    """What of that belongs to no file, nor to another process too."""
    resident, shared = _memory(statm)
    return resident - shared


def _memory(statm: Path) -> tuple[int, int]:
    """In memory now, and what of it is a file's or shared, in bytes; zeros where that isn't known."""
    try:
        _, resident, shared, *_ = map(int, statm.read_text().split())
    except (OSError, ValueError):
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return resident * page, shared * page


def memory_watch(processes: int) -> Callable[[], bool]:
    """A function that says whether this process has most of its even part of the memory limit."""
    part = int(memory_limit() * _SHORT_ABOVE) // processes
    return lambda: resident_bytes() > part


def _limits(groups: Path, own: Path) -> list[int]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += _upwards(groups, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _upwards(groups / "memory", path, "memory.limit_in_bytes")
    return found


def _upwards(root: Path, path: str, name: str) -> list[int]:
    """The limit of a control group and those of the groups around it. In a container the path may lead out of what is
    mounted."""
    found = []
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        try:
            text = root.joinpath(*parts[:length], name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED:
            found.append(int(text))
    return found


@contextmanager
def left_out_without_threads() -> Iterator[None]:
    """Around what a process does now and then in a thread. Where the system lets it have no further one (``TasksMax=``,
    ``ulimit -u``) the block ends there, and what it does is left to the next time."""
    try:
        yield
    except RuntimeError as exc:
        if "start new thread" not in str(exc):  # Python's own words, and it has no other sign
            raise
        logger.info("left out, since there can be no further thread: %s", exc)
