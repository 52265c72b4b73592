"""Orders to agents and to the server itself, which each release carries out in another way: decided here, purely.

=====================  ==============  =====================  ============================
order                  4.x             5.0.0-beta1 to beta4   5.0.0
=====================  ==============  =====================  ============================
restart agents         ar queue        remoted, by text       task
reload agents          -               remoted, by text       task
active response        ar queue        ar queue               task, with its document
reconnect agents       ar queue        ar queue               -
scan files again       ar queue        -                      -
restart the server     execd's queue   control socket         control socket
reload the server      execd (4.14)    control socket         control socket
=====================  ==============  =====================  ============================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from wazuh_comms_trio.errors import MessageInvalid, NotInRelease
from wazuh_comms_trio.transport.releases.release import Release, only_in
from wazuh_comms_trio.transport.server.agent_tasks import TaskType, create_task
from wazuh_comms_trio.transport.server.call import DaemonCall, agent_ids, text_of
from wazuh_comms_trio.transport.server.small_sockets import control
from wazuh_comms_trio.wire.active_response import create_active_response
from wazuh_comms_trio.wire.agent_command import (
    AR_TYPE,
    HC_FORCE_RECONNECT,
    HC_SK_RESTART,
    RESTART_AGENTS,
    RESTART_AGENTS_JSON,
    SERVER_ID,
    encode_agent_command,
)
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message, encode_json

#: One agent's id, several, or every agent that is connected.
AgentIds: TypeAlias = "str | Iterable[str] | Literal['all']"
#: How an order went: over which of the server's sockets.
Via: TypeAlias = Literal["ar", "execq", "remoted", "task-manager", "com", "control"]

ALL: Final = "all"
_AR_GROUPS: Final = ("A", "F")


@dataclass(frozen=True)
class NotDone:
    """An agent (``all``: every one) that the order didn't reach, and why."""

    agent_id: str
    reason: str


