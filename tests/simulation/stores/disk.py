"""A disk that keeps what was synced, and of the rest what chance lets it keep: the real files are in a folder in
memory, and every write to them is logged, SQLite's by a VFS that inherits the default one, the program's own through
``file_writes.calls``. A power cut is an image: what the folder may look like when the machine comes back."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import apsw
from attrs import define, field

from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.foundation.file_writes import Data, FileCalls

__all__ = ["Disk"]

#: What a torn write is torn at.
SECTOR = 512
#: Files of SQLite that live in memory.
_VOLATILE = "-shm"

_names = count()


@define(eq=False)
class _Content:
    """One file: what is on the platter, and what was written since (offset and bytes; None: cut to that size).
    ``failures``: how many syncs have failed, of which each descriptor that was open then is told once."""

    durable: bytearray
    failures: int = 0
    pending: list[tuple[int, bytes | None]] = field(factory=list)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def after_cut(self, rng: Random) -> bytes:
        """Each sector that wasn't synced is there or isn't."""
        result, share = bytearray(self.durable), rng.choice([0.0, 0.5, 0.9, 1.0])
        for offset, data in self.pending:
            if data is None:
                if rng.random() < share:
                    _apply(result, (offset, None))
                continue
            start = 0
            while start < len(data):
                end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
                if rng.random() < share:
                    _apply(result, (offset + start, data[start:end]))
                start = end
        return bytes(result)


def _apply(content: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content += bytes(offset - len(content))
    content[offset : offset + len(data)] = data


class Disk:
    """``meets``: the fault that a call meets now, "full", "fail", "short" or none; ``on_cut``: called at the moment
    of a power cut, whose image was taken then. Whoever ``is_exempt`` meets neither."""

    def __init__(
        self,
        folder: Path,
        rng: Random,
        *,
        is_exempt: Callable[[], bool],
        meets: Callable[[str], str | None],
        on_cut: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.image: dict[Path, bytes] | None = None
        self._rng = rng
        self._is_exempt = is_exempt
        self._meets = meets
        self._on_cut = on_cut
        self._left = -1
        self._files: dict[int, _Content] = {}
        self._earlier: list[bytes] = []  # what files had before the power went
        self._listed: dict[Path, dict[str, int]] = {}
        self._named: set[int] = set()  # folders that are, or were, in their parents for good
        self._lost: list[Path] = []  # folders that the power cut takes away, with what is in them
        self._vfs: _LoggingVfs | None = None

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """SQLite and this program's writes go through it."""
        before = file_writes.calls
        file_writes.calls = _LoggedCalls(self)
        self._vfs = _LoggingVfs(self)
        try:
            yield
        finally:
            file_writes.calls = before
            self._vfs.unregister()

    def rest(self) -> None:
        """All that is there is durable."""
        for content in self._files.values():
            content.sync()
        self._named.update(folder.stat().st_ino for folder in self._folders())
        self._listed = {folder: _names_in(folder) for folder in self._folders()}

    def arm(self, calls: int) -> None:
        """The power goes with the so-manyth write or sync from now on."""
        self._left = calls

    def cut(self) -> None:
        """The power goes now."""
        self._left = -1
        if self.image is None:
            self.image = self._after_cut()
            self._on_cut()

    def come_back(self) -> None:
        """The machine starts again: the files are what the image says."""
        assert self.image is not None
        for folder in self._folders():
            for name in _names_in(folder):
                (folder / name).unlink()
        for folder in reversed(self._lost):  # those within before those around them
            with suppress(OSError):  # whoever goes on after the cut may have moved it, or made others in it
                folder.rmdir()
        for path, content in self.image.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
        self.image = None
        self._earlier += [bytes(content.durable) for content in self._files.values()]
        self._files.clear()
        self.rest()

    # --- the log

    def strike(self, call: str) -> str | None:
        """At the beginning of each call that changes something."""
        if self._is_exempt() or self.image is not None:
            return None
        return self._meets(call)

    def done(self) -> None:
        """At its end."""
        if self._left > 0 and not self._is_exempt():
            self._left -= 1
            if self._left == 0:
                self.cut()

    def content(self, path: str) -> _Content:
        """Of a file, before it is written to for the first time."""
        number = os.stat(path).st_ino
        if number not in self._files:
            self._files[number] = _Content(bytearray(_whole(path)))
        return self._files[number]

    def was_synced(self, text: bytes) -> bool:
        """Whether it is, or was, in a file: also in one that is gone."""
        now = (content.durable for content in self._files.values())
        return any(text in content for content in (*self._earlier, *now))

    def sync_names(self, folder: Path) -> None:
        self._listed[folder] = _names_in(folder)
        self._named.update(each.stat().st_ino for each in folder.iterdir() if each.is_dir())

    # --- what is left

    def _folders(self) -> list[Path]:
        return [Path(name) for name, _, _ in os.walk(self.folder)]

    def _after_cut(self) -> dict[Path, bytes]:
        image = {}
        share = self._rng.choice([0.0, 0.5, 1.0])
        self._lost = []
        for folder in sorted(self._folders()):
            is_new = folder.stat().st_ino not in self._named  # one that was moved stays where it is
            if folder.parent in self._lost or (is_new and self._rng.random() >= share):
                self._lost.append(folder)
                continue
            now, before = _names_in(folder), self._listed.get(folder, {})
            for name in sorted({*now, *before}):
                number = now.get(name)
                if number != before.get(name) and self._rng.random() >= share:
                    number = before.get(name)
                if number is None or name.endswith(_VOLATILE):
                    continue
                content = self._files.get(number)
                if content is not None:
                    image[folder / name] = content.after_cut(self._rng)
                elif now.get(name) == number:
                    image[folder / name] = _whole(folder / name)
        return image


