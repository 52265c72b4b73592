"""Backup and restore of what a node keeps: one file for everything under ``embedded.path``; with `backend: wazuh` that
is the quarantine and the audit log. Blocking calls.

A backup may be made while the daemon runs: each database as it is at one moment, each segment of events up to its last
whole record. A restore needs the state for itself.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import secrets
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, cast

import apsw

from wazuh_comms_trio.audit.log import audit_log
from wazuh_comms_trio.backends.embedded.database.log.log_check import LogNotKept, keep_damaged_log
from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage, Reading, missing_segments, read_segment
from wazuh_comms_trio.backends.embedded.ndjson.ledger import LEDGER, NO_LEDGER, is_something_else, promises
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backup.format import (
    AUDIT_LOG,
    EVENTS,
    MANIFEST,
    MANIFEST_LIMIT,
    PAYLOADS,
    QUARANTINE_DB,
    STATE_DB,
    BackupError,
    Contents,
    Measured,
    Member,
    decode_manifest,
    encode_manifest,
    is_member_name,
)
from wazuh_comms_trio.backup.leavings import SCRATCH, remove_left_scratch
from wazuh_comms_trio.backup.restore import forget_folder_of, restore
from wazuh_comms_trio.backup.verify import Finding, check_database, check_entries, check_state
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.foundation.extras import installed_version
from wazuh_comms_trio.foundation.file_writes import WholeFile, rename, sync
from wazuh_comms_trio.foundation.folders import draft, open_file, remove_left_drafts, sync_folder
from wazuh_comms_trio.foundation.timestamps import to_iso
from wazuh_comms_trio.quarantine.opening import made_marks, quarantine_folder
from wazuh_comms_trio.quarantine.payload_files import FILE, own_name
from wazuh_comms_trio.quarantine.schema import QUARANTINE

__all__ = ["BackupError", "Contents", "backup", "restore"]

#: Seconds to wait for a database that another process holds.
_BUSY_TIMEOUT: Final = 30.0

#: Bytes of one write.
_AT_ONCE: Final = 1024 * 1024


def backup(config: Config, file: Path, *, wall_clock: Callable[[], float] = time.time) -> Contents:
    """Writes ``file`` (mode 0600; a backup that is there is replaced when the new one is complete; another file stays).
    Raises ``BackupError``."""
    folder = config.communications_api.embedded.path
    embedded = config.communications_api.backend == "embedded"
    kept = [folder / "state.db"] if embedded else [quarantine_folder(config) / "quarantine.db", folder / AUDIT_LOG]
    if not any(path.exists() for path in kept):
        raise BackupError(f"{folder} holds no state to back up")
    members: list[Member] = []
    try:
        _check_name(file)
        with (
            _new_file(file) as target,
            _scratch_folder(file.parent) as scratch,
            tarfile.open(fileobj=target, mode="w|", bufsize=_AT_ONCE, format=tarfile.PAX_FORMAT) as archive,
        ):
            archiver = _Archiver(archive, wall_clock(), members)
            for name, mark in made_marks(config).items():
                if (loss := mark.loss()) is not None:
                    archiver.damaged.append(f"{name}: {loss}")
            if embedded:
                _add_state(archiver, folder, scratch)
            for part in audit_log(folder).parts():
                archiver.add_path(part.name, part)
            if (folder / AUDIT_LOG).exists():
                archiver.add_path(AUDIT_LOG, folder / AUDIT_LOG)
            _add_quarantine(archiver, quarantine_folder(config), scratch)
            contents = Contents(
                to_iso(wall_clock()), installed_version("unknown"), tuple(members), tuple(archiver.damaged), embedded
            )
            archiver.add_bytes(MANIFEST, encode_manifest(contents))
    except OSError as exc:
        raise BackupError(f"{exc.filename or file}: {exc.strerror}") from exc
    except apsw.Error as exc:
        raise BackupError(f"the state can't be read: {exc}") from exc
    return contents


def _check_name(file: Path) -> None:
    """Raises ``BackupError`` where the name can't be a backup's, ``OSError`` where that can't be told."""
    if file.is_dir():
        raise BackupError(f"{file} is a folder; name the file to write")
    if not file.parent.is_dir():
        raise BackupError(f"{file.parent}: there is no such folder")
    if not _may_be_replaced(file):
        raise BackupError(f"{file} is there and no backup; name another file")


def _may_be_replaced(file: Path) -> bool:
    """Nothing, nothing in it, or a whole backup: never a device, nor somebody's other file, such as an archive of the
    state folder."""
    if not os.path.lexists(file) or (file.is_file() and file.stat().st_size == 0):
        return True
    return file.is_file() and _is_backup(file)


def _is_backup(file: Path) -> bool:
    """Whether a file has the manifest of a backup at its end, and before that what the manifest says. Seeks from member
    to member. Raises ``OSError``."""
    sizes: dict[str, int] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            while (head := archive.next()) is not None and is_member_name(head.name):
                sizes[head.name] = head.size
                cast("Any", archive).members.clear()  # there may be very many
            source = archive.extractfile(head) if head is not None and head.name == MANIFEST else None
            if source is None or archive.next() is not None:
                return False
            contents = decode_manifest(source.read(MANIFEST_LIMIT))
    except (tarfile.TarError, BackupError):
        return False
    return sizes == {member.name: member.bytes for member in contents.members}


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete and durable."""
    remove_left_drafts(path.parent, re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}"))
    unnamed = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with draft(unnamed) as descriptor:
        yield cast("IO[bytes]", WholeFile(descriptor))
        sync(descriptor)
        _check_name(path)  # all of it takes minutes
        rename(unnamed, path)
        sync_folder(path.parent)


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for copies of databases, locked as long as this process lives; those of killed processes go."""
    remove_left_scratch(parent)
    while True:
        folder = parent / f"{SCRATCH}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # then others can't lock it either
                fcntl.flock(opened, fcntl.LOCK_EX)
            if folder.is_dir():
                break
            os.close(opened)
        # another backup took it for a killed one's, before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(opened)