@dataclass(frozen=True)
class OrderReport:
    """What became of an order. ``via``: the socket that it went over; ``done`` those it was given to, in order (``all``
    stands for one datagram to everybody); ``not_done`` the others; ``task_ids`` agent -> task in 5.0.0; ``warnings``
    what else should be known. "Done" means handed over: no release says what an agent made of it.
    """

    via: Via
    done: tuple[str, ...] = ()
    not_done: tuple[NotDone, ...] = ()
    task_ids: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Nobody was left out."""
        return not self.not_done


class Datagrams(NamedTuple):
    """To be sent in order to a datagram queue, one for each target."""

    via: Via
    targets: tuple[str, ...]
    payloads: tuple[bytes, ...]


class Calls(NamedTuple):
    """To be carried out one after another, one for each target."""

    via: Via
    targets: tuple[str, ...]
    calls: tuple[DaemonCall[Any], ...]


#: An order as it is to be carried out; None where the agents have to be looked up first, since ``all`` are meant.
Plan: TypeAlias = "Datagrams | Calls | None"


def plan_restart(release: Release, agents: AgentIds, *, legacy: bool = False) -> Plan:
    """``legacy``: as text, for agents before 4.2."""
    if release.in_groups("A", "alpha"):
        return _datagrams(agents, RESTART_AGENTS if legacy else RESTART_AGENTS_JSON)
    return _by_word(release, agents, "restart", "agent_restart")


def plan_reload(release: Release, agents: AgentIds) -> Plan:
    """Agents of 4.x have no such order."""
    only_in(release, "E", "G", "a reload of agents")
    return _by_word(release, agents, "reload", "agent_reload")


def plan_reconnect(release: Release, agents: AgentIds) -> Plan:
    """Gone in 5.0.0, without a successor."""
    only_in(release, *_AR_GROUPS, "a forced reconnect of agents")
    return _datagrams(agents, HC_FORCE_RECONNECT)


def plan_syscheck(release: Release, agents: AgentIds) -> Plan:
    """Gone in 5.0, without a successor."""
    only_in(release, "A", "alpha", "a restart of agents' file scans")
    return _datagrams(agents, HC_SK_RESTART)


def plan_active_response(
    release: Release, agents: AgentIds, message: str | None, document: Mapping[str, Any] | None, create_time: int | None
) -> Plan:
    """``message`` is the version 1 message that the ar queue takes, ``document`` what 5.0.0 takes."""
    if release.in_groups(*_AR_GROUPS):
        if message is None:
            raise MessageInvalid(1012, f"{release} takes a command, not a document")
        return _datagrams(agents, message, AR_TYPE, to_server=release.in_groups("A", "alpha"))
    if document is None:
        raise MessageInvalid(1012, f"{release} takes the response's document: give it as document")
    return None if agents == ALL else _tasks(agents, "active_response", dict(document), create_time)


def active_response_message(
    command: str | None, arguments: Sequence[str], custom: bool, alert: Mapping[str, Any] | None
) -> str | None:
    """The message for the ar queue, None without a command. 1012 as ``create_active_response``."""
    if command is None:
        return None
    return create_active_response(command, arguments, custom=custom, alert=alert)


def plan_server_restart(release: Release) -> Datagrams | Calls:
    """The whole server, as an operator would."""
    if release.in_groups("A", "alpha"):
        parameters: dict[str, Any] = {"extra_args": [], "alert": {}}
        message = create_wazuh_socket_message({"module": "framework"}, "restart-wazuh", parameters)
        return Datagrams("execq", (SERVER_ID,), (encode_json(message),))
    return Calls("control", (SERVER_ID,), (control("restart"),))


def plan_server_reload(release: Release) -> Calls:
    """Since 4.14.0."""
    if release.at_least("E"):
        return Calls("control", (SERVER_ID,), (control("reload"),))
    if not release.at_least("4.14.0"):
        raise NotInRelease(1012, f"a reload of the server is not in {release}")
    call = DaemonCall("reload", "com", lambda _: b"reload", text_of)
    return Calls("com", (SERVER_ID,), (call,))


def too_old(versions: Mapping[str, str], targets: Sequence[str]) -> list[str]:
    """Those of the agents whose tasks 5.0.0 takes and drops, since they are older than it."""
    return [one for one in targets if _major(versions.get(one, "")) in range(1, 5)]


def _major(version: str) -> int:
    digits = version.lower().removeprefix("wazuh").strip().removeprefix("v").split(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _datagrams(agents: AgentIds, message: str, msg_type: str = "", *, to_server: bool = False) -> Datagrams:
    if agents == ALL:
        return Datagrams("ar", (ALL,), (encode_agent_command(message, None, msg_type).datagram,))
    ids = agent_ids(agents)
    if SERVER_ID in ids:
        if not to_server or len(ids) > 1:
            raise MessageInvalid(1012, "agent 000 is the server itself: it takes no such order, or by itself alone")
        return Datagrams("execq", (SERVER_ID,), (encode_agent_command(message, SERVER_ID, msg_type).datagram,))
    return Datagrams("ar", tuple(ids), tuple(encode_agent_command(message, one, msg_type).datagram for one in ids))


def _by_word(release: Release, agents: AgentIds, word: str, task_type: TaskType) -> Calls | None:
    if agents == ALL:
        return None
    if release.group == "G":
        return _tasks(agents, task_type, None, None)
    ids = _others(agents)
    return Calls("remoted", tuple(ids), tuple(_spoken(one, word) for one in ids))


def _spoken(agent_id: str, word: str) -> DaemonCall[str]:
    request = f"{agent_id} control {word}".encode()
    return DaemonCall(f"{word} agent", "remoted", lambda release: request, text_of)


def _tasks(agents: AgentIds, task_type: TaskType, payload: Any, create_time: int | None) -> Calls:
    ids = _others(agents)
    calls = [create_task(one, task_type, payload, create_time=create_time) for one in ids]
    return Calls("task-manager", tuple(ids), tuple(calls))


def _others(agents: AgentIds) -> list[str]:
    ids = agent_ids(agents)
    if SERVER_ID in ids:
        raise MessageInvalid(1012, "agent 000 is the server itself: it takes no such order")
    return ids
