"""``POST /api/v1/events/stateless``: a body of events that streams through to the engine."""

from __future__ import annotations

from functools import partial

import trio

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.errors import TimeLimitExceeded
from wazuh_comms_trio.http.server.bodies import BodyChunks, content_length
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_empty

__all__ = ["add_stateless"]


def add_stateless(api: AgentApi) -> None:
    api.add_handler(f"{PREFIX}/events/stateless", partial(stateless, api), "POST")


async def stateless(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    """The time limit counts from the body's end."""
    caller = await api.identify(scope)
    seconds = api.timeouts.stateless
    with api.admitted_body("stateless", caller, scope), trio.CancelScope() as limit:

        def start_limit() -> None:
            limit.deadline = trio.current_time() + seconds

        chunks = BodyChunks(receive, start_limit)
        await api.services.stateless.forward(caller, chunks, length=content_length(scope), limit=seconds)
    if limit.cancelled_caught:
        raise TimeLimitExceeded
    await send_empty(send, 204)
