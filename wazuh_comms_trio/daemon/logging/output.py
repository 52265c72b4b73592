"""Where log lines go: each record with one write, so that other processes may write there, too."""

from __future__ import annotations

import errno
import logging
import os
import select
from pathlib import Path
from typing import Final

from wazuh_comms_trio.foundation.file_writes import write_part

__all__ = ["DescriptorHandler", "LogFileHandler", "LogFileUnusable", "check_log_file"]

MODE: Final = 0o640


class LogFileUnusable(OSError):
    """``logging.file`` can't be written."""

    @property
    def may_pass(self) -> bool:
        """Whether trying again can help: a full disk passes, and so do descriptors; a folder that isn't there, or that
        isn't ours, doesn't."""
        return self.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO)

    def __str__(self) -> str:
        return f"logging.file can't be written: {self.filename}: {self.strerror}"


class DescriptorHandler(logging.Handler):
    """Writes records to a descriptor, which stays open. Processes that share it don't tear each other's lines, as long
    as it is a file that is appended to, or takes a record at once: a buffered stream would cut those of more than 8
    kB."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._cut = False

    def descriptor(self) -> int:
        """The descriptor that the next record goes to."""
        return self._descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            descriptor = self.descriptor()
            if self._cut:  # a disk that is full took a part of the last one
                data = b"\n" + data
            while data:
                written = _write(descriptor, data)
                data = data[written:]
                self._cut = bool(data)
        except Exception:
            self.handleError(record)  # which says nothing: there is no other place to say it


def _write(descriptor: int, data: bytes) -> int:
    while True:
        try:
            return write_part(descriptor, data)
        except BlockingIOError:  # another process has made it non-blocking: a log waits for its reader
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _open(path: Path) -> int:
    """Opens the file; a new one has its mode whatever the process's mask: a unit's hides files from the group."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT, MODE)
    try:
        os.fchmod(descriptor, MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_log_file(path: Path | None) -> None:
    """Raises ``LogFileUnusable``."""
    if path is not None:
        LogFileHandler(path).close()


class LogFileHandler(DescriptorHandler):
    """Writes records to a file, 0640, which others may append to, move away (a new one is made then) or cut. Raises
    ``LogFileUnusable``."""

    def __init__(self, path: Path) -> None:
        try:
            descriptor = _open(path)
        except OSError as error:
            raise LogFileUnusable(error.errno, error.strerror, os.fspath(path)) from error
        super().__init__(descriptor)
        self._path = path

    def descriptor(self) -> int:
        """The descriptor of the file that has the name now. As long as there can't be a new one, the one before has to
        do."""
        try:
            if not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                self._open_anew()
        except FileNotFoundError:
            self._open_anew()
        except OSError:
            pass
        return self._descriptor

    def _open_anew(self) -> None:
        try:
            new = _open(self._path)
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = new

    def close(self) -> None:
        self.acquire()
        try:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
        finally:
            self.release()
        super().close()
