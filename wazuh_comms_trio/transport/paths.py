"""Which peers may be talked to: checks on a socket's path before connecting, and the peer's credentials after.

Every refusal is a :class:`WazuhInternalError` with the number of its caller: 1013 for streams, 1010 for datagram
queues.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple, Protocol, TypeVar

from wazuh_comms_trio.errors import WazuhInternalError

T = TypeVar("T")

#: The longest path in bytes that fits ``sun_path`` with its NUL.
MAX_PATH_BYTES: Final[int] = 107

STREAM_REFUSAL: Final[int] = 1013
QUEUE_REFUSAL: Final[int] = 1010

_UCRED: Final = Struct("3i")


class PeerCredentials(NamedTuple):
    """The process that called ``listen`` (seen by a client) or ``connect`` (seen by a server) on a Unix socket."""

    pid: int
    uid: int
    gid: int


def check_path(path: str | os.PathLike[str], code: int, require_owner: int | str | None = None) -> str:
    """``path`` as text, if it leads to a Unix socket.

    Refuses, under ``code``, a path that is missing, too long for ``sun_path``, or no socket. With ``require_owner``
    (a user's number or name) moreover one that is owned by neither this user nor root, or that lies in a folder
    writable by others, where anybody could put another socket in its place.
    """
    text = _as_text(path, code)
    if len(os.fsencode(text)) > MAX_PATH_BYTES:
        raise WazuhInternalError(
            code,
            f"{text}: {len(os.fsencode(text))} bytes are too long for a socket's path, at most {MAX_PATH_BYTES} fit",
        )
    try:
        status = os.stat(text)
    except OSError as exc:
        raise WazuhInternalError(code, f"{text}: {exc.strerror}") from exc
    if not stat.S_ISSOCK(status.st_mode):
        raise WazuhInternalError(code, f"{text} is not a socket")
    if require_owner is not None:
        _check_owner(text, status.st_uid, require_owner, code)
    return text


def _as_text(path: str | os.PathLike[str], code: int) -> str:
    try:
        text = os.fspath(path)
    except TypeError:
        raise WazuhInternalError(code, f"a path is text, not {type(path).__name__}") from None
    if not isinstance(text, str):
        raise WazuhInternalError(code, f"a path is text, not {type(text).__name__}")
    if not text or "\0" in text:
        raise WazuhInternalError(code, f"{text!r} is no path: it is empty or has a NUL in it")
    return text


def _check_owner(path: str, uid: int, require_owner: int | str, code: int) -> None:
    wanted = require_owner if isinstance(require_owner, int) else _uid_of(require_owner, code)
    if uid not in (0, wanted):
        raise WazuhInternalError(code, f"{path} belongs to user {uid}, neither to {require_owner} nor to root")
    # Where it really is, and where a link to it is: whoever may write there may exchange it.
    for place in dict.fromkeys((os.path.realpath(path), os.path.abspath(path))):
        _check_folders(path, os.path.dirname(place), code)


def _check_folders(path: str, folder: str, code: int) -> None:
    """The folder itself, and those above it: who may write there may exchange what is below. In a sticky folder above
    (/tmp) only owners may.
    """
    allowed = 0
    while True:
        mode = os.stat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & allowed:
            raise WazuhInternalError(code, f"{path} lies in {folder}, which is writable by others")
        if folder == os.path.dirname(folder):
            return
        folder = os.path.dirname(folder)
        allowed = stat.S_ISVTX


def _uid_of(name: str, code: int) -> int:
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise WazuhInternalError(code, f"there is no user {name!r}, who is to own the socket") from None


class SupportsOptions(Protocol):
    """A socket, as far as this module needs one: the standard library's or trio's."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """As ``socket.getsockopt``."""
        ...


def peer_credentials(sock: SupportsOptions) -> PeerCredentials:
    """``SO_PEERCRED`` of a connected Unix stream socket. ``OSError`` when the socket is closed or of another kind."""
    return PeerCredentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def connect_to_either(path: str | os.PathLike[str], connect: Callable[[str | os.PathLike[str]], T]) -> T:
    """``connect(path)``; when no daemon is at this path, the places where other releases have it are tried. An error
    names all places that were tried."""
    try:
        return connect(path)
    except WazuhInternalError as exc:
        if not nobody_there(exc):
            raise
        errors = [exc]
        from wazuh_comms_trio.transport.registry import other_places

        for place in other_places(path):
            try:
                return connect(place)
            except WazuhInternalError as other:
                errors.append(other)
        raise failure_of_all(errors)  # noqa: B904 -- it has its cause


def nobody_there(error: WazuhInternalError) -> bool:
    """Whether no daemon was at a path, so that it may be at another one: it is missing, or nobody listens."""
    return error.code == 1121 or _is_missing(error)


def failure_of_all(errors: Sequence[WazuhInternalError]) -> WazuhInternalError:
    """The error when no place has the daemon: the first that says more than that a path is missing, and what was found
    at the other places in its text."""
    error = next((one for one in errors if not _is_missing(one)), errors[0])
    others = [_reason(one) for one in errors if one is not error]
    if not others:
        return error
    whole = error.__class__(error.code, f"{_reason(error)}; also tried {'; '.join(others)}")
    whole.__cause__ = error.__cause__
    return whole


def _is_missing(error: WazuhInternalError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)


def _reason(error: WazuhInternalError) -> str:
    """The text after the number's own."""
    return error.message.partition(": ")[2] or error.message
