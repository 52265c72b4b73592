"""A database's files as they are seen from outside, by their names.

SQLite goes on writing into a file that was removed, replaced or overwritten under it. What it reports as committed then
isn't there for the next process that opens it, so the files are looked at around every commit; a look takes
microseconds.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import Final

import apsw
import msgspec

from wazuh_comms_trio.backends.embedded.database.faults import FileGone
from wazuh_comms_trio.foundation.file_writes import remove, rename, sync, write_all
from wazuh_comms_trio.foundation.folders import adopt, draft, open_file, remove_left_drafts, sync_folder
from wazuh_comms_trio.foundation.timestamps import to_iso

logger = logging.getLogger(__name__)

#: Of a database's first bytes, those that never change: the magic text, page size, format.
_HEAD_BYTES: Final = 24
_NOTE_BYTES: Final = 8192

Identity = tuple[int, int]  # device and inode


class FileWatch:
    """The file ``path`` and those that SQLite keeps beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._path_text, self._log_text = str(path), f"{path}-wal"  # made once: for the looks around every commit
        self._file: Identity | None = None
        self._beside: dict[str, Identity] = {}
        self._file_bytes = 0
        self._head = b""

    def create(self) -> None:
        """Makes the file with the right mode and owner before SQLite opens it; files beside it get the same then."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            adopt(descriptor, self.path.parent)
        finally:
            os.close(descriptor)
        sync_folder(self.path.parent)

    def check_before_opening(self, *, is_new: bool) -> None:
        """Raises ``FileGone`` for no file, and for an empty one: that would be taken for a new database, and the log
        beside it deleted."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            raise FileGone("the database file is gone") from None
        if size == 0 and (not is_new or _size_of(self._name("-wal")) > 0):
            raise FileGone("the database file is empty")

    def remember(self, connection: apsw.Connection) -> None:
        """Keeps in mind which files the connection has open; the log has to be open, too."""
        self._head = _head(connection)
        self._file = _identity(self.path)
        self._file_bytes = self.size
        self._beside = {suffix: _identity(self._name(suffix)) for suffix in ("-wal", "-shm")}

    def check(self, connection: apsw.Connection) -> None:
        """Raises ``FileGone`` unless what is open is what others find, and looks like a database."""
        try:
            found = os.stat(self._path_text)
        except FileNotFoundError:
            raise FileGone("the database file is gone") from None
        if (found.st_dev, found.st_ino) != self._file:
            raise FileGone("the database file was replaced")
        if found.st_size < self._file_bytes:
            raise FileGone("the database file was cut short")
        self._file_bytes = found.st_size
        try:
            log = _identity(self._log_text)
        except FileNotFoundError:
            raise FileGone("the database's log file is gone", damaged=False) from None
        if log != self._beside["-wal"]:
            raise FileGone("the database's log file was replaced", damaged=False)
        if _head(connection) != self._head:
            raise FileGone("the database file was overwritten")

    def set_log_aside(self) -> None:
        """When another file was put in the place of ours, the log beside it is still the old one's: applied to the new
        file it would ruin it. Only files that are known to be the old one's are moved, since another process may have
        done so already. Raises ``OSError``."""
        if self._file is None or _identity(self.path) == self._file:
            return
        for suffix, identity in self._beside.items():
            beside = self._name(suffix)
            if beside.exists() and _identity(beside) == identity:
                beside.rename(f"{beside}.replaced")

    @property
    def size(self) -> int:
        return _size_of(self.path)

    def look(self) -> object:
        """What ``stat`` says of the file: differs from an earlier look when the file was touched in between."""
        try:
            found = os.stat(self.path)
        except OSError as exc:
            return exc.errno
        mode = stat.S_IMODE(found.st_mode)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, mode

    def _name(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _head(connection: apsw.Connection) -> bytes:
    # Through SQLite: closing a descriptor of our own would end its locks.
    return connection.read("main", 0, 0, _HEAD_BYTES)[1]


def _identity(path: Path | str) -> Identity:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    database: str
    gone: float | None = None


class MadeMark:
    """A file in ``folder`` that says that a database was made: one that is gone as a whole would be made anew without a
    word. Blocks, shortly; where nothing can be written, nothing is missed.

    A JSON object: ``database``, its path; ``gone``: when it was found to be gone (epoch seconds), until the loss is
    accepted. A database that the configuration names elsewhere isn't missed."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.database = database
        self.path = folder / f".{database.name}.made"
        self._draft = re.compile(rf"{re.escape(self.path.name)}-\d+")

    def check(self) -> None:
        """Before a database is made: notes the loss of the one that was there, and tells the log."""
        note = self._read()
        if note is not None and note.gone is None and self._is_missing():
            self._write(_Note(database=note.database, gone=time.time()))
            logger.error("%s is gone, with all that was in it: a new one is made", self.database)

    def note(self) -> None:
        """The database is there."""
        if self._read() is None:
            self._write(_Note(database=str(self.database)))

    def loss(self) -> str | None:
        """What was lost, as a sentence about the database; None where nothing is known to be."""
        note = self._read()
        if note is None:
            return None
        if note.gone is not None:
            return f"the one that was there is gone, with all that was in it (noticed at {to_iso(note.gone)})"
        return "the file is missing" if self._is_missing() else None

    def accept(self) -> None:
        """From now on nothing is missed. Raises ``OSError``."""
        remove(self.path)
        sync_folder(self.path.parent)
        if not self._is_missing():
            self.note()

    def _is_missing(self) -> bool:
        try:
            os.lstat(self.database)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def _read(self) -> _Note | None:
        try:
            with open_file(self.path) as file:
                note = msgspec.json.decode(file.read(_NOTE_BYTES), type=_Note)
        except (OSError, ValueError, RecursionError):
            return None
        return note if note.database == str(self.database) else None

    def _write(self, note: _Note) -> None:
        remove_left_drafts(self.path.parent, self._draft)
        path = self.path.with_name(f"{self.path.name}-{os.getpid()}")
        try:
            with draft(path) as descriptor:
                write_all(descriptor, msgspec.json.encode(note) + b"\n")
                sync(descriptor)
                rename(path, self.path)
            sync_folder(self.path.parent)
        except OSError as exc:
            logger.debug("%s can't be written: %s", self.path, exc)
