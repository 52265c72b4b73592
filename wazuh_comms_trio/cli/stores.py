"""The stores behind the operator's tool: the daemon's own, opened beside it (or without it), and the audit log."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from wazuh_comms_trio.audit.log import AuditLog, User, audit_log, current_user
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.owner import acting_as_owner, prepare_folder
from wazuh_comms_trio.cli.program import Failure, config_path
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.folders import make_folder
from wazuh_comms_trio.quarantine.interface import Quarantine

#: Seconds after which the operator is told what a command waits for.
_PATIENCE: Final = 5.0


@frozen
class Session:
    """What every command that touches stores has; made by ``open_session``."""

    config: Config
    config_file: Path
    output: Output
    audit: AuditLog
    user: User

    def acting_as_owner(self, folder: Path) -> AbstractContextManager[None]:
        """As root: with the user of the state folder, so that no file is left that the daemon can't open."""
        return acting_as_owner(folder, self.config_file)

    def prepare_change(self) -> None:
        """To be called before the first change: one that can't be written down isn't made. Raises ``OSError``."""
        make_folder(self.audit.path.parent)
        self.audit.check()

    def changed(self, action: str, target: str, **details: object) -> None:
        """Writes one change down. ``details`` hold no keys and no bodies."""
        self.audit.append(self.user, action, target, **details)


@frozen
class Stores(Session):
    backends: Backends


@frozen
class QuarantineSession(Session):
    """The quarantine alone: it is on this machine, whatever the backends."""

    quarantine: Quarantine


def read_config(arguments: Namespace) -> Config:
    """The tool needs no TLS keys, and often may not read them: they aren't looked at. Raises ``ConfigError``."""
    return load_config(config_path(arguments.config), check_files=False).config


@asynccontextmanager
async def open_stores(arguments: Namespace) -> AsyncIterator[Stores]:
    """Opens the backends that the configuration names. Run as root, it acts as the state folder's owner meanwhile, so
    that no file is left that the daemon can't open. Raises ``ConfigError``, ``BackendUnavailable``, ``OSError``."""
    from wazuh_comms_trio.backends.factory import open_backends
    from wazuh_comms_trio.foundation.nurseries import BackgroundNursery

    session = open_session(arguments)
    with session.acting_as_owner(session.audit.path.parent):
        async with open_backends(session.config) as backends, BackgroundNursery() as nursery:
            nursery.start_soon(_tell_what_is_waited_for, backends, session.output)
            yield Stores(session.config, session.config_file, session.output, session.audit, session.user, backends)


async def _tell_what_is_waited_for(backends: Backends, output: Output) -> None:
    """Of a command that takes long, once: an indexer that hangs has a minute for each answer."""
    import trio

    from wazuh_comms_trio.services.readiness import Readiness, probes_of

    await trio.sleep(_PATIENCE)
    index = {name: probe for name, probe in probes_of(backends).items() if name == "index"}
    try:
        await Readiness(index).check()
    except BackendUnavailable as error:
        output.note(f"still waiting: {error.message}")


@asynccontextmanager
async def open_quarantine_session(arguments: Namespace) -> AsyncIterator[QuarantineSession]:
    """As ``open_stores``, the quarantine."""
    from wazuh_comms_trio.quarantine.opening import open_quarantine, quarantine_folder

    session = open_session(arguments)
    prepare_folder(session.audit.path.parent, session.config_file)  # most quarantines are in it
    with session.acting_as_owner(quarantine_folder(session.config)):
        async with open_quarantine(session.config) as quarantine:
            yield QuarantineSession(
                session.config, session.config_file, session.output, session.audit, session.user, quarantine
            )


def open_session(arguments: Namespace) -> Session:
    """A session in which nothing is opened yet. Raises ``ConfigError``."""
    config = read_config(arguments)
    embedded = config.communications_api.embedded
    keep = embedded.keep
    log = audit_log(embedded.path, max_bytes=keep.audit_bytes, min_days=keep.audit_days)
    return Session(config, Path(config_path(arguments.config)), Output(as_json=arguments.json), log, current_user())


def embedded_folder(config: Config) -> Path:
    """The state folder. Raises ``Failure`` where the state isn't embedded."""
    if config.communications_api.backend != "embedded":
        raise Failure("this works on embedded backends only; the configuration says `backend: wazuh`")
    return config.communications_api.embedded.path
