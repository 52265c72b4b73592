"""Restoring a backup: everything is unpacked and checked beside the state first, then put in its place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import apsw
from attrs import frozen

from wazuh_comms_trio.backends.embedded.database.schema import Schema, check_usable
from wazuh_comms_trio.backends.embedded.ndjson.damage import promise_whole_records
from wazuh_comms_trio.backends.embedded.ndjson.folder_id import forget_folder
from wazuh_comms_trio.backends.embedded.state_lock import RESTORING, hold_state
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.backup.format import (
    AUDIT_LOG,
    MANIFEST,
    MANIFEST_LIMIT,
    QUARANTINE_DB,
    STATE_DB,
    BackupError,
    Contents,
    Measured,
    Member,
    decode_manifest,
    is_member_name,
)
from wazuh_comms_trio.backup.leavings import STAGING, left_staging
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.foundation.file_writes import WholeFile, copy_file, rename, sync
from wazuh_comms_trio.foundation.folders import adopt, make_folder, sync_folder
from wazuh_comms_trio.quarantine.opening import made_marks, quarantine_folder
from wazuh_comms_trio.quarantine.schema import QUARANTINE

#: What a node keeps, by whether that is embedded state.
_KINDS: Final = {
    True: "embedded backends; the configuration says `backend: wazuh`",
    False: "`backend: wazuh`, with a quarantine and an audit log; the configuration says `backend: embedded`",
}


@frozen
class _Place:
    """One name in a folder that the restore replaces; ``staged``: what comes there, None for nothing."""

    target: Path
    staged: Path | None


def restore(config: Config, file: Path, *, replace: bool = False) -> Contents:
    """Puts the state of a backup in the place of what ``embedded.path`` holds; if it holds something, only with
    ``replace``. The audit log that is there stays.

    Nothing is touched before the whole file was found good. Raises ``BackupError``, ``StateUnusable`` while a daemon or
    another tool uses the state.
    """
    folder = config.communications_api.embedded.path
    quarantine = quarantine_folder(config)
    try:
        with ExitStack() as stack:
            stack.enter_context(_alone(folder))
            stack.enter_context(_alone(quarantine))
            interrupted = (folder / RESTORING).exists()
            embedded = config.communications_api.backend == "embedded"
            if not replace and not interrupted and _holds_state(folder if embedded else None, quarantine):
                raise BackupError(f"{folder} holds state already; it is replaced only when that is asked for")
            staging = folder / f"{STAGING}{secrets.token_hex(8)}"
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
            for stale in left_staging(folder):
                shutil.rmtree(stale, ignore_errors=True)
            contents = _unpack(file, staging)
            if contents.embedded_state != embedded:
                raise BackupError(f"{file} is the backup of a node with {_KINDS[contents.embedded_state]}")
            if embedded:
                _check_database(staging / STATE_DB, STATE)
                forget_folder_of(staging / STATE_DB)
                promise_whole_records(staging / "events")
            if (staging / QUARANTINE_DB).exists():
                _check_database(staging / QUARANTINE_DB, QUARANTINE)
            places = _places(folder, quarantine, staging, embedded=embedded)
            places += [_Place(mark.path, None) for mark in made_marks(config).values()]
            _swap(places, [folder, quarantine])
    except OSError as exc:
        raise BackupError(f"{exc.filename or file}: {exc.strerror}") from exc
    except apsw.Error as exc:  # of a database that is whole, and not ours in all it has
        raise BackupError(f"the backup is damaged: {STATE.name}: {exc}") from exc
    return contents


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with hold_state(folder, alone=True):
        yield


def _holds_state(folder: Path | None, quarantine: Path) -> bool:
    """``folder``: of embedded state; None where that isn't what is kept."""
    if (quarantine / "quarantine.db").exists():
        return True
    return folder is not None and (
        (folder / "state.db").exists() or any(path.suffix == ".ndjson" for path in (folder / "events").glob("*"))
    )


