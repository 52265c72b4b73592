"""Models of authd, remoted, task-manager, analysisd's and execd's request sockets: callbacks for
``open_fake_daemon``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from attrs import define, field

from wazuh_comms_trio.testing.daemons.conduct import Act, Answer

#: Arguments of authd's requests that crash the daemon when they are no strings.
AUTHD_STRINGS: Final = ("id", "name", "ip", "key", "key_hash", "groups")


def _decode(request: bytes) -> Any:
    try:
        return json.loads(request)
    except ValueError:
        return None


@define
class AuthdModel:
    """authd: ``add``, ``remove`` and ``get``. Success has no ``message``, failure no ``data``; a number where a string
    belongs is a crash."""

    agents: dict[str, dict[str, str]] = field(factory=dict)
    groups: set[str] = field(factory=lambda: {"default"})

    def __call__(self, request: bytes) -> Answer:
        message = _decode(request)
        if not isinstance(message, dict):
            return {"error": 9002, "message": "Parsing JSON input"}
        arguments = message.get("arguments")
        if not isinstance(arguments, dict):
            return {"error": 9004, "message": "No such argument"}
        if any(not isinstance(arguments[name], str) for name in AUTHD_STRINGS if name in arguments):
            return Act.CRASH
        match message.get("function"):
            case "add":
                return self._add(arguments)
            case "remove":
                return self._remove(arguments)
            case "get":
                return self._get(arguments)
            case _:
                return {"error": 9003, "message": "No such function"}

    def _add(self, arguments: Mapping[str, Any]) -> Answer:
        name, ip = arguments.get("name"), arguments.get("ip", "any")
        if not name:
            return {"error": 9004, "message": "No such argument"}
        if any(agent["name"] == name for agent in self.agents.values()):
            return {"error": 9008, "message": "Duplicate name"}
        if ip != "any" and any(agent["ip"] == ip for agent in self.agents.values()):
            return {"error": 9007, "message": "Duplicate IP"}
        number = arguments.get("id") or f"{max((int(one) for one in self.agents), default=0) + 1:03}"
        if number in self.agents:
            return {"error": 9012, "message": "Duplicate ID"}
        if not set(filter(None, arguments.get("groups", "").split(","))) <= self.groups:
            return {"error": 9014, "message": "Invalid Group(s) Name(s)"}
        key = arguments.get("key") or sha256(f"{number} {name}".encode()).hexdigest()
        self.agents[number] = {"id": number, "name": name, "ip": ip, "key": key}
        return {"error": 0, "data": dict(self.agents[number])}

    def _remove(self, arguments: Mapping[str, Any]) -> Answer:
        if self.agents.pop(arguments.get("id", ""), None) is None:
            return {"error": 9011, "message": "Agent ID not found"}
        return {"error": 0, "data": "Agent deleted successfully."}

    def _get(self, arguments: Mapping[str, Any]) -> Answer:
        if (agent := self.agents.get(arguments.get("id", ""))) is None:
            return {"error": 9011, "message": "Agent ID not found"}
        return {"error": 0, "data": dict(agent)}


def _page_of_stats(message: Mapping[str, Any], name: str, agents: Mapping[int, Any], page_rows: int) -> Answer:
    """``getagentsstats``: for ``"agents": "all"`` pages by ``last_id``, ``message`` is ``due`` until the last."""
    parameters = message.get("parameters") or {}
    wanted, due = parameters.get("agents"), False
    if wanted == "all":
        later = [number for number in sorted(agents) if number > parameters.get("last_id", 0)]
        wanted, due = later[:page_rows], len(later) > page_rows
    if not isinstance(wanted, list):
        return {"error": 4, "message": "Invalid arguments", "data": {}}
    found = [{"id": number, "metrics": agents[number]} for number in wanted if number in agents]
    return {"error": 0, "message": "due" if due else "ok", "data": {"name": name, "agents": found}}


@define
class RemotedModel:
    """remoted's request socket: text requests for an agent (``<id> <component> <command> [<section>]``), JSON ones for
    itself.

    ``states`` is (agent id, component) -> state; ``configurations`` (agent id, component, section) -> configuration. An
    unknown agent is closed without an answer.
    """

    states: dict[tuple[str, str], Mapping[str, Any]] = field(factory=dict)
    configurations: dict[tuple[str, str, str], Mapping[str, Any]] = field(factory=dict)
    stats: dict[int, Mapping[str, Any]] = field(factory=dict)
    page_rows: int = 100

    def __call__(self, request: bytes) -> Answer:
        if isinstance(message := _decode(request), dict):
            match message.get("command"):
                case "getstats":
                    return {"error": 0, "message": "ok", "data": {"name": "wazuh-remoted", "metrics": {}}}
                case "getagentsstats":
                    return _page_of_stats(message, "wazuh-remoted", self.stats, self.page_rows)
                case "getconfig":
                    return {"error": 0, "message": "ok", "data": {"remote": [{"connection": "secure", "port": "1514"}]}}
                case _:
                    return {"error": 6, "message": "Unknown command", "data": {}}
        words = request.decode(errors="replace").split(" ")
        known = {key[0] for key in (*self.states, *self.configurations)}
        if len(words) < 3 or words[0] not in known:
            return Act.CLOSE
        match words[1:]:
            case [component, "getstate"] if state := self.states.get((words[0], component)):
                return {"error": 0, "data": dict(state)}
            case [_, "getstate"]:
                return {"error": 1, "message": "Unable to get the state", "data": {}}
            case [component, "getconfig", section] if found := self.configurations.get((words[0], component, section)):
                return f"ok {json.dumps(found)}"
            case _:
                return "err Could not get requested section"


@define
class TaskManagerModel:
    """task-manager: ``data`` is always an array. ``tasks`` is agent number -> task."""

    tasks: dict[int, Mapping[str, Any]] = field(factory=dict)

    def __call__(self, request: bytes) -> Answer:
        if not isinstance(message := _decode(request), dict):
            return {"error": 1, "data": [], "message": "Invalid message"}
        if message.get("command") == "status":
            return {"error": 0, "data": [dict(task) for task in self.tasks.values()], "message": "Success"}
        if message.get("command") not in (
            "upgrade",
            "upgrade_custom",
            "upgrade_get_status",
            "upgrade_result",
            "upgrade_cancel_tasks",
        ):
            return {"error": 2, "data": [], "message": "Invalid command"}
        numbers = (message.get("parameters") or {}).get("agents", [])
        data: list[Any] = []
        for number in numbers:
            if number in self.tasks:
                data.append({"error": 0, "message": "Success", "agent": number, **self.tasks[number]})
            else:
                data.append({"error": 7, "message": "No task in DB", "agent": number})
        return {"error": 0, "data": data, "message": "Success"}


@define
class ComponentModel:
    """analysisd's or execd's request socket: ``getconfig <section>`` as text, and version 1 messages. ``name`` is what
    it calls itself."""

    name: str = "wazuh-analysisd"
    configurations: dict[str, Mapping[str, Any]] = field(factory=dict)
    stats: dict[int, Mapping[str, Any]] = field(factory=dict)
    page_rows: int = 100

    def __call__(self, request: bytes) -> Answer:
        if not isinstance(message := _decode(request), dict):
            command, _, section = request.decode(errors="replace").partition(" ")
            if command != "getconfig" or section not in self.configurations:
                return "err Could not get requested section"
            return f"ok {json.dumps(self.configurations[section])}"
        match message.get("command"):
            case "getstats":
                return {"error": 0, "message": "ok", "data": {"name": self.name, "metrics": {}}}
            case "getagentsstats":
                return _page_of_stats(message, self.name, self.stats, self.page_rows)
            case "getconfig" if found := self.configurations.get((message.get("parameters") or {}).get("section", "")):
                return {"error": 0, "message": "ok", "data": dict(found)}
            case _:
                return {"error": 6, "message": "Unknown command", "data": {}}
