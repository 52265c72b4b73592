"""A model of authd's local socket as the groups A to D have it: a callback for ``open_fake_daemon("authd", model)``.

What it answers is in DAEMONS.md ("Replies", authd) and SOCKETS.md (6).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_network
from typing import Any, Final

from attrs import define, field

from wazuh_comms_trio.testing.daemons.conduct import Act, Answer
from wazuh_comms_trio.testing.daemons.models import decode

#: Arguments of authd's requests that crash the daemon when they are no strings.
AUTHD_STRINGS: Final = ("id", "name", "ip", "key", "key_hash", "groups")

_REASONS: Final[Mapping[int, str]] = {
    9001: "Internal error",
    9002: "Parsing JSON input",
    9004: "No such argument",
    9005: "Invalid name",
    9006: "Invalid IP",
    9007: "Duplicate IP",
    9008: "Duplicate name",
    9010: "No such argument: id",
    9011: "Agent ID not found",
    9012: "Duplicate ID",
    9013: "Maximum number of agents reached",
    9014: "Invalid Group(s) Name(s)",
    9015: "Incompatible with a worker",
}


def _failure(code: int) -> Answer:
    """A failure has no ``data``."""
    return {"error": code, "message": _REASONS[code]}


@define
class AuthdModel:
    """authd: ``add``, ``remove``, ``get``, and ``getconfig auth`` as text. Success has no ``message``, failure no
    ``data``; what isn't a string where one belongs is a crash; an unknown function is 9001. On a ``worker`` everything
    is 9015; ``max_agents``, from 5.0.0-beta1 on, is how many it takes (9013).

    It checks neither names nor keys, as the real one: ``key_file`` is what it would write, and ``damaged`` whether
    remoted and authd could still read that.
    """

    agents: dict[str, dict[str, str]] = field(factory=dict)
    groups: set[str] = field(factory=lambda: {"default"})
    worker: bool = False
    max_agents: int | None = None

    @property
    def key_file(self) -> str:
        """A line of four words for each agent."""
        return "".join(f"{one['id']} {one['name']} {one['ip']} {one['key']}\n" for one in self.agents.values())

    @property
    def damaged(self) -> bool:
        """Whether a line isn't four words, or is one too many."""
        lines = self.key_file.splitlines()
        return len(lines) != len(self.agents) or any(len(line.split(" ")) != 4 for line in lines)

    def __call__(self, request: bytes) -> Answer:
        if not request.lstrip().startswith(b"{"):
            return f"ok {json.dumps({'auth': {}})}" if request == b"getconfig auth" else _failure(9002)
        message = decode(request)
        if not isinstance(message, dict):
            return _failure(9002)
        function, arguments = message.get("function"), message.get("arguments")
        if function is not None and not isinstance(function, str):
            return Act.CRASH
        if isinstance(arguments, dict) and any(
            not isinstance(arguments[name], str) for name in AUTHD_STRINGS if name in arguments
        ):
            return Act.CRASH
        if function not in ("add", "remove", "get"):
            return _failure(9001)
        if self._sent_to_master():
            return _failure(9015)
        if not isinstance(arguments, dict):
            return _failure(9004)
        if function == "add":
            return self._add(arguments)
        if "id" not in arguments:
            return _failure(9010)
        if (agent := self.agents.get(arguments["id"])) is None:
            return _failure(9011)
        if function == "get":
            return {"error": 0, "data": dict(agent)}
        del self.agents[arguments["id"]]
        return {"error": 0, "data": "Agent deleted successfully."}

    def _sent_to_master(self) -> bool:
        """Whether it refuses, since it is a worker's."""
        return self.worker

    def _add(self, arguments: Mapping[str, Any]) -> Answer:
        name, ip = arguments.get("name"), arguments.get("ip", "any")
        if not name:
            return _failure(9005)
        if ip != "any" and not _is_address(ip):
            return _failure(9006)
        force = arguments.get("force")
        if force is not None and not _is_whole(force):
            return _failure(9002)
        for code, same in (
            (9008, [key for key, agent in self.agents.items() if agent["name"] == name]),
            (9007, [key for key, agent in self.agents.items() if ip != "any" and agent["ip"] == ip]),
            (9012, [key for key in self.agents if key == arguments.get("id")]),
        ):
            if same and not (force and force["enabled"]):
                return _failure(code)
            for key in same:  # as if what else ``force`` asks for were so
                del self.agents[key]
        if not set(filter(None, arguments.get("groups", "").split(","))) <= self.groups:
            return _failure(9014)
        if self.max_agents is not None and len(self.agents) >= self.max_agents:
            return _failure(9013)
        number = arguments.get("id") or f"{max((int(one) for one in self.agents), default=0) + 1:03}"
        key = arguments.get("key") or sha256(f"{number} {name}".encode()).hexdigest()
        self.agents[number] = {"id": number, "name": name, "ip": ip, "key": key}
        return {"error": 0, "data": dict(self.agents[number])}


def _is_address(ip: str) -> bool:
    try:
        ip_network(ip, strict=False)
    except ValueError:
        return False
    return True


def _is_whole(force: Any) -> bool:
    """All four of its members are needed; times are numbers or texts with s, m, h or d."""
    match force:
        case {
            "enabled": bool(),
            "key_mismatch": bool(),
            "disconnected_time": {"enabled": bool(), "value": value},
            "after_registration_time": registered,
        }:
            return all(re.fullmatch(r"[0-9]+[smhd]?", str(time)) for time in (value, registered))
        case _:
            return False
