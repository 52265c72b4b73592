"""``POST /api/v1/authentication``: an agent's uuid and key become a token."""

from __future__ import annotations

from typing import Final, cast

import msgspec
import trio
from quart import Response, request

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.api.guard import has_certificate_of, peer_address
from wazuh_comms_trio.api.quart_application import deadline
from wazuh_comms_trio.errors import InvalidKey, MalformedRequest
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.services.deadlines import backend_in_time, give_up_at
from wazuh_comms_trio.services.strict_json import decode_body

__all__ = ["add_authentication", "decode_credentials"]

#: Credentials are some 100 bytes; the limit is low since they come before any check of the sender.
CREDENTIALS_BYTES: Final = 8192
#: Of the time for a log-in: a key whose turn would come later isn't checked at all.
WAIT_SHARE: Final = 0.8


class Credentials(msgspec.Struct):
    uuid: str
    key: str


_credentials = msgspec.json.Decoder(Credentials)


def decode_credentials(body: bytes | bytearray) -> tuple[str, str]:
    """``{"uuid","key"}``; other fields are ignored. Raises ``MalformedRequest``."""
    credentials = decode_body(body, _credentials)
    if "\0" in credentials.uuid or "\0" in credentials.key:
        raise MalformedRequest("The request body has a NUL in it")
    return credentials.uuid, credentials.key


def add_authentication(api: AgentApi) -> None:
    @api.post_view(f"{PREFIX}/authentication", body_bytes=CREDENTIALS_BYTES, time_limit=api.timeouts.authentication)
    async def authentication() -> Response:
        peer = peer_address(cast(Scope, request.scope))
        try:
            uuid, key = decode_credentials(await request.body)
        except MalformedRequest:
            api.services.authentication.note_refused_login("malformed", None, peer)
            raise
        if api.own_certificate and not has_certificate_of(cast(Scope, request.scope), uuid):
            api.services.authentication.note_refused_login("foreign_certificate", uuid, peer)
            raise InvalidKey("The certificate is not the agent's")
        end, now = deadline(), trio.current_time()
        wait_limit = WAIT_SHARE * max(0.0, give_up_at(end, now) - now)
        call = api.services.authentication.authenticate(uuid, key, peer, wait_limit=wait_limit)
        token = await backend_in_time(call, deadline=end)
        return Response(msgspec.json.encode({"token": token}), 200, content_type="application/json")
