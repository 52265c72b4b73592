"""Folders of a process's runs, all in one of its own, which goes with the process. Of one that was killed it stays
behind: the next process that needs one takes it away. Who lives holds the lock of its folder."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["MEMORY", "PREFIX", "own_folder"]

#: A file system in memory.
MEMORY: Final = Path("/dev/shm")
PREFIX: Final = "locked-simulation-"


@cache
def own_folder(place: Path = MEMORY) -> Path:
    """This process's in ``place``, made at the first call; it holds one descriptor. Nothing of a run follows from its
    name."""
    _sweep(place)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        if _lock(folder, wait=True) is not None:
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder


def _sweep(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        if (locked := _lock(folder, wait=False)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(locked)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """The descriptor that holds it; None: another process does, or the folder has gone meanwhile, with whoever swept
    before its maker had locked it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), folder.lstat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
