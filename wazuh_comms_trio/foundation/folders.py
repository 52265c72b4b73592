"""Small things about folders and files that hold state."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wazuh_comms_trio.foundation.file_writes import sync


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Makes ``path``, and its missing parents, which others may look into; those that exist are left as they are."""
    if path.is_dir():
        return
    make_folder(path.parent, 0o755)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if path.is_dir():  # another process was faster
            return
        raise
    with open_folder(path) as descriptor:
        adopt(descriptor, path.parent)
    sync_folder(path.parent)


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """A folder's descriptor; with it a lock on it ends."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """A regular file's descriptor; None where something else than a regular file has the name, which is neither
    followed nor waited for. Raises ``OSError``."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return None
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading. Raises ``OSError``, also where something else has the name, as
    ``open_regular``."""
    descriptor = open_regular(path)
    if descriptor is None:
        raise OSError(errno.EINVAL, "What has its name is no file", str(path))
    return open(descriptor, "rb")


def try_lock(descriptor: int) -> bool:
    """Locks what is open, for this descriptor alone; False when another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def adopt(descriptor: int, folder: Path) -> None:
    """Gives a file that root made to the owner of its folder: the operator's tool, run with sudo, must not leave files
    that the daemon can't open."""
    if os.geteuid() != 0:
        return
    owner = os.stat(folder)
    if owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    with open_folder(path) as descriptor:
        sync(descriptor)
