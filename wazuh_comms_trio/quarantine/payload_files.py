"""Large payloads of the quarantine: a file each, written and synced before the row that names it.

Its writer holds a lock on it until the row is there. So a file that has neither a row nor a lock was left by a killed
process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.foundation.file_writes import rename, sync, write_all
from wazuh_comms_trio.foundation.folders import adopt, make_folder, open_regular, sync_folder, try_lock

logger = logging.getLogger(__name__)

FILES: Final = "payloads"

_OWN_NAME: Final = re.compile("[0-9a-f]{32}")
#: A payload's file in a row, for ``own_name``: what is damaged may be no text.
FILE: Final = "CAST(file AS BLOB)"


def own_name(raw: bytes | None) -> str | None:
    """A file's name from its row; None where there is none, or it is damaged: it must lead nowhere else."""
    text = "" if raw is None else raw.decode("ascii", "replace")
    return text if _OWN_NAME.fullmatch(text) else None


@define
class PayloadFiles:
    """The files that one call writes. Entered with ``async with``; on leaving, their locks end.

    Files are removed when it is certain that no row names them: after ``StorageFull``, and by ``keep_only``. After a
    cancellation or another failure that isn't certain; ``remove_unreferenced`` of the store finds them later.
    """

    folder: Path
    names: dict[str, int] = field(factory=dict)  # name -> descriptor

    async def __aenter__(self) -> PayloadFiles:
        return self

    async def write(self, pieces: Iterable[bytes]) -> str:
        """Writes a payload; returns the new file's name; durable on return. Raises ``OSError``."""
        return await trio.to_thread.run_sync(self._write, pieces)

    def _write(self, pieces: Iterable[bytes]) -> str:
        make_folder(self.folder)
        name = secrets.token_hex(16)
        path = self.folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            adopt(descriptor, self.folder)
            for piece in pieces:
                write_all(descriptor, piece)
            sync(descriptor)
            sync_folder(self.folder)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self.names[name] = descriptor
        return name

    def keep_only(self, names: Collection[str]) -> None:
        for name in self.names.keys() - set(names):
            (self.folder / name).unlink(missing_ok=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, StorageFull):
            self.keep_only(())
        for descriptor in self.names.values():
            os.close(descriptor)


def candidates(folder: Path) -> list[str]:
    """The files in the folder that have a name of ours; the table says which of them are unreferenced."""
    try:
        return list(filter(_OWN_NAME.fullmatch, os.listdir(folder)))
    except FileNotFoundError:
        return []


def set_aside(folder: Path, database: Path) -> None:
    """Before ``database`` is made: payloads that are there although it isn't have lost their entries, and are no killed
    process's. Raises ``OSError``."""
    if database.exists() or not candidates(folder):
        return
    names = (folder.with_name(f"{folder.name}.without-entries{suffix}") for suffix in ("", f"-{secrets.token_hex(4)}"))
    kept = next(path for path in names if not path.exists())
    rename(folder, kept)
    logger.error("%s is missing: the payloads of its entries are kept in %s", database, kept)


def lock_unreferenced(folder: Path, name: str) -> int | None:
    """A descriptor that holds the file's lock, None when a process is writing it, or it is no file. Look for its row
    *then*: a writer releases the lock after its row is stored."""
    try:
        descriptor = open_regular(folder / name)
    except OSError:
        return None
    if descriptor is None or try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None
