"""Commands to agents for trio programs: active responses, restarts, reconnects; to one agent, to several or to all.

    async with await WazuhAsyncQueue.from_path("/var/ossec/queue/alerts/ar") as queue:
        report = await send_active_response(queue, ["001", "002"], "firewall-drop", ["-", "10.0.0.7"])

remoted reads the queue and never answers: "sent" means that the datagram is in its queue. Everything is checked before
the first datagram goes out. What holds under cancellation: datagrams that were sent stay sent, none is sent in part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import trio

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncQueue
from wazuh_comms_trio.transport.clients.broadcast import BroadcastReport, broadcast
from wazuh_comms_trio.wire.active_response import create_active_response
from wazuh_comms_trio.wire.agent_command import (
    AR_TYPE,
    HC_FORCE_RECONNECT,
    HC_SK_RESTART,
    RESTART_AGENTS,
    RESTART_AGENTS_JSON,
    SERVER_ID,
    check_agent_id,
    check_message,
)
from wazuh_comms_trio.wire.text_rules import check_list

#: One agent's id, several, or every agent that is connected.
Agents: TypeAlias = "str | Iterable[str] | Literal['all']"


async def send_active_response(
    queue: WazuhAsyncQueue,
    agents: Agents,
    command: str,
    arguments: Sequence[str] = (),
    *,
    custom: bool = False,
    alert: Mapping[str, Any] | None = None,
    send_timeout: float | None = None,
    execq: WazuhAsyncQueue | None = None,
) -> BroadcastReport:
    """Have agents run a command. ``agents`` is an id, several ids, or ``"all"``; the rest as
    ``create_active_response``.

    The server itself (``000``) is asked through execd's queue, given as ``execq``. ``send_timeout`` as in
    ``send_command``, as is the report.
    """
    message = create_active_response(command, arguments, custom=custom, alert=alert)
    return await send_command(queue, agents, message, send_timeout=send_timeout, execq=execq)


async def send_command(
    queue: WazuhAsyncQueue,
    agents: Agents,
    message: str,
    *,
    send_timeout: float | None = None,
    execq: WazuhAsyncQueue | None = None,
) -> BroadcastReport:
    """Send any one-line message as an active response: JSON version 1, or ``!script argument…``.

    Datagrams go out in the order of ``agents``, waiting when the queue is full for ``send_timeout`` seconds in all
    (None: as long as it takes). The report says who was not reached; a queue whose reader is gone is reported, not
    raised. 1012 for what remoted would drop or misread.
    """
    check_message(message)
    ids = _ids(agents)
    if ids is None or SERVER_ID not in ids:
        return await broadcast(queue, ids, message, msg_type=AR_TYPE, send_timeout=send_timeout)
    if execq is None:
        raise MessageInvalid(1012, "agent 000 is the server itself, its commands go to execd: give its queue as execq")
    if not message.startswith("{"):
        raise MessageInvalid(1012, "execd, and so agent 000, takes version 1 messages only")
    give_up = trio.current_time() + (float("inf") if send_timeout is None else send_timeout)
    report = await broadcast(execq, [SERVER_ID], message, msg_type=AR_TYPE, send_timeout=send_timeout)
    if others := [one for one in ids if one != SERVER_ID]:
        left = max(0.0, give_up - trio.current_time())
        report += await broadcast(queue, others, message, msg_type=AR_TYPE, send_timeout=left)
    return report


async def restart_agents(
    queue: WazuhAsyncQueue, agents: Agents, *, legacy: bool = False, send_timeout: float | None = None
) -> BroadcastReport:
    """Restart agents, by the JSON message that agents of 4.2 and newer take: they drop the text without a word, and the
    report, which is of the queue, is the same. ``legacy`` sends the text ``restart-ossec0``, which older agents need.
    Otherwise as ``send_command``.
    """
    return await _order(queue, agents, RESTART_AGENTS if legacy else RESTART_AGENTS_JSON, send_timeout)


async def restart_syscheck(
    queue: WazuhAsyncQueue, agents: Agents, *, send_timeout: float | None = None
) -> BroadcastReport:
    """Have agents scan their files again. Otherwise as ``send_command``."""
    return await _order(queue, agents, HC_SK_RESTART, send_timeout)


async def force_reconnect(
    queue: WazuhAsyncQueue, agents: Agents, *, send_timeout: float | None = None
) -> BroadcastReport:
    """Have agents drop their connection and make a new one. Otherwise as ``send_command``."""
    return await _order(queue, agents, HC_FORCE_RECONNECT, send_timeout)


async def _order(queue: WazuhAsyncQueue, agents: Agents, message: str, send_timeout: float | None) -> BroadcastReport:
    ids = _ids(agents)
    if ids is not None and SERVER_ID in ids:
        raise MessageInvalid(1012, "agent 000 is the server itself: it takes no such order")
    return await broadcast(queue, ids, message, send_timeout=send_timeout)


def _ids(agents: Agents) -> list[str] | None:
    """The ids in order, checked; None for all agents. Nobody at all is a mistake more often than meant: 1012."""
    if agents == "all":
        return None
    ids = [check_agent_id(one) for one in ([agents] if isinstance(agents, str) else check_list(agents, "agents"))]
    if not ids:
        raise MessageInvalid(1012, "no agent was named; every agent is 'all'")
    return ids