class _Archiver:
    """Adds files to the archive and notes what they were."""

    def __init__(self, archive: tarfile.TarFile, now: float, members: list[Member]) -> None:
        #: What was acknowledged and couldn't be read, a sentence for each file.
        self.damaged: list[str] = []
        self._archive = archive
        self._now = now
        self._members = members

    def add(self, name: str, file: IO[bytes], size: int) -> None:
        """Adds the first ``size`` bytes of ``file``, from where it stands."""
        measured = Measured(file, size)
        self._archive.addfile(self._head(name, size), cast("IO[bytes]", measured))
        self._members.append(measured.member(name))

    def note(self, findings: Iterable[Finding]) -> None:
        self.damaged.extend(f"{finding.place}: {finding.damage}" for finding in findings)

    def add_bytes(self, name: str, data: bytes) -> None:
        """Adds a member that isn't noted in the manifest."""
        self._archive.addfile(self._head(name, len(data)), io.BytesIO(data))

    def _head(self, name: str, size: int) -> tarfile.TarInfo:
        head = tarfile.TarInfo(name)
        head.size = size
        head.mode = 0o600
        head.mtime = int(self._now)
        return head

    def add_path(self, name: str, path: Path) -> None:
        with open_file(path) as file:
            self.add(name, file, os.fstat(file.fileno()).st_size)


def _add_state(archiver: _Archiver, folder: Path, scratch: Path) -> None:
    copy = scratch / "state.db"
    _keep_log(archiver, folder / "state.db")
    _copy_database(folder / "state.db", copy)
    archiver.note(check_database(copy, STATE, partial(check_state, events=folder / "events")))
    with suppress(apsw.Error):  # a damaged one is kept as it is
        forget_folder_of(copy)  # an earlier version's restore doesn't
    archiver.add_path(STATE_DB, copy)
    copy.unlink()
    _add_events(archiver, folder / "events")


def _add_events(archiver: _Archiver, folder: Path) -> None:
    known = promises(folder)  # before the sizes: a segment only grows
    for segment in segment_files(folder):
        size = 0
        for part in read_segment(segment, Reading(segment.path.name), known.get(segment.path.name)):
            if isinstance(part, Damage):
                archiver.damaged.append(f"{EVENTS}{part}")
            else:
                size = part[0].end
        try:
            opened = segment.path.open("rb")
        except OSError:  # deleted to make room; or told as damage
            continue
        with opened:
            if size:
                archiver.add(EVENTS + segment.path.name, opened, size)
    if is_something_else(folder):
        archiver.damaged.append(f"{EVENTS}{LEDGER}: {NO_LEDGER}")
    archiver.damaged.extend(f"{EVENTS}{damage}" for damage in missing_segments(folder))


def _add_quarantine(archiver: _Archiver, folder: Path, scratch: Path) -> None:
    if not (folder / "quarantine.db").exists():
        return
    copy = scratch / "quarantine.db"
    _keep_log(archiver, folder / "quarantine.db")
    _copy_database(folder / "quarantine.db", copy)
    live = apsw.Connection(str(folder / "quarantine.db"), apsw.SQLITE_OPEN_READWRITE)
    live.set_busy_timeout(int(_BUSY_TIMEOUT * 1000))
    try:
        entries = partial(check_entries, files=folder / "payloads", live=live)
        archiver.note(check_database(copy, QUARANTINE, lambda connection, _: entries(connection)))
    finally:
        live.close()
    connection = apsw.Connection(str(copy))
    try:
        rows = connection.execute(f"SELECT id, {FILE} FROM entries WHERE file IS NOT NULL").fetchall()
        for entry_id, raw in cast("list[tuple[int, bytes]]", rows):
            try:
                if (name := own_name(raw)) is None:
                    raise FileNotFoundError
                archiver.add_path(PAYLOADS + name, folder / "payloads" / name)
            except FileNotFoundError:  # dropped since the copy was made, or told as damage
                connection.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
    finally:
        connection.close()
    archiver.add_path(QUARANTINE_DB, copy)


def _keep_log(archiver: _Archiver, database: Path) -> None:
    """Of a database that nobody uses: opening it takes a damaged log away. Raises ``BackupError`` where that can't be
    kept beside it."""
    try:
        dropped = keep_damaged_log(database)
    except LogNotKept as exc:
        raise BackupError(f"{database}: {exc}") from exc
    if dropped:
        archiver.note([Finding(f"{database.name}-wal", f"it is damaged: up to {dropped} committed pages are lost")])


def _copy_database(source_path: Path, target_path: Path) -> None:
    """A copy of a database as it is at one moment, in one file."""
    source = apsw.Connection(str(source_path), apsw.SQLITE_OPEN_READWRITE)
    target = apsw.Connection(str(target_path))
    try:
        source.set_busy_timeout(int(_BUSY_TIMEOUT * 1000))
        with target.backup("main", source, "main") as copying:
            copying.step()
        target.execute("PRAGMA journal_mode = DELETE").get  # noqa: B018  # no log beside it
    finally:
        target.close()
        source.close()
