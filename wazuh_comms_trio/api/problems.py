"""The one table that turns errors into replies. Nothing is raised to a client that isn't in it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from wazuh_comms_trio import errors
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.http.server.refusals import (
    CodingUnsupported,
    Headers,
    HeadTooLarge,
    MethodNotAllowed,
    Refusal,
    RouteUnknown,
    ServerError,
)

__all__ = ["describe", "describe_management", "extra_headers"]

_STATUSES: Final = frozenset(int(status) for status in HTTPStatus)

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
    CodingUnsupported: 415,
    errors.TooManyRequests: 429,
    HeadTooLarge: 431,
    ServerError: 500,
    errors.BackendUnavailable: 503,  # the engine's and the storage's among them
}


def status_of(error: CommsError) -> int | None:
    """The reply's status, None for an error that no line of the table covers."""
    for family in type(error).__mro__:
        if (status := STATUS.get(family)) is not None:
            return status
    # A family of a service's own (enrolment's 401) says it by its code.
    return error.code if 400 <= error.code < 500 and error.code in _STATUSES else None


def extra_headers(error: CommsError) -> Headers:
    if isinstance(error, MethodNotAllowed):
        return ((b"allow", error.allowed.encode("ascii")),)
    if isinstance(error, CodingUnsupported):  # RFC 9110, 12.5.3: what would have been taken
        return ((b"accept-encoding", b"identity"),)
    if isinstance(error, (errors.BackendUnavailable, errors.TooManyRequests)):
        return ((b"retry-after", b"%d" % error.retry_after),)
    return ()


def describe(error: BaseException) -> Refusal:
    """The reply of the agents' API and the command socket: ``{"message","code"}``. Anything unknown is a 500 that says
    nothing."""
    known, status = _known(error)
    body = msgspec.json.encode({"message": known.message, "code": known.code})
    return Refusal(status, body, extra_headers(known), known.message, known is not error)


def describe_management(error: BaseException) -> Refusal:
    """The reply of enrolment's API: ``{"title","detail","error"}``."""
    known, status = _known(error)
    title = HTTPStatus(status).phrase
    body = msgspec.json.encode({"title": title, "detail": known.message, "error": known.code})
    challenge = ((b"www-authenticate", b'Basic realm="wazuh"'),) if status == 401 else ()
    return Refusal(status, body, extra_headers(known) + challenge, known.message, known is not error)


def _known(error: BaseException) -> tuple[CommsError, int]:
    """The error that the client is told of, and its status."""
    if isinstance(error, CommsError) and (status := status_of(error)) is not None:
        return error, status
    return ServerError(), 500
