"""Whom the state belongs to: what root does with the tool must leave nothing that the service can't use."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wazuh_comms_trio.cli.program import DEFAULT_CONFIG
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.problems import ConfigError, Problem
from wazuh_comms_trio.foundation.folders import make_folder

#: The service's user where nothing else says it; scripts/install and the package make it.
SERVICE_USER: Final = "wazuh-comms"


def find_owner(folder: Path, config_file: Path) -> pwd.struct_passwd | None:
    """The user of the state folder: its owner, or the nearest existing one's above it. Where that is root: whom the
    configuration was made for, by its owner or its group. None: root itself, or a user without a name."""
    found = _nearest(folder).stat().st_uid
    if found:
        return _by_uid(found)
    try:
        status = config_file.stat()
    except OSError:
        return None
    if status.st_uid:
        return _by_uid(status.st_uid)
    if status.st_gid:
        return next((user for user in pwd.getpwall() if user.pw_gid == status.st_gid and user.pw_uid), None)
    if config_file == Path(DEFAULT_CONFIG):
        return next((user for user in pwd.getpwall() if user.pw_name == SERVICE_USER), None)
    return None


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _by_uid(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def unreadable_for_service(config_file: Path, folder: Path) -> tuple[str, Sequence[Problem]] | None:
    """As root: the name of the service's user, and what of a configuration that root can use that user can't. None:
    nothing, or the service is root's, too."""
    if os.geteuid() != 0 or (user := find_owner(folder, config_file)) is None:
        return None
    with acting_as(user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)):
        try:
            load_config(config_file)
        except ConfigError as error:
            return user.pw_name, error.problems
    return None


def prepare_folder(folder: Path, config_file: Path) -> None:
    """As root: makes a state folder that is missing, and gives it to its owner. Parents that are missing, too, are
    root's, and others may look into them. Raises ``OSError``."""
    if os.geteuid() != 0 or folder.exists():
        return
    owner = find_owner(folder, config_file)
    make_folder(folder)
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)


@contextmanager
def acting_as_owner(folder: Path, config_file: Path, *, make: bool = True) -> Iterator[None]:
    """As root: with the user and group that the state folder belongs to. With ``make`` one that is missing is made.
    Raises ``OSError``."""
    if os.geteuid() != 0:
        yield
        return
    if make:
        prepare_folder(folder, config_file)
    found = _nearest(folder).stat()
    if found.st_uid == 0:
        yield
        return
    user = _by_uid(found.st_uid)
    groups = [] if user is None else os.getgrouplist(user.pw_name, found.st_gid)
    with acting_as(found.st_uid, found.st_gid, groups):
        yield


@contextmanager
def acting_as(uid: int, gid: int, groups: list[int]) -> Iterator[None]:
    """This process, root's, acts as another user while the block runs."""
    own = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(own)
