"""What a backup file looks like: a tar archive with a manifest as its last member, so that a cut one shows.

Members: ``state.db``, ``events/*.ndjson``, ``quarantine/quarantine.db``, ``quarantine/payloads/*``, ``audit.log`` and
its parts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import IO, Any, Final

from attrs import frozen

from wazuh_comms_trio.errors import WazuhInternalError

#: Of a backup of embedded state, and of one that has none, which versions that know only the first don't take.
FORMAT: Final = 1
FORMAT_WITHOUT_STATE: Final = 2
MANIFEST: Final = "manifest.json"
#: Bytes that are read of it.
MANIFEST_LIMIT: Final = 64 * 1024 * 1024
STATE_DB: Final = "state.db"
QUARANTINE_DB: Final = "quarantine/quarantine.db"
PAYLOADS: Final = "quarantine/payloads/"
EVENTS: Final = "events/"
AUDIT_LOG: Final = "audit.log"

_NAMES: Final = re.compile(
    r"state\.db|audit\.log(\.[0-9]{6})?|quarantine/quarantine\.db|quarantine/payloads/[0-9a-f]{1,64}|events/[A-Za-z0-9-]+\.ndjson"
)

_CHUNK: Final = 1024 * 1024


class BackupError(WazuhInternalError):
    """A backup can't be made or restored; the text says why, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(0, text, cmd_error=True)

    def __str__(self) -> str:
        return self.message


@frozen
class Member:
    """One file of a backup; ``sha256`` in hex."""

    name: str
    bytes: int
    sha256: str


@frozen
class Contents:
    """What a backup holds. ``created`` as RFC 3339; ``program``: the version that made it; ``damaged``: what couldn't
    be read when it was made, a sentence for each file. Without ``embedded_state`` it is of a node whose agents, events
    and commands are in an indexer: quarantine and audit log."""

    created: str
    program: str
    members: tuple[Member, ...]
    damaged: tuple[str, ...] = ()
    embedded_state: bool = True

    @property
    def total_bytes(self) -> int:
        return sum(member.bytes for member in self.members)


def is_member_name(name: str) -> bool:
    """Whether a backup may contain this; nothing else is ever written to disk."""
    return _NAMES.fullmatch(name) is not None


def encode_manifest(contents: Contents) -> bytes:
    files = [{"name": member.name, "bytes": member.bytes, "sha256": member.sha256} for member in contents.members]
    manifest: dict[str, Any] = {
        "format": FORMAT if contents.embedded_state else FORMAT_WITHOUT_STATE,
        "program": contents.program,
        "created": contents.created,
        "files": files,
    }
    if contents.damaged:
        manifest["damaged"] = list(contents.damaged)
    return json.dumps(manifest, indent=1).encode()


def decode_manifest(data: bytes) -> Contents:
    """Reads a manifest. Raises ``BackupError``."""
    try:
        manifest: dict[str, Any] = json.loads(data)
        if manifest["format"] > FORMAT_WITHOUT_STATE:
            raise BackupError("the backup was made by a newer version of this program; restore it with that one")
        if manifest["format"] not in (FORMAT, FORMAT_WITHOUT_STATE):
            raise BackupError("the file's manifest is damaged")
        members = tuple(Member(str(file["name"]), file["bytes"], file["sha256"]) for file in manifest["files"])
        damaged = tuple(map(str, manifest.get("damaged", ())))
        embedded_state = manifest["format"] == FORMAT
        return Contents(str(manifest["created"]), str(manifest["program"]), members, damaged, embedded_state)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise BackupError("the file's manifest is damaged") from exc


class Measured:
    """A file being read (or written) whose bytes are counted and hashed on the way."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file = file
        self._left = limit
        self._hash = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Reads at most ``limit`` bytes in all."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self.bytes += len(data)
        self._hash.update(data)
        return data

    def copy_to(self, write: Callable[[bytes], object]) -> None:
        while data := self.read(_CHUNK):
            write(data)

    def member(self, name: str) -> Member:
        return Member(name, self.bytes, self._hash.hexdigest())
