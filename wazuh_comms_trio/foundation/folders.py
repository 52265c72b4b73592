"""Small things about folders and files that hold state."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


# --- files that get their names when they are whole; a killed process leaves them under their first ones


def open_draft(path: Path) -> int:
    """A new file, for writing (appending), mode 0600, with the owner of its folder; locked until its descriptor is
    closed. Raises ``OSError``."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            adopt(descriptor, path.parent)
            with suppress(OSError):  # where there are no locks, others can't have one, and leave it alone
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed before it was locked


@contextmanager
def draft(path: Path) -> Iterator[int]:
    """As ``open_draft``; whatever has not got another name at the end is removed."""
    descriptor = open_draft(path)
    try:
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def remove_left_drafts(folder: Path, own_name: re.Pattern[str]) -> None:
    """Removes the files of such names that no process has locked; what else has such a name stays, and so does what
    can't be removed."""
    try:
        names = list(filter(own_name.fullmatch, os.listdir(folder)))
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            remove_if_unlocked(folder / name)


def remove_if_unlocked(path: Path) -> bool:
    """Removes a file that no process has locked. Whether none has; what is no file stays, and is nobody's lock. Raises
    ``OSError``."""
    descriptor = open_regular(path, os.O_RDWR)
    if descriptor is None:
        return True
    try:
        is_free = try_lock(descriptor)
        if is_free:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return is_free