def _names_in(folder: Path) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries if not entry.is_dir(follow_symlinks=False)}


def _path_of(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _whole(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class _LoggedCalls(FileCalls):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def write(self, descriptor: int, data: Data) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            offset = os.fstat(descriptor).st_size
        else:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        return self._write(descriptor, data, offset, lambda part: os.write(descriptor, part))

    def pwrite(self, descriptor: int, data: Data, offset: int) -> int:
        return self._write(descriptor, data, offset, lambda part: os.pwrite(descriptor, part, offset))

    def writev(self, descriptor: int, pieces: Sequence[Data]) -> int:
        return self.write(descriptor, b"".join(pieces))

    def _write(self, descriptor: int, data: Data, offset: int, apply: Callable[[bytes], int]) -> int:
        content, part = self._disk.content(_path_of(descriptor)), bytes(data)
        fault = self._disk.strike("write")
        if fault == "fail":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if fault is not None:
            part = part[: (len(part) + 1) // 2]
        written = apply(part)
        content.pending.append((offset, part[:written]))
        self._disk.done()
        if fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def fsync(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._disk.done()
            self._disk.sync_names(Path(os.readlink(_path_of(descriptor))))
            return
        content = self._disk.content(_path_of(descriptor))
        fault = self._disk.strike("fsync")
        self._disk.done()
        if fault == "fail":
            content.pending.clear()  # the kernel says so once, and has forgotten what it couldn't write
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        content.sync()

    def fdatasync(self, descriptor: int) -> None:
        self.fsync(descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        content = self._disk.content(_path_of(descriptor))
        if self._disk.strike("ftruncate") == "fail":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().ftruncate(descriptor, size)
        content.pending.append((size, None))
        self._disk.done()


class _LoggingVfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__(f"simulated-{next(_names)}", "", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not str(path).startswith(str(self.disk.folder)):
            return apsw.VFSFile("unix", name, flags)
        return _LoggedFile(self.disk, str(path), name, flags)


class _LoggedFile(apsw.VFSFile):
    def __init__(self, disk: Disk, path: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = path
        super().__init__("unix", name, flags)
        self._content = disk.content(path)
        self._is_log = path.endswith(("-wal", "-journal"))
        self._failures = self._content.failures

    def _strike(self, call: str) -> None:
        fault = self._disk.strike(call)
        if fault == "full":
            raise apsw.FullError("injected")
        if fault == "fail":
            raise apsw.IOError("injected")

    def xWrite(self, data: Any, offset: int) -> None:
        self._strike("xWrite")
        super().xWrite(data, offset)
        self._content.pending.append((offset, bytes(data)))
        self._disk.done()

    def xTruncate(self, newsize: int) -> None:
        self._strike("xTruncate")
        super().xTruncate(newsize)
        self._content.pending.append((newsize, None))
        self._disk.done()

    def xSync(self, flags: int) -> None:
        if self._disk.strike("xSync") == "fail":
            self._content.pending.clear()
            self._content.failures += 1
        if self._failures != self._content.failures:
            self._failures = self._content.failures
            raise apsw.IOError("injected")
        self._disk.done()
        super().xSync(flags)
        self._content.sync()
        if self._is_log:  # as SQLite does after a log's first sync
            self._is_log = False
            self._disk.sync_names(Path(self._path).parent)
