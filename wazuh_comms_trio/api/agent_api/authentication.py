"""``POST /api/v1/authentication``: an agent's uuid and key become a token."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec
import trio

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.api.guard import has_certificate_of, peer_address
from wazuh_comms_trio.errors import InvalidKey, MalformedRequest
from wazuh_comms_trio.foundation.bodies import Body
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_reply
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
    api.add_handler(f"{PREFIX}/authentication", partial(authentication, api), "POST")


async def authentication(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    async with api.collect_from_stranger(scope, receive, CREDENTIALS_BYTES) as body:
        token = await _log_in(api, scope, body)
    await send_reply(send, 200, msgspec.json.encode({"token": token}))


async def _log_in(api: AgentApi, scope: Scope, body: Body) -> str:
    """The token, or what ``Authenticator.authenticate`` raises, before the time for a log-in is over."""
    peer, service = peer_address(scope), api.services.authentication
    try:
        uuid, key = decode_credentials(bytes(body))
    except MalformedRequest:
        service.note_refused_login("malformed", None, peer)
        raise
    if api.own_certificate and not has_certificate_of(scope, uuid):
        service.note_refused_login("foreign_certificate", uuid, peer)
        raise InvalidKey("The certificate is not the agent's")
    now = trio.current_time()
    end = now + api.timeouts.authentication
    wait_limit = WAIT_SHARE * max(0.0, give_up_at(end, now) - now)
    return await backend_in_time(service.authenticate(uuid, key, peer, wait_limit=wait_limit), deadline=end)
