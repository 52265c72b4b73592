"""Who is it? The bearer token of a request becomes its caller."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from wazuh_comms_trio.foundation.log_context import AGENT
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.services.authentication.authenticator import Authenticator, Caller
from wazuh_comms_trio.services.deadlines import backend_in_time

__all__ = ["authorization", "bearer_token", "identify"]


def authorization(headers: Iterable[tuple[bytes, bytes]], scheme: bytes) -> bytes | None:
    """What follows the scheme (lower case, in any case there) in the request's only Authorization header; None when
    there is none, a second one, or another scheme.
    """
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return None
    given, _, credentials = values[0].partition(b" ")
    return (credentials.strip() or None) if given.lower() == scheme else None


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    return authorization(headers, b"bearer")


async def identify(scope: Scope, authenticator: Authenticator, *, time_limit: float) -> Caller:
    """Raises ``TokenInvalid``, ``TokenExpired``, ``BackendUnavailable`` (a registry that takes nearly ``time_limit``
    seconds, too).
    """
    call = authenticator.verify(bearer_token(scope["headers"]))
    caller = await backend_in_time(call, deadline=trio.current_time() + time_limit)
    AGENT.set(caller.agent.id)
    return caller
