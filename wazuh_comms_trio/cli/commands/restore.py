"""``wazuh-comms restore``: the state of a backup takes the place of the present one, which is kept beside it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure, config_path

if TYPE_CHECKING:
    from wazuh_comms_trio.config.models import Config


def add_parser(parent: Group) -> None:
    restore = parent.command(
        "restore",
        _restore,
        help="put the state of a backup in place; the daemon must be stopped",
        description="Puts the state of a backup in the place of the present one, which is kept in a file beside it. "
        "Nothing is touched before FILE was found good. The daemon must be stopped.",
    )
    restore.add_argument("--discard", action="store_true", help="don't keep the present state")
    restore.add_argument("file", metavar="FILE", type=Path)


def _restore(arguments: Namespace) -> int:
    from wazuh_comms_trio.audit.log import audit_log, current_user
    from wazuh_comms_trio.backends.embedded.state_lock import RESTORING
    from wazuh_comms_trio.backends.unavailable import StateUnusable
    from wazuh_comms_trio.backup.create import restore
    from wazuh_comms_trio.backup.leavings import remove_leavings
    from wazuh_comms_trio.cli.documents import backup_document
    from wazuh_comms_trio.cli.output import Output
    from wazuh_comms_trio.cli.owner import acting_as_owner, prepare_folder
    from wazuh_comms_trio.cli.stores import read_config
    from wazuh_comms_trio.quarantine.opening import quarantine_folder

    config = read_config(arguments)
    folder = config.communications_api.embedded.path
    file = arguments.file.absolute()
    user = current_user()
    config_file = Path(config_path(arguments.config))
    for each in (folder, quarantine_folder(config)):
        prepare_folder(each, config_file)
    remove_leavings(folder)
    kept = None if arguments.discard else _keep_present(config, folder)
    try:
        contents = restore(config, file, replace=True)
    except BaseException as error:
        if kept is not None and not (folder / RESTORING).exists():  # nothing was touched
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink(missing_ok=True)
        if isinstance(error, StateUnusable):
            raise Failure(f"{error.message}{_restarted_by_socket()}") from error
        raise
    with acting_as_owner(folder, config_file):
        keep = config.communications_api.embedded.keep
        log = audit_log(folder, max_bytes=keep.audit_bytes, min_days=keep.audit_days)
        log.append(user, "restore", str(file), created=contents.created, kept=str(kept) if kept else None)
    output = Output(as_json=arguments.json)
    document = {**backup_document(file, contents), "kept": str(kept) if kept else None}
    output.document(document, f"restored {file}, made {contents.created}: {len(contents.members)} files")
    for sentence in contents.damaged:
        output.note(f"The backup was made of a damaged state; not in it: {sentence}")
    if kept is not None:
        output.note(f"What was there before is kept in {kept}; remove it when it isn't needed any more.")
    return 0


def _restarted_by_socket() -> str:
    """What to do about a service that uses the state, where its socket would start it again."""
    unit = "wazuh-comms-apid"
    try:
        found = subprocess.run(
            ["systemctl", "is-active", f"{unit}.socket"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if found.stdout.strip() != "active":
        return ""
    return (
        f"; {unit}.socket starts the service with the next connection: systemctl stop {unit}.socket {unit}.service "
        "stops both"
    )


def _keep_present(config: Config, folder: Path) -> Path | None:
    """The present state as a backup beside it. Where not all of it is in that, or it is too damaged for one, a folder
    with the backup or the databases, and the other files of events and payloads. None when there is nothing."""
    from wazuh_comms_trio.backup.create import BackupError, backup
    from wazuh_comms_trio.foundation.file_writes import copy_file, rename
    from wazuh_comms_trio.quarantine.opening import quarantine_folder

    embedded = config.communications_api.backend == "embedded"
    databases = [*([folder / "state.db"] if embedded else []), quarantine_folder(config) / "quarantine.db"]
    rest = {path: f"quarantine/{path.parent.name}" for path in _files(databases[-1].with_name("payloads"))}
    if embedded:
        rest |= {path: path.parent.name for path in _files(folder / "events")}
    if not rest and not databases[0].exists():
        return None
    kept = _free_name(folder, "replaced-" + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    file = kept.with_suffix(".backup")
    try:
        contents = backup(config, file)
    except BackupError:
        kept.mkdir(mode=0o700)
        for database in databases:
            for path in (database, database.with_name(f"{database.name}-wal")):
                if path.exists():
                    copy_file(path, kept / path.name)
    else:
        if not contents.damaged:
            members = {member.name for member in contents.members}
            rest = {path: place for path, place in rest.items() if f"{place}/{path.name}" not in members}
        if not rest:
            return file
        kept.mkdir(mode=0o700)
        rename(file, kept / file.name)
    for path, place in rest.items():
        (kept / place).mkdir(mode=0o700, parents=True, exist_ok=True)
        _keep_file(path, kept / place / path.name)
    if os.geteuid() == 0:  # the service's to remove, too
        owner = folder.stat()
        for path in (kept, *kept.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
    return kept


def _files(folder: Path) -> list[Path]:
    """Of events or payloads, without what is only about segments."""
    from wazuh_comms_trio.backends.embedded.ndjson.ledger import LEDGER
    from wazuh_comms_trio.backends.embedded.ndjson.scrub import LOCK

    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.is_file() and not path.is_symlink() and path.name not in (LEDGER, LOCK)]


def _keep_file(path: Path, target: Path) -> None:
    """By a second name where that can be: there may be many gigabytes."""
    from wazuh_comms_trio.foundation.file_writes import copy_file, link_file
    from wazuh_comms_trio.foundation.folders import open_folder

    try:
        with open_folder(target.parent) as opened:
            link_file(path, target.name, opened)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
            raise
        copy_file(path, target)


def _free_name(folder: Path, name: str) -> Path:
    for number in range(1000):
        path = folder / (f"{name}-{number}" if number else name)
        if not path.exists() and not path.with_suffix(".backup").exists():
            break
    return path
