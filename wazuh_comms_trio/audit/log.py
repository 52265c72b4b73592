"""The audit log: what was changed, when, and by whom. JSON lines, appended with one write and synced, chained by hashes
(``chain.py``) and rotated; keys never get here."""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any, Final

from attrs import frozen

from wazuh_comms_trio.audit.chain import DAY, DROPPED, encode, faults, line_hash, read_entry
from wazuh_comms_trio.foundation.file_writes import remove, rename, sync, write_all
from wazuh_comms_trio.foundation.folders import open_file, sync_folder
from wazuh_comms_trio.foundation.timestamps import to_iso

_FILE: Final = "audit.log"

#: A part is full at this fraction of what all may take.
PARTS: Final = 8
_CHUNK: Final = 65536


@frozen
class User:
    """The user of a change: ``name`` and ``uid`` of the process, and with sudo those of its caller; sudo's are to be
    believed of root only, other users could have set them."""

    uid: int
    name: str | None = None
    sudo_user: str | None = None
    sudo_uid: int | None = None

    def as_data(self) -> dict[str, Any]:
        user = self.sudo_user if self.uid == 0 and self.sudo_user else self.name
        data = {"user": user, "uid": self.uid, "sudo_user": self.sudo_user, "sudo_uid": self.sudo_uid}
        return {name: value for name, value in data.items() if value is not None}


def current_user() -> User:
    """The user of this process."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = None
    sudo_uid = os.environ.get("SUDO_UID", "")
    return User(uid, name, os.environ.get("SUDO_USER") or None, int(sudo_uid) if sudo_uid.isdecimal() else None)


@frozen
class AuditLog:
    """The audit log of one state folder: ``path``, and the parts before it, ``audit.log.000001`` and so on. Several
    processes may append at once; each entry is one write. ``max_bytes``: what all parts may take; above it the oldest
    goes, if its last entry is ``min_days`` old by the log's own clock."""

    path: Path
    wall_clock: Callable[[], float] = time
    max_bytes: int = 1024**3
    min_days: int = 90

    def append(self, user: User, action: str, target: str, **details: object) -> None:
        """Adds an entry, which is durable on return. ``action``: ``agents add``; ``target``: a uuid, a command's id ...
        Raises ``OSError``."""
        now = self.wall_clock()
        entry: Mapping[str, object] = {
            "time": to_iso(now),
            **user.as_data(),
            "action": action,
            "object": target,
            **details,
        }
        with self._alone() as descriptor:
            self._write(descriptor, entry, now)
            full = os.fstat(descriptor).st_size >= self.max_bytes // PARTS
            if full:
                rename(self.path, self._next_part())
                sync_folder(self.path.parent)
        if full:
            self._drop_oldest(user, now)

    def _write(self, descriptor: int, entry: Mapping[str, object], now: float) -> None:
        previous, whole = _last_line(descriptor)
        if previous is None and (parts := self.parts()):
            previous = last_line_of(parts[-1])
        line = encode(entry, previous, now)
        write_all(descriptor, line if whole else b"\n" + line)  # an entry that a full disk cut off
        sync(descriptor)

    def parts(self) -> list[Path]:
        """The full ones, the oldest first."""
        found = self.path.parent.glob(f"{self.path.name}.[0-9][0-9][0-9][0-9][0-9][0-9]")
        return sorted(path for path in found if path.is_file() and not path.is_symlink())

    def _next_part(self) -> Path:
        parts = self.parts()
        number = int(parts[-1].name[-6:]) + 1 if parts else 1
        return self.path.with_name(f"{self.path.name}.{number:06d}")

    def _drop_oldest(self, user: User, now: float) -> None:
        """One part at a time; that it goes is written down before."""
        parts = self.parts()
        if len(parts) < 2 or sum(part.stat().st_size for part in parts) + self.max_bytes // PARTS <= self.max_bytes:
            return
        last = last_line_of(parts[0]) or b""
        newest = read_entry(last_line_of(parts[-1]) or b"").get("age")
        age = read_entry(last).get("age")
        if not isinstance(age, int) or not isinstance(newest, int) or newest - age < self.min_days * DAY:
            return
        entry: Mapping[str, object] = {
            "time": to_iso(now),
            **user.as_data(),
            "action": DROPPED,
            "object": parts[0].name,
            "bytes": parts[0].stat().st_size,
            "last": line_hash(last),
        }
        with self._alone() as descriptor:
            self._write(descriptor, entry, now)
            remove(parts[0])

    def check(self) -> None:
        """Raises ``OSError`` when nothing could be appended, before anything is changed that should have an entry."""
        os.close(self._open())

    def faults(self) -> Iterator[str]:
        """What was changed or taken away since it was written, a sentence each. Raises ``OSError``."""

        def lines() -> Iterator[bytes]:
            for path in (*self.parts(), *([self.path] if os.path.lexists(self.path) else [])):
                with open_file(path) as file:
                    yield from (line.rstrip(b"\n") for line in file)

        return faults(lines())

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Opens and locks the file that has the log's name now: nobody of this version appends or renames meanwhile."""
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._has_the_name(descriptor):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _has_the_name(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def _last_line(descriptor: int) -> tuple[bytes | None, bool]:
    """A file's last line without its newline, None in an empty one; and whether it ends with one."""
    size = os.fstat(descriptor).st_size
    if not size:
        return None, True
    tail, start = b"", size
    while start > 0 and b"\n" not in tail.removesuffix(b"\n"):
        start = max(0, start - _CHUNK)
        tail = os.pread(descriptor, min(_CHUNK, size - len(tail) - start), start) + tail
    return tail.removesuffix(b"\n").rpartition(b"\n")[2], tail.endswith(b"\n")


def last_line_of(path: Path) -> bytes | None:
    """The last line of a file, None of an empty one. Raises ``OSError``. Raises ``OSError``. Raises ``OSError``."""
    with path.open("rb") as file:
        return _last_line(file.fileno())[0]


def audit_log(state_folder: Path, *, max_bytes: int = 1024**3, min_days: int = 90) -> AuditLog:
    return AuditLog(state_folder / _FILE, max_bytes=max_bytes, min_days=min_days)
