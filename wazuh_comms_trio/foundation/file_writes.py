"""What is written to files: everything, or an error. ``os.write`` and its kin may take a part and say so only in the
number that they return, so nothing else in this program calls them.

``calls`` is what is asked of the kernel; tests put calls in its place that fail. Blocking.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final

Data = bytes | bytearray | memoryview

_PIECES_AT_ONCE: Final = 1024  # IOV_MAX
_COPIED_AT_ONCE: Final = 1024 * 1024


class FileCalls:
    """The kernel's calls that change files, as ``os`` has them."""

    def write(self, descriptor: int, data: Data) -> int:
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: Data, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def writev(self, descriptor: int, pieces: Sequence[Data]) -> int:
        return os.writev(descriptor, pieces)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def link(self, source: str, name: str, folder: int) -> None:
        """Follows ``source``, a link of /proc: with a folder's descriptor Python calls linkat; link() wouldn't."""
        os.link(source, name, dst_dir_fd=folder, follow_symlinks=True)

    def unlink(self, path: Path) -> None:
        os.unlink(path)


calls: FileCalls = FileCalls()


class _Tally:
    """Counts how often this process waited for the disk, from whatever thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.syncs = 0

    def add(self) -> None:
        with self._lock:
            self.syncs += 1


tally: Final = _Tally()


def write_all(descriptor: int, data: Data) -> None:
    """Writes all of ``data``, where the descriptor stands (with ``O_APPEND``: at the end). Raises ``OSError``; a part
    may be written then."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += _progress(calls.write(descriptor, view[done:]))


def write_all_at(descriptor: int, data: Data, offset: int) -> None:
    """As ``write_all``, from ``offset`` on."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += _progress(calls.pwrite(descriptor, view[done:], offset + done))


def write_pieces(descriptor: int, pieces: Sequence[bytes]) -> None:
    """As ``write_all``, many pieces with few calls."""
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        part = pieces[start : start + _PIECES_AT_ONCE]
        length = sum(map(len, part))
        done = _progress(calls.writev(descriptor, part)) if length else 0
        if done < length:
            write_all(descriptor, b"".join(part)[done:])


def write_part(descriptor: int, data: Data) -> int:
    """Writes what one call takes, for a caller that keeps the rest itself."""
    return calls.write(descriptor, data)


def sync(descriptor: int) -> None:
    """Waits until what was written is on the disk. After an error it isn't known what is: the kernel has forgotten the
    rest."""
    tally.add()
    calls.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """As ``sync``, without the times."""
    tally.add()
    calls.fdatasync(descriptor)


def cut(descriptor: int, size: int) -> None:
    calls.ftruncate(descriptor, size)


def rename(source: Path, target: Path) -> None:
    """Renames a file; durable once the folder is synced (``folders.sync_folder``)."""
    calls.rename(source, target)


def link_descriptor(descriptor: int, name: str, folder: int) -> None:
    """Gives a file without a name one, in the folder whose descriptor is ``folder``."""
    calls.link(f"/proc/self/fd/{descriptor}", name, folder)


def link_file(source: Path, name: str, folder: int) -> None:
    """Gives a file a second name, in the folder whose descriptor is ``folder``."""
    calls.link(str(source), name, folder)


def remove(path: Path) -> None:
    """Removes a file, which may be gone already."""
    try:
        calls.unlink(path)
    except FileNotFoundError:
        return


def copy_file(source: Path, target: Path) -> None:
    """Makes a durable copy, mode 0600; ``target`` must be free."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy_to(source, descriptor)
    finally:
        os.close(descriptor)


def copy_to(source: Path, descriptor: int) -> None:
    """As ``copy_file``, to an open file."""
    with source.open("rb") as file:
        while piece := file.read(_COPIED_AT_ONCE):
            write_all(descriptor, piece)
    sync(descriptor)


class WholeFile:
    """A descriptor as what libraries write to: each ``write`` takes everything or raises."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Data) -> int:
        write_all(self._descriptor, data)
        return len(data)


def _progress(written: int) -> int:
    """Guards against an endless loop on a file that takes nothing and doesn't say why."""
    if written <= 0:
        raise OSError(errno.EIO, "nothing was written")
    return written
