"""Which HTTP socket of which server a client talks to."""

from __future__ import annotations

import os
from typing import NamedTuple

from wazuh_comms_trio.transport.daemon import Daemon
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.transport.switches import AUTO, ReleaseName, default_release, resolve


class HTTPTarget(NamedTuple):
    """A service of a release, and the places where its socket may be."""

    daemon: Daemon
    places: tuple[str, ...]
    release: Release


def http_target(service: str, release: ReleaseName | None, home: str | os.PathLike[str] | None) -> HTTPTarget:
    """Routes differ by release, so one has to be known: where none is named it is found out, which blocks.

    ``ValueError`` for what doesn't speak HTTP, :class:`NotInRelease` (1013) for a service the release doesn't have.
    """
    daemon, place, chosen = resolve(service, release or default_release() or AUTO, home)
    if daemon.kind != "http" or chosen is None:
        raise ValueError(f"{service!r} doesn't speak HTTP in {chosen}")
    return HTTPTarget(daemon, daemon.places(place), chosen)
