"""``POST /api/v1/events/stateful``: a batch of events, answered once the index has taken each or refused it."""

from __future__ import annotations

from functools import partial

import trio

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.errors import TimeLimitExceeded
from wazuh_comms_trio.http.server.bodies import RequestRoom, content_length
from wazuh_comms_trio.http.server.delivery import EXTENSION, has_left
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_reply
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.stateful.submission import HasLeft

__all__ = ["add_stateful"]


def add_stateful(api: AgentApi) -> None:
    api.add_handler(f"{PREFIX}/events/stateful", partial(stateful, api), "POST")


async def stateful(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    began = trio.current_time()
    caller = await api.identify(scope)
    # In an outage the registry is waited for as the index is: together they have one limit.
    waited = trio.current_time() - began
    with api.admitted_body("stateful", caller, scope):
        await _answer(api, caller, scope, receive, send, waited)


async def _answer(api: AgentApi, caller: Caller, scope: Scope, receive: Receive, send: Send, waited: float) -> None:
    with api.room(caller.agent.id) as room:
        reply = await _submit(api, caller, scope, receive, room, waited)
        room.hold_reply(len(reply))
        await send_reply(room.watched(send), 200, reply)


async def _submit(
    api: AgentApi, caller: Caller, scope: Scope, receive: Receive, room: RequestRoom, waited: float
) -> bytes:
    """The reply. ``waited``: for how many seconds the request did before its body was read. The body is out of memory
    when this returns: an agent may take its time to read."""
    owner, length, stateful = caller.agent.id, content_length(scope), api.services.stateful
    collected = api.collect(receive, api.limits.body_bytes, owner=owner, spill=api.spill, declared=length, room=room)
    async with collected as body:
        came = trio.current_time() - waited
        deadline = came + max(waited, api.timeouts.stateful)
        await room.reserve(await stateful.expected_reply(body, room.share.held_bytes))
        with trio.CancelScope(deadline=deadline):
            left = _leaving(scope)
            return await stateful.submit(caller, body, deadline=deadline, has_left=left, came=came, queued=room.queued)
        raise TimeLimitExceeded


def _leaving(scope: Scope) -> HasLeft | None:
    """Asks the kernel about the request's peer; None where the request came over none of our own connections."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    return None if connection is None else partial(has_left, connection.sock)
