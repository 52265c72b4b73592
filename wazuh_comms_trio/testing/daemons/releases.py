"""Where each release's fakes are and how they treat their connections: written a second time, on purpose, so that a
mistake in the library's registry can't hide behind itself.

Groups of releases: ``A`` 4.7 and 4.8, ``B`` 4.9 to 4.12, ``C`` 4.13 to 4.14.1, ``D`` later 4.14, ``alpha``
5.0.0-alpha0, ``E`` 5.0.0-beta1, ``F`` beta2 to beta4, ``G`` 5.0.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from wazuh_comms_trio.testing.daemons.conduct import CONDUCTS, Conduct

OLD: Final = ("A", "B", "C", "D", "alpha")
NEW: Final = ("E", "F", "G")
EVERY: Final = (*OLD, *NEW)

# name -> groups -> the socket under the home folder; where a name isn't, the release has no such socket.
_PLACES: Final[Mapping[str, Mapping[tuple[str, ...], str]]] = {
    "wazuh-db": {EVERY: "queue/db/wdb"},
    "authd": {EVERY: "queue/sockets/auth"},
    "remoted": {EVERY: "queue/sockets/remote"},
    "task-manager": {EVERY: "queue/tasks/task"},
    "upgrade": {EVERY: "queue/tasks/upgrade"},
    "monitor": {EVERY: "queue/sockets/monitor"},
    "wmodules": {EVERY: "queue/sockets/wmodules"},
    "control": {EVERY: "queue/sockets/control"},
    "analysis": {("A", "B", "C", "D"): "queue/sockets/analysis"},
    "com": {OLD: "queue/sockets/com"},
    "logtest": {OLD: "queue/sockets/logtest"},
    "keystore": {NEW: "queue/sockets/keystore"},
    "ar": {(*OLD, "E"): "queue/alerts/ar", ("F",): "queue/sockets/ar"},
    "execq": {OLD: "queue/alerts/execq"},
    "analysisd": {OLD: "queue/sockets/queue"},
    "wdb-http": {("C", "D", "alpha", *NEW): "queue/sockets/wdb-http.sock"},
    "engine": {("alpha", *NEW): "queue/sockets/analysis"},
    "engine-events": {("alpha", *NEW): "queue/sockets/queue-http.sock"},
    "vulnerability-detector": {("F",): "queue/sockets/modulesd", ("G",): "queue/sockets/vd.sock"},
    "inventory-sync": {("G",): "queue/sockets/inventory-sync.sock"},
    "remoted-admin": {("G",): "queue/sockets/remoted-module.sock"},
}

_ONE_SHOT: Final = Conduct(one_shot=True, threads=1)


def place_of(name: str, group: str) -> str:
    """The socket's path under the home. ``LookupError`` where this release has none."""
    for groups, path in _PLACES.get(name, {}).items():
        if group in groups:
            return path
    raise LookupError(f"a server of group {group} has no {name}")


def conduct_of(name: str, group: str) -> Conduct:
    """How this release's daemon treats its connections."""
    if name == "task-manager" and group == "G":
        return Conduct(threads=8)
    if name == "authd" and group == "G":
        return evolve(CONDUCTS["authd"], threads=128)
    if name == "keystore":
        return Conduct(threads=1)
    return CONDUCTS.get(name, _ONE_SHOT)
