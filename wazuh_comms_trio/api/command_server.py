"""The local command server's ASGI application: ``POST /api/v1/commands`` on a Unix socket, for the programs of this
host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from wazuh_comms_trio.api.bodies import BodyBudget, collect_body
from wazuh_comms_trio.api.edge import Receive, Send
from wazuh_comms_trio.api.http11 import Scope
from wazuh_comms_trio.api.replies import send_reply
from wazuh_comms_trio.api.routing import Routes
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.services.command_json import decode_commands, encode_commands
from wazuh_comms_trio.services.commands import CommandDispatcher

__all__ = ["create_command_app"]

#: One of the largest posts, and then some: its users are local programs that post one after the other.
BUDGET_BYTES: Final = 256 * 1024 * 1024


def create_command_app(
    dispatcher: CommandDispatcher, limits: Limits
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Who may open the socket may command all agents; there is no other check."""
    budget = BodyBudget(BUDGET_BYTES)

    async def post(scope: Scope, receive: Receive, send: Send) -> None:
        async with collect_body(receive, limit=limits.body_bytes, budget=budget, patience=limits.body_timeout) as body:
            commands = decode_commands(body)
        await send_reply(send, 200, encode_commands(await dispatcher.post(commands)))

    routes = Routes({"/api/v1/commands": {"POST": post}})

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await routes.find(scope)(scope, receive, send)

    return application
