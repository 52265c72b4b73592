"""A file layer that fails: what this program writes (``file_writes.calls``), and what SQLite writes (its VFS)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

import apsw

from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.foundation.file_writes import Data, FileCalls

#: ``short``: every write takes a half. The others strike once: EIO, a full disk that still takes a part.
Fault = Literal["short", "EIO", "ENOSPC"]


class FaultyCalls(FileCalls):
    """``at``: the number of the call that fails, whatever it does, from 0; -1: none. ``made``: the calls so far."""

    def __init__(self, fault: Fault, at: int = -1) -> None:
        self._fault = fault
        self._at = at
        self.made: list[str] = []

    def _strike(self, name: str) -> bool:
        self.made.append(name)
        return len(self.made) - 1 == self._at

    def _error(self) -> OSError:
        number = errno.ENOSPC if self._fault == "ENOSPC" else errno.EIO
        return OSError(number, os.strerror(number))

    def _taken(self, data: Data) -> Data:
        return data[: max(1, len(data) // 2)] if self._fault == "short" else data

    def write(self, descriptor: int, data: Data) -> int:
        if self._strike("write"):
            if self._fault == "ENOSPC":
                super().write(descriptor, data[: len(data) // 2])
            raise self._error()
        return super().write(descriptor, self._taken(data))

    def pwrite(self, descriptor: int, data: Data, offset: int) -> int:
        if self._strike("pwrite"):
            if self._fault == "ENOSPC":
                super().pwrite(descriptor, data[: len(data) // 2], offset)
            raise self._error()
        return super().pwrite(descriptor, self._taken(data), offset)

    def writev(self, descriptor: int, pieces: Sequence[Data]) -> int:
        if self._strike("writev"):
            if self._fault == "ENOSPC":
                whole = b"".join(pieces)
                super().write(descriptor, whole[: len(whole) // 2])
            raise self._error()
        if self._fault == "short":
            return super().write(descriptor, self._taken(b"".join(pieces)))
        return super().writev(descriptor, pieces)

    def fsync(self, descriptor: int) -> None:
        if self._strike("fsync"):
            raise self._error()
        super().fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        if self._strike("fdatasync"):
            raise self._error()
        super().fdatasync(descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        if self._strike("ftruncate"):
            raise self._error()
        super().ftruncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        if self._strike("rename"):
            raise self._error()
        super().rename(source, target)

    def link(self, source: str, name: str, folder: int) -> None:
        if self._strike("link"):
            raise self._error()
        super().link(source, name, folder)

    def unlink(self, path: Path) -> None:
        if self._strike("unlink"):
            raise self._error()
        super().unlink(path)


@contextmanager
def faulty_files(fault: Fault, at: int = -1) -> Iterator[FaultyCalls]:
    """While entered, this process's writes go through faulty calls."""
    before = file_writes.calls
    faulty = FaultyCalls(fault, at)
    file_writes.calls = faulty
    try:
        yield faulty
    finally:
        file_writes.calls = before


_names = count()


class FaultyVfs(apsw.VFS):
    """SQLite's own files: its ``at``th write, sync or truncation fails."""

    def __init__(self, code: int, at: int) -> None:
        self.name = f"faulty-{next(_names)}"
        self.code = code
        self.at = at
        self.made = 0
        super().__init__(self.name, "", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FaultyFile(self, name, flags)

    def strike(self) -> None:
        self.made += 1
        if self.made - 1 == self.at:
            raise apsw.exception_for(self.code)


class _FaultyFile(apsw.VFSFile):
    def __init__(self, vfs: FaultyVfs, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._vfs.strike()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._vfs.strike()
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        self._vfs.strike()
        super().xTruncate(newsize)


@contextmanager
def faulty_sqlite(code: int, at: int = -1) -> Iterator[FaultyVfs]:
    """While entered, databases that are opened have the faulty VFS. ``code``: an extended result code."""
    vfs = FaultyVfs(code, at)
    try:
        yield vfs
    finally:
        vfs.unregister()
