"""Errors become replies here, all of them, in one table. Nothing is raised to a client that isn't in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from attrs import field, frozen

from wazuh_comms_trio import errors
from wazuh_comms_trio.errors import CommsError

__all__ = [
    "HeadTooLarge",
    "MethodNotAllowed",
    "Problem",
    "RouteUnknown",
    "ServerError",
    "describe",
    "describe_management",
]

_STATUSES: Final = frozenset(int(status) for status in HTTPStatus)

Headers = tuple[tuple[bytes, bytes], ...]


class RouteUnknown(CommsError):
    """404: no such path."""

    default_code = 404
    default_message = "Not found"


class MethodNotAllowed(CommsError):
    """405: the path exists, for other methods: ``allowed``."""

    default_code = 405
    default_message = "Method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__()
        self.allowed = ", ".join(allowed)


class HeadTooLarge(CommsError):
    """431: more bytes than ``limits.head_bytes`` before the blank line."""

    default_code = 431
    default_message = "The request head is too large"


class ServerError(CommsError):
    """500: our fault. What it was is in the log, not in the reply."""

    default_code = 500
    default_message = "Internal server error"


#: family -> status. A subclass that isn't listed has its family's.
STATUS: Final[Mapping[type[CommsError], int]] = {
    errors.MalformedRequest: 400,
    errors.MalformedBody: 400,
    errors.ClientDisconnected: 400,
    errors.EngineRefused: 400,
    errors.FileIsFolder: 400,
    errors.FileNameHasFolders: 400,
    errors.InvalidKey: 401,
    errors.AgentUnknown: 403,
    errors.TokenInvalid: 403,
    errors.TokenExpired: 403,
    errors.FileMissing: 404,
    RouteUnknown: 404,
    MethodNotAllowed: 405,
    errors.TimeLimitExceeded: 408,
    errors.AgentExists: 409,
    errors.BodyTooLarge: 413,
    HeadTooLarge: 431,
    ServerError: 500,
    errors.BackendUnavailable: 503,  # the engine's and the storage's among them
}


@frozen
class Problem:
    """One reply that isn't a success: JSON, complete."""

    status: int
    body: bytes
    headers: Headers = ()
    summary: str = field(default="", eq=False)  # for the log's one line

    @property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]


def status_of(error: CommsError) -> int | None:
    """The reply's status, None for an error that no line of the table covers."""
    for family in type(error).__mro__:
        if (status := STATUS.get(family)) is not None:
            return status
    # A family of a service's own (enrolment's 401 and 429) says it by its code.
    return error.code if 400 <= error.code < 500 and error.code in _STATUSES else None


def extra_headers(error: CommsError) -> Headers:
    if isinstance(error, MethodNotAllowed):
        return ((b"allow", error.allowed.encode("ascii")),)
    return ()


def describe(error: BaseException) -> Problem:
    """The agents' API: ``{"message","code"}``. Anything unknown is a 500 that says nothing; the caller logs it."""
    known = error if isinstance(error, CommsError) and status_of(error) is not None else ServerError()
    status = status_of(known)
    assert status is not None
    body = msgspec.json.encode({"message": known.message, "code": known.code})
    return Problem(status, body, extra_headers(known), known.message)


def describe_management(error: BaseException) -> Problem:
    """Enrolment's API: ``{"title","detail","error"}``."""
    known = error if isinstance(error, CommsError) and status_of(error) is not None else ServerError()
    status = status_of(known)
    assert status is not None
    title = HTTPStatus(status).phrase
    body = msgspec.json.encode({"title": title, "detail": known.message, "error": known.code})
    challenge = ((b"www-authenticate", b'Basic realm="wazuh"'),) if status == 401 else ()
    return Problem(status, body, extra_headers(known) + challenge, known.message)


def is_known(error: BaseException) -> bool:
    """Is it in the table? If not, it is a bug, and belongs in the log with its traceback."""
    return isinstance(error, CommsError) and status_of(error) is not None
