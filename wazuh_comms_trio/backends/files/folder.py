"""The folder of files that agents may ask for."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Final

import trio
from attrs import define

from wazuh_comms_trio.backends.file_names import check_name
from wazuh_comms_trio.backends.files.shared_openings import SharedOpenings
from wazuh_comms_trio.backends.interfaces import StoredFile
from wazuh_comms_trio.backends.unavailable import reported
from wazuh_comms_trio.errors import BackendUnavailable, FileIsFolder, FileMissing
from wazuh_comms_trio.foundation.outage_log import QUIET, OutageLog

logger = logging.getLogger(__name__)

#: A file up to this size is read while it is opened: one thread hop serves it.
READ_AHEAD: Final = 256 * 1024
CHUNK: Final = 256 * 1024

#: Threads that read files: a file system that hangs takes these and no others.
_READING_AT_ONCE: Final = 16


@define(eq=False)
class _Descriptor:
    """One of an open file, which all who read the same file share: they may be many, and read slowly."""

    number: int
    key: tuple[int, ...]
    users: int = 1


class FolderFile:
    """``StoredFile``: an open descriptor, None where all was read ahead."""

    def __init__(self, descriptor: _Descriptor | None, size: int, ahead: bytes, threads: trio.CapacityLimiter) -> None:
        self.size = size
        self.descriptor = descriptor
        self._threads = threads
        self._ahead = ahead

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """As many bytes as ``size`` says: what is appended meanwhile isn't sent. Raises ``BackendUnavailable`` when the
        file was cut short meanwhile."""
        if self._ahead:
            yield self._ahead
        done = len(self._ahead)
        while done < self.size:
            assert self.descriptor is not None
            number, length = self.descriptor.number, min(CHUNK, self.size - done)
            try:
                data = await trio.to_thread.run_sync(
                    os.pread, number, length, done, limiter=self._threads, abandon_on_cancel=True
                )
            except OSError as exc:
                raise BackendUnavailable from exc
            if not data:
                raise BackendUnavailable("The file was cut short while it was read")
            done += len(data)
            yield data


@define(eq=False)
class _Trip:
    """To a thread, in which ``found`` is opened; ``is_left``: nobody waits for it any more."""

    found: FolderFile | None = None
    is_left: bool = False


class FolderFiles:
    """``FileStore`` over the regular files in ``folder``; links count if they lead to one inside of it. The folder may
    come, go and change at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = trio.CapacityLimiter(_READING_AT_ONCE)
        self._lock = Lock()
        self._descriptors: dict[tuple[int, ...], _Descriptor] = {}  # by what the file was when it was opened
        self._openings: SharedOpenings[FolderFile] = SharedOpenings(self._open_in_thread, self._close)
        self._outage = OutageLog(logger, "files", quiet=QUIET)

    def open_file(self, name: str) -> AbstractAsyncContextManager[StoredFile]:
        return self._open(name)

    @asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[StoredFile]:
        check_name(name)
        opening = self._openings.join(name)
        try:
            try:
                file = await self._openings.result(opening)
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise FileMissing from exc
            except OSError as exc:
                self._outage.failed(
                    f"{exc.strerror}; agents get 503", kind=f"can't be read in {self._folder}", level=logging.ERROR
                )
                raise reported() from exc
            except ValueError as exc:  # a name that no file can have: lone surrogates
                raise FileMissing from exc
            self._outage.worked()
            yield file
        finally:
            self._openings.leave(opening)

    async def _open_in_thread(self, name: str) -> FolderFile:
        """Cancelled: the thread goes on, as long as the folder hangs, and closes what it opens."""
        trip = _Trip()
        try:
            return await trio.to_thread.run_sync(
                self._open_for, trip, name, limiter=self._threads, abandon_on_cancel=True
            )
        except trio.Cancelled:
            with self._lock:
                trip.is_left = True
                found = trip.found
            if found is not None:
                self._close(found)
            raise

    def _open_for(self, trip: _Trip, name: str) -> FolderFile:
        file = self._open_now(name)
        with self._lock:
            trip.found = file
            is_left = trip.is_left
        if is_left:
            self._close(file)
        return file

    def _close(self, file: FolderFile) -> None:
        if file.descriptor is not None:
            self._give_back(file.descriptor)

    def _open_now(self, name: str) -> FolderFile:
        """Opens first only a handle (``O_PATH``), which touches nothing: opening a FIFO would wait and a device might
        act. What the handle is, and where, no longer depends on names then, so that no process can swap it in
        between."""
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            handle = _open_handle(name, folder)
            try:
                found = os.fstat(handle)
                if not _is_inside(handle, folder):
                    raise FileMissing
                if stat.S_ISDIR(found.st_mode):
                    raise FileIsFolder
                if not stat.S_ISREG(found.st_mode):
                    raise FileMissing
                descriptor = self._descriptor(handle, found)
            finally:
                os.close(handle)
        finally:
            os.close(folder)
        try:
            size = os.fstat(descriptor.number).st_size
            if size > READ_AHEAD:
                return FolderFile(descriptor, size, b"", self._threads)
            data = _read_whole(descriptor.number, size)
        except BaseException:
            self._give_back(descriptor)
            raise
        self._give_back(descriptor)
        return FolderFile(None, len(data), data, self._threads)

    def _descriptor(self, handle: int, found: os.stat_result) -> _Descriptor:
        """Of the file behind a handle. One that was changed or replaced since isn't the same file."""
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if (shared := self._shared(key)) is not None:
            return shared
        new = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may hang: not locked
        with self._lock:
            if (shared := self._descriptors.get(key)) is None:
                self._descriptors[key] = opened = _Descriptor(new, key)
                return opened
            shared.users += 1
        os.close(new)
        return shared

    def _shared(self, key: tuple[int, ...]) -> _Descriptor | None:
        with self._lock:
            if (shared := self._descriptors.get(key)) is not None:
                shared.users += 1
            return shared

    def _give_back(self, descriptor: _Descriptor) -> None:
        with self._lock:
            descriptor.users -= 1
            is_last = not descriptor.users
            if is_last:
                del self._descriptors[descriptor.key]
        if is_last:
            os.close(descriptor.number)


def _read_whole(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.pread(descriptor, size - len(data), len(data))
        if not piece:
            break
        data += piece
    return data


def _open_handle(name: str, folder: int) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
    except OSError as exc:
        if isinstance(exc, PermissionError):
            raise
        raise FileMissing from exc  # not there, too long, a loop of links


def _is_inside(handle: int, folder: int) -> bool:
    """Whether the file lies in the folder or below it, links resolved: the kernel knows the paths of both."""
    root = os.readlink(f"/proc/self/fd/{folder}")
    path = os.readlink(f"/proc/self/fd/{handle}")
    return path == root or path.startswith(root.rstrip("/") + "/")