def _unpack(file: Path, staging: Path) -> Contents:
    """Unpacks every member into ``staging``, checked against the manifest."""
    found: dict[str, Member] = {}
    contents: Contents | None = None
    try:
        with tarfile.open(file, mode="r|") as archive:
            for head in archive:
                source = archive.extractfile(head) if head.isreg() else None
                if source is None or contents is not None:
                    raise BackupError(f"{file}: not a backup of this program")
                if head.name == MANIFEST:
                    contents = decode_manifest(source.read(MANIFEST_LIMIT))
                    continue
                if not is_member_name(head.name) or head.name in found:
                    raise BackupError(f"{file}: not a backup of this program (it contains {head.name!r})")
                target = staging / head.name
                make_folder(target.parent)
                measured = Measured(source, head.size)
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    adopt(descriptor, target.parent)
                    measured.copy_to(WholeFile(descriptor).write)
                    sync(descriptor)
                finally:
                    os.close(descriptor)
                found[head.name] = measured.member(head.name)
    except tarfile.TarError as exc:
        raise BackupError(f"{file}: not a backup, or a damaged one ({exc})") from exc
    if contents is None:
        raise BackupError(f"{file}: the backup is incomplete, or not one of this program: it has no manifest")
    if {member.name: member for member in contents.members} != found:
        raise BackupError(f"{file}: the backup is damaged: its files aren't those of its manifest")
    if contents.embedded_state and STATE_DB not in found:
        raise BackupError(f"{file}: the backup is damaged: its files aren't those of its manifest")
    return contents


def _check_database(path: Path, schema: Schema) -> None:
    connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
    try:
        check_usable(connection, schema)
        verdict = connection.execute("PRAGMA integrity_check(1)").get
        if verdict != "ok":
            raise BackupError(f"the backup is damaged: {schema.name}: {verdict}")
    except StateUnusable as exc:
        raise BackupError(exc.message) from exc
    except (apsw.Error, UnicodeDecodeError) as exc:
        raise BackupError(f"the backup is damaged: {schema.name}: {exc}") from exc
    finally:
        connection.close()


def forget_folder_of(path: Path) -> None:
    """Lets a copy of ``state.db`` forget its folder of events, which will be another one. Raises SQLite's errors."""
    connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)
    try:
        forget_folder(connection)
    finally:
        connection.close()


def _places(folder: Path, quarantine: Path, staging: Path, *, embedded: bool) -> list[_Place]:
    """The names that are replaced, and by what; what the backup doesn't have is removed, but for the audit log. Where
    the state isn't embedded, what there may be of it stays."""
    pairs = [(folder / name, staging / name) for name in ("state.db", "events") if embedded]
    pairs += [(quarantine / name, staging / "quarantine" / name) for name in ("quarantine.db", "payloads")]
    places = [_Place(target, staged if staged.exists() else None) for target, staged in pairs]
    for database in ("state.db", "quarantine.db") if embedded else ("quarantine.db",):
        parent = folder if database == "state.db" else quarantine
        places += [_Place(parent / f"{database}{suffix}", None) for suffix in ("-wal", "-shm")]
    if not (folder / AUDIT_LOG).exists() and (staging / AUDIT_LOG).exists():
        for staged in staging.glob(f"{AUDIT_LOG}*"):
            places.append(_Place(folder / staged.name, staged))
    return places


def _swap(places: Sequence[_Place], folders: Sequence[Path]) -> None:
    """From the first rename to the last a mark says that the state isn't whole; no process opens it then, and a restore
    that is run again goes on from whatever it finds."""
    for folder in folders:
        (folder / RESTORING).touch(mode=0o600)
        sync_folder(folder)
    for place in places:
        if place.target.is_dir():
            shutil.rmtree(place.target)
        else:
            place.target.unlink(missing_ok=True)
        if place.staged is not None:
            _move(place.staged, place.target)
    for folder in folders:
        sync_folder(folder)
        (folder / RESTORING).unlink()
        sync_folder(folder)


def _move(source: Path, target: Path) -> None:
    """Moves a file, also to another file system: the quarantine may have one of its own."""
    try:
        rename(source, target)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        if source.is_dir():
            make_folder(target)
            for file in source.iterdir():
                copy_file(file, target / file.name)
        else:
            copy_file(source, target)
        for path in (target, *(target.iterdir() if target.is_dir() else ())):
            _give_to_owner(path, target.parent)
    if target.is_dir():
        sync_folder(target)


def _give_to_owner(path: Path, folder: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        adopt(descriptor, folder)
    finally:
        os.close(descriptor)
