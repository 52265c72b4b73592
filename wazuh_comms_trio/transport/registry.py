"""The daemons that can be talked to, by name.

``daemons`` has the framework's shape; :class:`Daemon` says more. Paths are relative to a home folder. Releases differ
in where some sockets are, so a daemon may have two places: the first is the published one, the second is tried when
nothing is at the first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from wazuh_comms_trio.errors import WazuhInternalError
from wazuh_comms_trio.transport.daemon import ALIASES, DaemonEntry
from wazuh_comms_trio.transport.daemon import HOME as HOME
from wazuh_comms_trio.transport.daemon import Daemon as Daemon

if TYPE_CHECKING:
    from wazuh_comms_trio.transport.releases.release import Release

#: Datagram sockets under the home folder: commands to agents (remoted), to this host (execd), events (analysisd).
AR_QUEUE: Final[str] = "queue/alerts/ar"
EXECQ_QUEUE: Final[str] = "queue/alerts/execq"
ANALYSISD_QUEUE: Final[str] = "queue/sockets/queue"

_registered: dict[str, Daemon] = {}


class _Entries(dict[str, DaemonEntry]):
    """A mapping that finds wazuh-db under the name of either release."""

    def __missing__(self, name: str) -> DaemonEntry:
        for other, own in ALIASES.items():
            wanted = own if name == other else other if name == own else None
            if wanted is not None and wanted in self:
                return self[wanted]
        raise KeyError(name)


#: name -> where and how, under the default home. Kept up to date by :func:`register_daemon`; an entry that a program
#: changes or adds here is honoured by everything that takes a daemon's name.
daemons: dict[str, DaemonEntry] = _Entries()


def register_daemon(daemon: Daemon) -> Daemon:
    """Make ``daemon`` known under its name, in place of one with the same name. Returns it."""
    _registered[daemon.name] = daemon
    daemons[daemon.name] = daemon.entry()
    return daemon


for _daemon in (
    Daemon("authd", ("queue/sockets/auth",)),
    Daemon("task-manager", ("queue/sockets/task", "queue/tasks/task")),
    Daemon("wazuh-db", ("queue/sockets/wdb", "queue/db/wdb"), reusable=True),
    Daemon("remoted", ("queue/sockets/remote",)),
    Daemon("analysis", ("queue/sockets/analysis",)),
    Daemon("com", ("queue/sockets/com",)),
):
    register_daemon(_daemon)
del _daemon
_published: Final = dict(_registered)
#: The entries that are shown for a release chosen for the whole process, as they were when they were shown.
_shown: dict[str, DaemonEntry] = {}


def get_daemon(name: str | Daemon, release: Release | None = None) -> Daemon:
    """The daemon of that name, as ``release`` has it. ``WazuhInternalError`` 1013 when there is none, and
    :class:`NotInRelease` (1013) when only other releases have it. What a program registered or changed itself comes
    first."""
    if isinstance(name, Daemon):
        return name
    if release is not None and not _is_own(name):
        from wazuh_comms_trio.transport.releases.sockets import daemon_of

        if (found := daemon_of(name, release)) is not None:
            return found
    if name not in daemons:
        name = ALIASES.get(name, name)
    daemon = _registered.get(name)
    entry = daemons.get(name)
    if entry is not None and entry != _shown.get(name) and (daemon is None or entry != daemon.entry()):
        # Changed in the mapping itself, as programs written against the framework do.
        reusable = daemon is not None and daemon.reusable
        return Daemon(name, (entry["path"],), reusable, header_format=entry["header_format"])
    if daemon is None:
        raise WazuhInternalError(1013, _why_unknown(name))
    return daemon


def _why_unknown(name: str) -> str:
    """The daemons of the published registry are found without a release, all the others only with one."""
    from wazuh_comms_trio.transport.releases.sockets import SOCKETS

    if any(one.name == name for one in SOCKETS):
        return f"{name!r} is known by release only: say which one the server is (release=), or 'auto'"
    return f"no daemon is called {name!r}; known are {', '.join(sorted(daemons))}"


def _is_own(name: str) -> bool:
    """Whether a program registered this daemon, or changed its entry."""
    daemon, entry = _registered.get(name), daemons.get(name)
    if daemon is not _published.get(name):
        return True
    known = _shown.get(name) or (daemon.entry() if daemon is not None else None)
    return entry is not None and entry != known


def show_release(release: Release | None, home: str | os.PathLike[str]) -> None:
    """Have ``daemons`` show that release's (None: the published ones). What a program added or changed stays."""
    from wazuh_comms_trio.transport.releases.sockets import daemons_of, database_name

    own = {name: entry for name, entry in daemons.items() if _is_own(name)}
    _shown.clear()
    daemons.clear()
    if release is None:
        daemons.update((name, daemon.entry()) for name, daemon in _registered.items())
    else:
        for name, daemon in daemons_of(release).items():
            _shown[database_name(release) if name == "wazuh-db" else name] = daemon.entry(home)
        daemons.update((name, {**entry}) for name, entry in _shown.items())
    daemons.update(own)


def daemons_under(home: str | os.PathLike[str], release: str | Release | None = None) -> Mapping[str, DaemonEntry]:
    """All registered daemons in the framework's shape, with their paths under another home folder; with ``release`` all
    that this one has."""
    if release is None:
        return {name: get_daemon(name).entry(home) for name in daemons}
    from wazuh_comms_trio.transport.releases.release import release_of
    from wazuh_comms_trio.transport.releases.sockets import daemons_of, database_name

    chosen = release_of(release)
    return {
        database_name(chosen) if name == "wazuh-db" else name: daemon.entry(home)
        for name, daemon in daemons_of(chosen).items()
    }


def daemon_at(path: str | os.PathLike[str]) -> str | None:
    """The name of the daemon whose socket's path ends like this one, None when there is none."""
    found = _match(os.fspath(path))
    return found[0].name if found else None


def other_places(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """For a path that ends like one of a daemon's: the paths under the same home where it may be instead."""
    found = _match(os.fspath(path))
    if not found:
        return ()
    daemon, home, matched = found
    return tuple(os.path.join(home, other) for other in daemon.paths if other != matched)


def _match(path: Any) -> tuple[Daemon, str, str] | None:
    if not isinstance(path, str):
        return None
    for daemon in _registered.values():
        for place in daemon.paths:
            if path == place or path.endswith("/" + place):
                return daemon, path[: -len(place)], place
    return None
