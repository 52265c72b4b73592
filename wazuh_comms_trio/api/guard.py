"""The bearer token of a request becomes its caller."""

from __future__ import annotations

import trio

from wazuh_comms_trio.api.credentials import bearer_token
from wazuh_comms_trio.errors import TokenExpired, TokenInvalid
from wazuh_comms_trio.foundation.log_context import AGENT
from wazuh_comms_trio.http.server.delivery import EXTENSION
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.services.authentication.authenticator import Authenticator, Caller
from wazuh_comms_trio.services.deadlines import backend_in_time

__all__ = ["has_certificate_of", "identify", "peer_address"]


def peer_address(scope: Scope) -> str | None:
    """The address of the request's sender; None for a local one."""
    client = scope["client"]
    return client[0] if client else None


def has_certificate_of(scope: Scope, uuid: str) -> bool:
    """Does the client's certificate name the agent? Not on a server that knows no certificates."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    return connection is not None and uuid.lower() in connection.certificate_names()


async def identify(
    scope: Scope, authenticator: Authenticator, *, time_limit: float, own_certificate: bool = False
) -> Caller:
    """``own_certificate``: the client's has to name the token's agent. Raises ``TokenInvalid``, ``TokenExpired``,
    ``BackendUnavailable`` (a registry that takes nearly ``time_limit`` seconds, too).
    """
    token = bearer_token(scope["headers"])
    try:
        caller = authenticator.verify_at_once(token)
        if caller is None:
            caller = await backend_in_time(authenticator.verify(token), deadline=trio.current_time() + time_limit)
        if own_certificate and not has_certificate_of(scope, caller.agent.id):
            raise TokenInvalid(reason="foreign_certificate", about=caller.agent.id)
    except (TokenInvalid, TokenExpired) as error:
        authenticator.note_refused_token(error, peer_address(scope))
        raise
    AGENT.set(caller.agent.id)
    return caller
