"""The audit log: what was changed, when, and by whom. JSON lines, appended with one write and synced; keys never get
here."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from typing import Any, Final

from attrs import frozen

from wazuh_comms_trio.foundation.file_writes import sync, write_all
from wazuh_comms_trio.foundation.timestamps import to_iso

_FILE: Final = "audit.log"


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
    """Of this process."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = None
    sudo_uid = os.environ.get("SUDO_UID", "")
    return User(uid, name, os.environ.get("SUDO_USER") or None, int(sudo_uid) if sudo_uid.isdecimal() else None)


@frozen
class AuditLog:
    """One state folder's. Several processes may append at once: each entry is one write."""

    path: Path
    wall_clock: Callable[[], float] = time

    def append(self, user: User, action: str, target: str, **details: object) -> None:
        """Durable on return. ``action``: ``agents add``; ``target``: a uuid, a command's id ... Raises ``OSError``."""
        moment = to_iso(self.wall_clock())
        entry: Mapping[str, object] = {"time": moment, **user.as_data(), "action": action, "object": target, **details}
        line = json.dumps(entry).encode() + b"\n"
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # an entry that a full disk cut off
                line = b"\n" + line
            write_all(descriptor, line)
            sync(descriptor)
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raises ``OSError`` when nothing could be appended, before anything is changed that should have an entry."""
        os.close(self._open())

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def audit_log(state_folder: Path) -> AuditLog:
    return AuditLog(state_folder / _FILE)
