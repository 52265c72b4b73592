"""The local command server's ASGI application, on a Unix socket, for the programs of this host: ``POST
/api/v1/commands``, and for the operator's tool ``GET /api/v1/status`` and ``POST /api/v1/reload``.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from wazuh_comms_trio.api.bodies import BodyBudget, collect_body, skip_body
from wazuh_comms_trio.api.delivery import EXTENSION
from wazuh_comms_trio.api.edge import Receive, Send
from wazuh_comms_trio.api.http11 import Scope
from wazuh_comms_trio.api.replies import send_reply
from wazuh_comms_trio.api.routing import Routes
from wazuh_comms_trio.backends.base import Command
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.services.command_json import decode_commands, encode_commands

__all__ = ["Control", "Poster", "create_command_app"]

#: One of the largest posts, and then some: its users are local programs that post one after the other.
BUDGET_BYTES: Final = 256 * 1024 * 1024
#: Of one post, in the audit log.
NOTED_IDS: Final = 100


class Poster(Protocol):
    """A dispatcher, or the hub in front of several."""

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]: ...


class Control(Protocol):
    """The daemon, as its operator sees it. Both results are JSON objects."""

    def status(self) -> dict[str, Any]: ...

    async def reload(self) -> dict[str, Any]:
        """``reloaded``, ``problems``, ``warnings``, ``needs_restart``."""
        ...

    async def note(self, uid: int | None, action: str, target: str, **details: object) -> None:
        """For the audit log: what the user ``uid`` changed."""
        ...


def create_command_app(
    poster: Poster, limits: Limits, control: Control | None = None
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Who may open the socket may command all agents; there is no other check."""
    budget = BodyBudget(BUDGET_BYTES)

    async def post(scope: Scope, receive: Receive, send: Send) -> None:
        async with collect_body(receive, limit=limits.body_bytes, budget=budget, patience=limits.body_timeout) as body:
            commands = decode_commands(body)
        delivered = await poster.post(commands)
        await send_reply(send, 200, encode_commands(delivered))
        if control is not None and commands:
            ids = [command.document_id for command in commands]
            target = ids[0] if len(ids) == 1 else f"{len(ids)} commands"
            await control.note(peer_uid(scope), "commands post", target, document_ids=ids[:NOTED_IDS])

    table = {"/api/v1/commands": {"POST": post}}

    if control is not None:

        async def status(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            await send_reply(send, 200, json.dumps(control.status()).encode())

        async def reload(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            outcome = await control.reload()
            if outcome["reloaded"]:
                await control.note(peer_uid(scope), "reload", "configuration")
            await send_reply(send, 200, json.dumps(outcome).encode())

        table |= {"/api/v1/status": {"GET": status}, "/api/v1/reload": {"POST": reload}}
    routes = Routes(table)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await routes.find(scope)(scope, receive, send)

    return application


def peer_uid(scope: Scope) -> int | None:
    """The user at the other end of the Unix socket (``SO_PEERCRED``); None where there is none to be told."""
    sock = getattr(getattr(scope["extensions"].get(EXTENSION), "peer", None), "sock", None)
    if not isinstance(sock, socket.socket) or sock.family != socket.AF_UNIX:
        return None
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
