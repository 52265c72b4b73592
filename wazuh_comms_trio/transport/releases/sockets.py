"""Every socket of every release, as a table: where it is, how it is talked to, in which groups of releases it exists.

Paths are relative to the home folder. A new release is a new column of :data:`SOCKETS`, not a new branch anywhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from wazuh_comms_trio.errors import NotInRelease
from wazuh_comms_trio.transport.daemon import ALIASES, Content, Daemon, Kind
from wazuh_comms_trio.transport.releases.release import Release

Groups: TypeAlias = "tuple[str, ...]"

_4: Final = ("A", "B", "C", "D", "alpha")
_FRAMED: Final = ("A", "B", "C", "D")
_5: Final = ("E", "F", "G")
_ALL: Final = (*_4, *_5)


class Socket(NamedTuple):
    """One line of the table. ``since`` narrows the first group to versions from that one on."""

    name: str
    paths: tuple[str, ...]
    groups: Groups
    kind: Kind = "stream"
    content: Content = "any"
    reusable: bool = False
    since: str | None = None


_ = "queue/sockets/"

SOCKETS: Final[tuple[Socket, ...]] = (
    Socket("wazuh-db", ("queue/db/wdb",), _ALL, reusable=True),
    Socket("task-manager", ("queue/tasks/task",), (*_4, "E", "F"), content="json"),
    Socket("task-manager", ("queue/tasks/task",), ("G",), content="json", reusable=True),
    Socket("upgrade", ("queue/tasks/upgrade",), _ALL, content="json"),
    Socket("authd", (_ + "auth",), _ALL),
    Socket("remoted", (_ + "remote",), _ALL),
    Socket("analysis", (_ + "analysis",), _FRAMED, content="json"),
    Socket("com", (_ + "com",), _4, content="text"),
    Socket("monitor", (_ + "monitor",), _ALL, content="text"),
    Socket("wmodules", (_ + "wmodules",), _ALL, content="text"),
    *(
        Socket(name, (_ + name,), _4, content="text")
        for name in ("agentless", "csyslog", "integrator", "mail", "logcollector", "syscheck")
    ),
    Socket("logtest", (_ + "logtest",), _4, content="json"),
    Socket("keystore", (_ + "keystore",), _5, content="text", reusable=True),
    Socket("control", (_ + "control",), _ALL, "unframed", content="text"),
    Socket("ar", ("queue/alerts/ar",), (*_4, "E"), "datagram", content="text"),
    Socket("ar", (_ + "ar",), ("F",), "datagram", content="text"),
    Socket("execq", ("queue/alerts/execq",), _4, "datagram", content="json"),
    Socket("analysisd", (_ + "queue",), _4, "datagram", content="text"),
    Socket("wdb-http", (_ + "wdb-http.sock",), ("C", "D", "alpha", "E", "F"), "http", reusable=True),
    Socket("wdb-http", (_ + "wdb-http.sock",), ("G",), "http"),
    Socket("engine", (_ + "analysis",), ("alpha", *_5), "http", reusable=True),
    Socket("engine-events", (_ + "queue-http.sock",), ("alpha", *_5), "http", reusable=True),
    Socket("vulnerability-detector", (_ + "modulesd",), ("F",), "http", reusable=True, since="5.0.0-beta3"),
    Socket("vulnerability-detector", (_ + "vd.sock",), ("G",), "http"),
    Socket("inventory-sync", (_ + "inventory-sync.sock", _ + "inventory-sync-http.sock"), ("G",), "http"),
    Socket("remoted-admin", (_ + "remoted-module.sock", _ + "remote-admin-http.sock"), ("G",), "http"),
)
del _

#: The name under which a program of that release knows wazuh-db.
DatabaseName: TypeAlias = Literal["wazuh-db", "wazuh-manager-db"]


def database_name(release: Release) -> DatabaseName:
    """wazuh-db's name in that release."""
    return "wazuh-manager-db" if release.at_least("E") else "wazuh-db"


@lru_cache(maxsize=32)
def daemons_of(release: Release) -> dict[str, Daemon]:
    """name -> daemon, as that release has them. Not to be changed."""
    return {
        one.name: Daemon(one.name, one.paths, one.reusable, one.kind, content=one.content)
        for one in SOCKETS
        if release.group in one.groups and (one.since is None or release.at_least(one.since))
    }


def daemon_of(name: str, release: Release) -> Daemon | None:
    """The daemon of that name in that release, under either of wazuh-db's names; None for a name no release knows.

    :class:`NotInRelease` (1013) for one that other releases have.
    """
    name = ALIASES.get(name, name)
    found = daemons_of(release).get(name)
    if found is None and (others := [one for one in SOCKETS if one.name == name]):
        groups = ", ".join(dict.fromkeys(group for one in others for group in one.groups))
        raise NotInRelease(1013, f"{release} has no {name!r}; releases of the groups {groups} do")
    return found
