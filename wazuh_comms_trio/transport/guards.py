"""Guards that say which peers may be talked to: checks on a socket's path before connecting, and the peer's credentials
after."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from wazuh_comms_trio.wire.authd_request import check_authd_request

#: Raises :class:`MessageInvalid` (1012) for a payload that must not be sent.
Guard: TypeAlias = Callable[[bytes], None]

_GUARDS: Final[Mapping[str, Guard]] = {"authd": check_authd_request}
_AUTHD: Final = "queue/sockets/auth"


def guard_of(daemon: str | None) -> Guard | None:
    """The guard of the daemon with that name in the registry, None where nothing is known to harm it."""
    return None if daemon is None else _GUARDS.get(daemon)


def guard_at(path: str) -> Guard | None:
    """The guard of the daemon that lives at this path, links followed. The registry isn't imported for it: where nobody
    has, no program has registered a place of its own."""
    guard = _guard_at(path)
    if guard is None and (os.path.normpath(path) != path or not os.path.isabs(path) or os.path.islink(path)):
        return _guard_at(os.path.realpath(path))
    return guard


def _guard_at(path: str) -> Guard | None:
    registry = sys.modules.get("wazuh_comms_trio.transport.registry")
    if registry is not None:
        return guard_of(registry.daemon_at(path))
    return guard_of("authd") if path == _AUTHD or path.endswith(f"/{_AUTHD}") else None
