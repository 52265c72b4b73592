"""The two switches, which don't depend on each other: ``release=``, what the peers are, and ``api=``, which shapes of
calls a program is written for. Both have a default for the whole process."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from wazuh_comms_trio.transport import registry
from wazuh_comms_trio.transport.daemon import HOME, Daemon
from wazuh_comms_trio.transport.releases.release import HOME_VARIABLE, Release, parse_version, release_of

#: A version's text, a group, ``"auto"``, or a :class:`Release`.
ReleaseName: TypeAlias = "str | Release"

AUTO: Final = "auto"


class CallShapes(NamedTuple):
    """What the framework's asynchronous functions returned in one of its versions."""

    #: ``send`` returns how many bytes it sent, not the bytes.
    send_counts: bool = False
    #: ``wazuh_sendasync`` returns the answer's bytes, not its decoded ``data``.
    sendasync_raw: bool = False


#: What the published description says, for programs that name no version.
PUBLISHED: Final = CallShapes()

_release: ReleaseName | None = None
_api: str | None = None


def set_defaults(*, release: ReleaseName | None = None, api: str | None = None) -> None:
    """What holds in this process where a call says neither ``release=`` nor ``api=``; None as before the first call.

    ``release`` also chooses what :data:`daemons` shows. ``ValueError`` for what is no version; nothing is changed then.
    """
    global _release, _api
    shapes_of(api)
    if release is not None and release != AUTO:
        release = release_of(release)
    before = _release, _api
    _release, _api = release, api
    try:
        chosen, home = locate(release, None)
        registry.show_release(chosen, home)
    except BaseException:
        _release, _api = before
        raise


@lru_cache(maxsize=32)
def _shapes(api: str) -> CallShapes:
    if api.count(".") == 1 and parse_version(api)[:2] == (4, 14):
        raise ValueError("the order of calls changed within 4.14: write the version in full, such as '4.14.2'")
    version = parse_version(api)
    return CallShapes(version >= parse_version("4.14.2"), version >= parse_version("4.9.0"))


def shapes_of(api: str | None) -> CallShapes:
    """The shapes of that version of the framework, the process's default for None. ``ValueError`` for what is no
    version."""
    if api is None:
        api = _api
    return PUBLISHED if api is None else _shapes(api)


def locate(release: ReleaseName | None, home: str | os.PathLike[str] | None) -> tuple[Release | None, str]:
    """The release that is meant and the home that it is under: the release named, or detected there for ``"auto"``; the
    process's default for None, which may be None too. Blocks while it detects."""
    name = _release if release is None else release
    if name == AUTO:
        from wazuh_comms_trio.transport.releases.detect import default_home, detect_release

        place = default_home() if home is None else os.fspath(home)
        return detect_release(place), place
    chosen = None if name is None else release_of(name)
    if home is not None:
        return chosen, os.fspath(home)
    if chosen is None:
        return None, HOME
    named = os.environ.get(HOME_VARIABLE) if chosen.at_least("E") else None
    return chosen, named or chosen.home


def default_release() -> ReleaseName | None:
    """The process's default, None where there is none."""
    return _release


def is_known_at_once(release: ReleaseName | None, *, needed: bool = False) -> bool:
    """Whether ``locate`` needn't look at the server. ``needed``: no release at all will be found out, too."""
    name = _release if release is None else release
    return name != AUTO and not (needed and name is None)


class Target(NamedTuple):
    """A daemon as one release has it, the home it is under, and that release (None: any)."""

    daemon: Daemon
    home: str
    release: Release | None


def resolve(
    name: str | Daemon, release: ReleaseName | None = None, home: str | os.PathLike[str] | None = None
) -> Target:
    """The daemon that is meant. Blocks while it detects. Errors as ``get_daemon``."""
    chosen, place = locate(release, home)
    return Target(registry.get_daemon(name, chosen), place, chosen)
