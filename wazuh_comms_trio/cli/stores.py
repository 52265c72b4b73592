"""The stores behind the operator's tool: the daemon's own, opened beside it (or without it), and the audit log."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from wazuh_comms_trio.audit import AuditLog, User, audit_log, current_user
from wazuh_comms_trio.backends.base import Backends
from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.program import Failure, config_path
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import Config

if TYPE_CHECKING:
    from wazuh_comms_trio.quarantine import Quarantine


@frozen
class Stores:
    """What a command works on; made by ``open_stores``."""

    config: Config
    backends: Backends
    quarantine: Quarantine
    output: Output
    _audit: AuditLog
    _user: User

    def prepare_change(self) -> None:
        """To be called before the first change: one that can't be written down isn't made. Raises ``OSError``."""
        self._audit.check()

    def changed(self, action: str, target: str, **details: object) -> None:
        """Writes one change down. ``details`` hold no keys and no bodies."""
        self._audit.append(self._user, action, target, **details)


def read_config(arguments: Namespace) -> Config:
    """The tool needs no TLS keys, and often may not read them: they aren't looked at. Raises ``ConfigError``."""
    return load_config(config_path(arguments.config), check_files=False).config


@asynccontextmanager
async def open_stores(arguments: Namespace) -> AsyncIterator[Stores]:
    """Opens what the configuration says. Run as root, it acts as the state folder's owner meanwhile, so that no file is
    left that the daemon can't open. Raises ``ConfigError``, ``BackendUnavailable``, ``OSError``."""
    from wazuh_comms_trio.backends.factory import open_backends, open_quarantine

    config = read_config(arguments)
    user = current_user()
    folder = config.communications_api.embedded.path
    with acting_as_owner(folder):
        async with open_backends(config) as backends, open_quarantine(config) as quarantine:
            yield Stores(config, backends, quarantine, Output(as_json=arguments.json), audit_log(folder), user)


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """As root: with the owner's user and group, of the folder or the nearest one above that exists."""
    if os.geteuid() != 0:
        yield
        return
    found = _nearest(folder).stat()
    if found.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        os.setgroups(groups)


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def embedded_folder(config: Config) -> Path:
    """The state folder. Raises ``Failure`` where the state isn't embedded."""
    if config.communications_api.backend != "embedded":
        raise Failure("this works on embedded backends only; the configuration says `backend: wazuh`")
    return config.communications_api.embedded.path
