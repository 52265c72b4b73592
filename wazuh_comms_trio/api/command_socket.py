"""The local command server's ASGI application, on a Unix socket, for the programs of this host: ``POST
/api/v1/commands``, and for the operator's tool ``GET /api/v1/status``, ``GET /api/v1/agent?uuid=...``, ``GET
/api/v1/metrics``, ``POST /api/v1/reload``, ``POST /api/v1/keys/revoke?key=...``, ``POST`` and ``DELETE /api/v1/drain``.

Plain ASGI: a supervisor serves it, too, and Quart would add a fifth to its memory (docs/design.md).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

import trio
from attrs import frozen

from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import MalformedRequest
from wazuh_comms_trio.http.server.application import PlainApplication
from wazuh_comms_trio.http.server.bodies import BodyBudget, collect_body, skip_body
from wazuh_comms_trio.http.server.delivery import EXTENSION
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_reply
from wazuh_comms_trio.http.server.routing import Routes
from wazuh_comms_trio.services.authentication.tokens import KEY_ID, UUID
from wazuh_comms_trio.services.commands.command_json import decode_commands, encode_commands

__all__ = ["Caller", "Control", "Poster", "create_command_app"]

#: One of the largest posts, and then some: its users are local programs that post one after the other.
BUDGET_BYTES: Final = 256 * 1024 * 1024
#: Ids of one post that the audit log lists.
NOTED_IDS: Final = 100
#: Seconds that writing the audit log may take.
NOTE_LIMIT: Final = 10.0


class Poster(Protocol):
    """A worker's ``Posts``, or the hub in front of several workers."""

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]: ...


@frozen
class Caller:
    """The calling process, as the kernel says it; None where it doesn't."""

    uid: int | None = None
    pid: int | None = None


class Control(Protocol):
    """The daemon, as its operator sees it. Both results are JSON objects."""

    async def status(self) -> dict[str, Any]: ...

    async def metrics(self) -> dict[str, Any]:
        """The node's metrics, as ``metrics.snapshots`` forms them."""
        ...

    async def about_agent(self, agent_id: str) -> dict[str, Any]:
        """What this node heard of an agent and refused it, last: ``services.agent_journal.merged``."""
        ...

    async def reload(self) -> dict[str, Any]:
        """``reloaded``, ``problems``, ``warnings``, ``needs_restart``."""
        ...

    async def drain(self, on: bool) -> dict[str, Any]:
        """Has balancers leave this node out, or send to it again. ``drained``: it is; ``parked``: polls."""
        ...

    async def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Ends, on this node, all tokens that this key signed. ``revoked``; if not, ``problem`` says why; else
        ``kept``: also after a restart."""
        ...

    async def note(self, caller: Caller, action: str, target: str, **details: object) -> None:
        """Writes what ``caller`` changed into the audit log."""
        ...


def create_command_app(poster: Poster, limits: Limits, control: Control | None = None) -> PlainApplication:
    """A process that may open the socket may command all agents; there is no other check."""
    budget = BodyBudget(BUDGET_BYTES)

    async def post(scope: Scope, receive: Receive, send: Send) -> None:
        async with collect_body(
            receive, limit=limits.body_bytes, budget=budget, room_timeout=limits.body_timeout
        ) as body:
            commands = decode_commands(bytes(body))
        caller = peer_credentials(scope)
        try:
            delivered = await poster.post(commands)
            await send_reply(send, 200, encode_commands(delivered))
        finally:
            # After the reply, which is waited for; but also when it is not: a post that fails may have been stored, and
            # its sender may have left.
            if control is not None and commands:
                ids = [command.document_id for command in commands]
                target = ids[0] if len(ids) == 1 else f"{len(ids)} commands"
                with trio.move_on_after(NOTE_LIMIT, shield=True):
                    await control.note(caller, "commands post", target, document_ids=ids[:NOTED_IDS])

    routes = Routes({"/api/v1/commands": {"POST": post}})

    if control is not None:

        async def status(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            await send_reply(send, 200, json.dumps(await control.status()).encode())

        async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            await send_reply(send, 200, json.dumps(await control.metrics()).encode())

        async def about_agent(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            query = parse_qs(scope["query_string"].decode("latin-1"))
            uuid = query.get("uuid", [""])[0]
            if UUID.fullmatch(uuid) is None:
                raise MalformedRequest("uuid: Expected a uuid in its canonical form")
            await send_reply(send, 200, json.dumps(await control.about_agent(uuid.lower())).encode())

        async def reload(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            caller = peer_credentials(scope)
            outcome = await control.reload()
            if outcome["reloaded"]:
                with trio.move_on_after(NOTE_LIMIT, shield=True):
                    await control.note(caller, "reload", "configuration")
            await send_reply(send, 200, json.dumps(outcome).encode())

        async def drain(on: bool, scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            caller = peer_credentials(scope)
            outcome = await control.drain(on)
            if outcome["drained"] is on:
                with trio.move_on_after(NOTE_LIMIT, shield=True):
                    await control.note(caller, "drain" if on else "drain undo", "node")
            await send_reply(send, 200, json.dumps(outcome).encode())

        async def revoke(scope: Scope, receive: Receive, send: Send) -> None:
            await skip_body(receive)
            key_id = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]
            if KEY_ID.fullmatch(key_id) is None:
                raise MalformedRequest("key: Expected a key's id")
            caller = peer_credentials(scope)
            outcome = await control.revoke_key(key_id)
            if outcome["revoked"]:
                with trio.move_on_after(NOTE_LIMIT, shield=True):
                    await control.note(caller, "keys revoke", key_id)
            await send_reply(send, 200, json.dumps(outcome).encode())

        routes.add("/api/v1/keys/revoke", "POST", revoke)
        routes.add("/api/v1/status", "GET", status)
        routes.add("/api/v1/agent", "GET", about_agent)
        routes.add("/api/v1/metrics", "GET", metrics)
        routes.add("/api/v1/drain", "POST", partial(drain, True))
        routes.add("/api/v1/drain", "DELETE", partial(drain, False))
        routes.add("/api/v1/reload", "POST", reload)
    return PlainApplication(routes, describe)


def peer_credentials(scope: Scope) -> Caller:
    """The process at the other end of the Unix socket (``SO_PEERCRED``)."""
    sock = getattr(scope["extensions"].get(EXTENSION), "sock", None)
    if not isinstance(sock, socket.socket) or sock.family != socket.AF_UNIX:
        return Caller()
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Caller(uid % 2**32, pid or None)  # 0: in another namespace
