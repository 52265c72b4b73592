"""``GET /api/v1/``: tells anybody that the server is there. ``GET /api/v1/ready``: all that is behind it is, too;
``ready/any``: some."""

from __future__ import annotations

from functools import partial

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.http.server.bodies import skip_body
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_empty

__all__ = ["add_readiness"]


def add_readiness(api: AgentApi) -> None:
    api.add_handler(f"{PREFIX}/", alive, "GET", "HEAD")
    api.add_handler(f"{PREFIX}/ready", partial(ready, api), "GET", "HEAD")
    api.add_handler(f"{PREFIX}/ready/any", partial(ready_for_any, api), "GET", "HEAD")


async def alive(scope: Scope, receive: Receive, send: Send) -> None:
    await skip_body(receive)
    await send_empty(send, 200)


async def ready(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    await skip_body(receive)
    await api.services.readiness.check()
    await send_empty(send, 200)


async def ready_for_any(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    await skip_body(receive)
    await api.services.readiness.check_any()
    await send_empty(send, 200)
