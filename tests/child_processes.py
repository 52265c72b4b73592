"""The children of a process, read from /proc, where each may end between two reads."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int, entry: str = "cmdline") -> dict[int, str]:
    """What ``/proc/CHILD/entry`` says of each child of this process' main thread; those that ended meanwhile are left
    out."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(child)] = Path(f"/proc/{child}/{entry}").read_text()
    return found
