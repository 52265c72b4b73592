"""The application's side of ASGI: a request goes to its handler, an error becomes a reply. The same on any server."""

from __future__ import annotations

import logging
from typing import Final

from wazuh_comms_trio.http.server.bodies import SKIPPED_BYTES, check_length
from wazuh_comms_trio.http.server.hypercorn_protocol import Message, Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.peer import is_leaving, shown_address
from wazuh_comms_trio.http.server.refusals import CodingUnsupported, Describe
from wazuh_comms_trio.http.server.replies import send_refusal
from wazuh_comms_trio.http.server.routing import Routes

__all__ = ["PlainApplication", "handle_request"]

logger = logging.getLogger(__name__)

#: Methods whose handlers take no body: what comes all the same is dropped, in whatever coding.
BODILESS: Final = frozenset({"GET", "HEAD"})

#: Content codings that are none; a list may have empty items (RFC 9110, 5.6.1.2).
PLAIN: Final = (b"", b"identity")


class PlainApplication:
    """An ASGI application of plain handlers alone."""

    def __init__(self, routes: Routes, describe: Describe) -> None:
        self.routes = routes
        self.describe = describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await handle_request(self.routes, self.describe, scope, receive, send)
        elif scope["type"] == "lifespan":
            await accept_lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})  # before it was accepted: a 403


async def handle_request(routes: Routes, describe: Describe, scope: Scope, receive: Receive, send: Send) -> None:
    """Calls the request's handler, and answers what it raises by ``describe``. Bugs are logged here.

    Once some of the reply was sent an error goes on to the server, which breaks the reply off; so does ``PeerGone``.
    """
    reply = _Reply(send)
    try:
        handler = routes.find(scope)
        if scope["method"] not in BODILESS:
            check_coding(scope)
        else:
            check_length(scope, SKIPPED_BYTES)
        await handler(scope, receive, reply.send)
    except Exception as error:
        if reply.begun or is_leaving(error):
            raise
        refusal = describe(error)
        if refusal.is_bug:
            logger.exception("%s %s failed", scope["method"], scope["path"])
        logger.debug(
            "%s %s %s: %d %s",
            shown_address(scope["client"]),
            scope["method"],
            scope["path"],
            refusal.status,
            refusal.summary,
        )
        await send_refusal(send, refusal)


def check_coding(scope: Scope) -> None:
    """Raises ``CodingUnsupported`` for a compressed body: bodies are taken as they are."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and any(coding.strip() not in PLAIN for coding in value.lower().split(b",")):
            raise CodingUnsupported


class _Reply:
    """A ``send`` that holds the reply's head back until the first part of its body: until then an error can still be
    answered.
    """

    __slots__ = ("_head", "_send", "begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self.begun = False

    async def send(self, message: Message) -> None:
        if not self.begun:
            if self._head is None:
                self._head = message
                return
            self.begun = True
            await self._send(self._head)
        await self._send(message)


async def accept_lifespan(receive: Receive, send: Send) -> None:
    """Nothing has to be started or stopped."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
