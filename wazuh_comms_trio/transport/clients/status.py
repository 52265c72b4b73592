"""How agents and daemons are: states that remoted fetches from an agent, and the counters of the daemons.

Over pools: ``open_pool("remoted")`` for agents, ``"remoted"``, ``"analysis"`` or ``"wazuh-db"`` for daemons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from attrs import frozen

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid, PeerClosed
from wazuh_comms_trio.transport.conversation import decode_as
from wazuh_comms_trio.transport.errors import TransportPeerClosed
from wazuh_comms_trio.transport.pool.pool import Pool
from wazuh_comms_trio.transport.schema import validate_reply, validate_request
from wazuh_comms_trio.wire.agent_command import SERVER_ID
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message, decode_json, encode_json, reply_data
from wazuh_comms_trio.wire.text_rules import check_agent_id
from wazuh_comms_trio.wire.text_rules import check_word as check_word
from wazuh_comms_trio.wire.wdb import parse_reply

#: What the requests say where they come from.
ORIGIN: Final[Mapping[str, str]] = {"module": "framework"}


class NoSuchAgent(TransportPeerClosed):
    """1014: remoted closed the connection without an answer, which is how it says that it knows no such agent."""


@frozen
class AgentStatus:
    """What an agent's own daemon says of its connection. Times are the agent's local ones, as text. What an agent
    doesn't tell is None.

    ``status`` is ``connected``, ``pending`` or ``disconnected``; ``msg_count`` events were made, ``msg_sent`` sent,
    ``msg_buffer`` wait.
    """

    status: str
    last_keepalive: str | None = None
    last_ack: str | None = None
    msg_count: int | None = None
    msg_sent: int | None = None
    msg_buffer: int | None = None
    buffer_enabled: bool | None = None


async def agent_status(remoted: Pool, agent_id: str) -> AgentStatus:
    """The state of an agent's connection, asked of the agent itself. ``NoSuchAgent`` when remoted doesn't know it.
    Errors and cancellation as ``ask_agent``."""
    status: AgentStatus = decode_as(await agent_state(remoted, agent_id, "agent"), AgentStatus)
    return status


async def agent_state(remoted: Pool, agent_id: str, component: str = "agent") -> Any:
    """The state of one component of an agent (``agent``, ``logcollector``), as it tells it. Errors and
    cancellation as ``ask_agent``."""
    return await ask_agent(remoted, agent_id, component, "getstate")


async def daemon_stats(pool: Pool) -> Any:
    """A daemon's own counters. Errors as ``Pool.request``. Cancelled: the connection is given up."""
    return await pool.request(create_wazuh_socket_message(dict(ORIGIN), "getstats", {}))


async def agents_stats(pool: Pool, agent_ids: Iterable[str] | Literal["all"] = "all") -> list[dict[str, Any]]:
    """A daemon's counters for each agent: rows with ``id`` (a number) and ``metrics``. Those of all agents come in
    pages. Errors as
    ``Pool.request``. Cancelled: the connection is given up."""
    if agent_ids != "all":
        numbers = [int(check_agent_id(agent_id)) for agent_id in agent_ids]
        return _rows(await _page_of_stats(pool, {"agents": numbers}))
    rows: list[dict[str, Any]] = []
    last_id = 0
    while True:
        reply = await _page_of_stats(pool, {"agents": "all", "last_id": last_id})
        page = _rows(reply)
        rows += page
        if reply.get("message") != "due":
            return rows
        if not page or page[-1]["id"] <= last_id:
            raise AnswerInvalid(1014, "a page of agents says that more follow, and ends where it began")
        last_id = page[-1]["id"]


async def _page_of_stats(pool: Pool, parameters: Mapping[str, Any]) -> Any:
    message = create_wazuh_socket_message(dict(ORIGIN), "getagentsstats", dict(parameters))
    validate_request(pool.daemon.name, message)
    reply = decode_json(await pool.request(encode_json(message)))
    validate_reply(pool.daemon.name, "getagentsstats", reply, versioned=True)
    return reply


def _rows(reply: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = reply_data(reply)["agents"]
    return rows


async def ask_agent(remoted: Pool, agent_id: str, component: str, command: str, section: str | None = None) -> Any:
    """Have remoted pass a request on to an agent: ``<id> <component> <command> [<section>]``; returns the answer's
    data.

    ``WazuhError`` 1014 with the agent's text for ``err``, an agent's own error under its number, ``NoSuchAgent``; 1012
    for words that would be read as something else. Cancelled: the connection is given up.
    """
    if check_agent_id(agent_id) == SERVER_ID:
        raise MessageInvalid(1012, "agent 000 is the server itself: ask its daemons")
    words = [agent_id, *(check_word(word) for word in (component, command, section) if word is not None)]
    try:
        answer = await remoted.request(" ".join(words).encode())
    except PeerClosed as error:
        raise NoSuchAgent(1014, f"remoted closed without an answer: it knows no agent {agent_id}") from error
    return parse_reply(answer).data()
