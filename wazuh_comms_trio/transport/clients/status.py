"""How agents and daemons are: states that remoted fetches from an agent, and the counters of the daemons.

Over pools: ``open_pool("remoted")`` for agents, ``"remoted"``, ``"analysis"`` or ``"wazuh-db"`` for daemons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Final, Literal

import trio
from attrs import frozen

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid, PeerClosed, WazuhException
from wazuh_comms_trio.transport.conversation import decode_as
from wazuh_comms_trio.transport.errors import TransportPeerClosed
from wazuh_comms_trio.transport.pool.pool import Pool
from wazuh_comms_trio.transport.schema import validate_reply, validate_request
from wazuh_comms_trio.wire.agent_command import SERVER_ID
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message, decode_json, encode_json, reply_data
from wazuh_comms_trio.wire.text_rules import check_agent_id, check_list
from wazuh_comms_trio.wire.text_rules import check_word as check_word
from wazuh_comms_trio.wire.wdb import WdbReply, parse_reply

#: What the requests say where they come from.
ORIGIN: Final[Mapping[str, str]] = {"module": "framework"}

# The most agents in one list: it must be shorter than 150 at remoted, 75 at analysisd (SOCKETS.md, 8).
_LONGEST_LISTS: Final[Mapping[str, int]] = {"remoted": 149, "analysis": 74}
_LONGEST_LIST: Final = 74
# What a daemon answers when it has counters of none of those listed.
_NONE_FOUND: Final = 9
# So often an agent's state is read from its beginning, where it is written anew between two of its pages.
_RESTARTS: Final = 5


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


async def agent_status(remoted: Pool, agent_id: str, *, deadline: float = inf) -> AgentStatus:
    """The state of an agent's connection, asked of the agent itself. ``NoSuchAgent`` when remoted doesn't know it.
    Errors, ``deadline`` and cancellation as ``ask_agent``."""
    status: AgentStatus = decode_as(await agent_state(remoted, agent_id, "agent", deadline=deadline), AgentStatus)
    return status


async def agent_state(remoted: Pool, agent_id: str, component: str = "agent", *, deadline: float = inf) -> Any:
    """The state of one component of an agent (``agent``, ``logcollector``), as it tells it.

    logcollector of agents of 4.9 and newer tells it in pages: they are put together here, the ``files`` of ``global``
    and of ``interval`` each as one list. ``AnswerInvalid`` (1014) when the agent begins anew again and again meanwhile.
    Errors, ``deadline`` and cancellation as ``ask_agent``.
    """
    words = _words(agent_id, component, "getstate")
    with trio.fail_at(deadline):
        for _ in range(_RESTARTS):
            reply = await _ask(remoted, words)
            data = reply.data()
            page = reply.members()
            while page.get("remaining"):
                reply = await _ask(remoted, [*words, "next"])
                page = reply.members()
                if page.get("json_updated"):
                    break  # it was written anew between two pages: they don't belong together
                _join_files(data, reply.data())
            else:
                return data
    raise AnswerInvalid(1014, f"agent {agent_id} wrote its state anew while it was read, {_RESTARTS} times")


def _join_files(data: Any, more: Any) -> None:
    """Add the files of a later page."""
    for part in ("global", "interval"):
        try:
            data[part]["files"] += more[part]["files"]
        except (TypeError, LookupError):
            if isinstance(more, Mapping) and more.get(part):
                raise AnswerInvalid(1014, f"a page of an agent's state has no list of files in {part!r}") from None


async def daemon_stats(pool: Pool) -> Any:
    """A daemon's own counters. Errors as ``Pool.request``. Cancelled: the connection is given up."""
    return await pool.request(create_wazuh_socket_message(dict(ORIGIN), "getstats", {}))


async def agents_stats(pool: Pool, agent_ids: Iterable[str] | Literal["all"] = "all") -> list[dict[str, Any]]:
    """A daemon's counters for each agent: rows with ``id`` (a number) and ``metrics``. Only agents that are connected
    to this node have any.

    Those of all agents come in pages; a list is asked for in parts that the daemon takes (149 at remoted, 74 at
    analysisd). Errors as ``Pool.request``, such as 9 when there is none of those listed. Cancelled: the connection is
    given up.
    """
    if agent_ids == "all":
        return await _stats_of_all(pool)
    numbers = [int(check_agent_id(agent_id)) for agent_id in check_list(agent_ids, "agents")]
    size = _LONGEST_LISTS.get(pool.daemon.name, _LONGEST_LIST)
    rows: list[dict[str, Any]] = []
    none_found: WazuhException | None = None
    for start in range(0, len(numbers), size):
        reply = await _page_of_stats(pool, {"agents": numbers[start : start + size]})
        try:
            rows += _rows(reply)
        except WazuhException as error:
            if error.code != _NONE_FOUND:
                raise
            none_found = error
    if none_found is not None and not rows:
        raise none_found
    return rows


async def _stats_of_all(pool: Pool) -> list[dict[str, Any]]:
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


async def ask_agent(
    remoted: Pool, agent_id: str, component: str, command: str, section: str | None = None, *, deadline: float = inf
) -> Any:
    """Have remoted pass a request on to an agent: ``<id> <component> <command> [<section>]``; returns the answer's
    data.

    remoted waits about 60 s for an agent that is connected and silent; ``deadline`` is the moment on trio's clock at
    which this raises ``trio.TooSlowError``. ``WazuhError`` 1014 with the agent's text for ``err``, an agent's own error
    under its number, ``NoSuchAgent``; ``MessageInvalid`` (1012) for words that would be read as something else.
    Cancelled, or too late: the connection is given up.
    """
    words = _words(agent_id, component, command, section)
    with trio.fail_at(deadline):
        return (await _ask(remoted, words)).data()


def _words(agent_id: str, *words: str | None) -> list[str]:
    """A request for an agent, checked."""
    if check_agent_id(agent_id) == SERVER_ID:
        raise MessageInvalid(1012, "agent 000 is the server itself: ask its daemons")
    return [agent_id, *(check_word(word) for word in words if word is not None)]


async def _ask(remoted: Pool, words: list[str]) -> WdbReply:
    try:
        answer = await remoted.request(" ".join(words).encode())
    except PeerClosed as error:
        raise NoSuchAgent(1014, f"remoted closed without an answer: it knows no agent {words[0]}") from error
    return parse_reply(answer).only()
