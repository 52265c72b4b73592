"""Models of the request sockets of remoted, task-manager, analysisd and the daemons that speak text: callbacks for
``open_fake_daemon``. What each answers is in DAEMONS.md ("Replies") and SOCKETS.md (4, 7, 8: releases A to D).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import define, field

from wazuh_comms_trio.testing.daemons.conduct import Act, Answer

#: Numbers of remoted's and analysisd's errors (SOCKETS.md, 8, "Codes A-F"); ``DUE`` is a success with more to come.
DUE: Final = 1
BAD_JSON: Final = 2
NO_COMMAND: Final = 3
UNKNOWN_COMMAND: Final = 4
NO_PARAMETERS: Final = 5
NO_SECTION: Final = 6
UNKNOWN_SECTION: Final = 7
BAD_AGENTS: Final = 8
NONE_FOUND: Final = 9
NO_LAST_ID: Final = 10
TOO_MANY: Final = 11
BAD_ASSIGNMENT: Final = 12

_REASONS: Final[Mapping[int, str]] = {
    BAD_JSON: "Invalid JSON input",
    NO_COMMAND: "Empty command",
    UNKNOWN_COMMAND: "Unknown command",
    NO_PARAMETERS: "Empty parameters",
    NO_SECTION: "Empty section",
    UNKNOWN_SECTION: "Unrecognized section",
    BAD_AGENTS: "Invalid agents parameter",
    NONE_FOUND: "No agents found",
    NO_LAST_ID: "Invalid last_id parameter",
    TOO_MANY: "Too many agents",
    BAD_ASSIGNMENT: "Invalid agent or md5",
}


def decode(request: bytes) -> Any:
    """The request as JSON, None when it isn't any."""
    try:
        return json.loads(request)
    except ValueError:
        return None


def _failure(code: int) -> Answer:
    """``data`` is ``{}`` on errors (SOCKETS.md, 8)."""
    return {"error": code, "message": _REASONS[code], "data": {}}


def _success(data: Any, error: int = 0) -> Answer:
    return {"error": error, "message": "due" if error == DUE else "ok", "data": data}


def _answer_json(
    message: Any, name: str, sections: Mapping[str, Mapping[str, Any]], stats: Mapping[int, Any], page_rows: int
) -> Answer | None:
    """What remoted and analysisd answer alike (SOCKETS.md, 8); None for another command. A list of agents must be
    shorter than a page of ``all`` is long."""
    if not isinstance(message, dict):
        return _failure(BAD_JSON)
    command, parameters = message.get("command"), message.get("parameters")
    if not isinstance(command, str):
        return _failure(NO_COMMAND)
    if command == "getstats":
        return _success({"name": name, "metrics": {}})
    if command not in ("getconfig", "getagentsstats"):
        return None
    if not isinstance(parameters, dict):
        return _failure(NO_PARAMETERS)
    if command == "getagentsstats":
        return _page_of_stats(parameters, name, stats, page_rows)
    section = parameters.get("section")
    if not isinstance(section, str):
        return _failure(NO_SECTION)
    found = sections.get(section)
    return _failure(UNKNOWN_SECTION) if found is None else _success(dict(found))


def _page_of_stats(parameters: Mapping[str, Any], name: str, stats: Mapping[int, Any], page_rows: int) -> Answer:
    wanted, error = parameters.get("agents"), 0
    if wanted == "all":
        last_id = parameters.get("last_id")
        if not isinstance(last_id, int) or last_id < 0:
            return _failure(NO_LAST_ID)
        later = [number for number in sorted(stats) if number > last_id]
        wanted, error = later[:page_rows], DUE if len(later) > page_rows else 0
    elif not isinstance(wanted, list) or not all(isinstance(one, int) for one in wanted):
        return _failure(BAD_AGENTS)
    elif len(wanted) >= page_rows:
        return _failure(TOO_MANY)
    rows = [{"id": number, "metrics": stats[number]} for number in wanted if number in stats]
    return _success({"name": name, "agents": rows}, error) if rows else _failure(NONE_FOUND)


def _remoted_sections() -> dict[str, Mapping[str, Any]]:
    return {
        "remote": {"remote": [{"connection": "secure", "port": "1514"}]},
        "internal": {"internal": {"remoted": {}}},
        "global": {"global": {}},
    }


@define
class RemotedModel:
    """remoted's request socket: text requests for an agent (``<id> <component> <command> [<section>]``), JSON ones for
    itself (SOCKETS.md, 8; DAEMONS.md, "Replies": an unknown agent is closed without an answer).

    ``states`` is (agent id, component) -> state; ``configurations`` (agent id, component, section) -> configuration;
    ``sections`` remoted's own; ``stats`` agent number -> counters. ``page_rows`` is the length of a page of all agents'
    counters, and one more than a list may have. ``page_files``: files in one page of logcollector's state, as agents of
    4.9 and newer tell it; None for older ones, which tell it at once. ``rewritten``: so often the state is written anew
    between two of its pages.
    """

    states: dict[tuple[str, str], Mapping[str, Any]] = field(factory=dict)
    configurations: dict[tuple[str, str, str], Mapping[str, Any]] = field(factory=dict)
    stats: dict[int, Mapping[str, Any]] = field(factory=dict)
    sections: dict[str, Mapping[str, Any]] = field(factory=_remoted_sections)
    page_rows: int = 150
    page_files: int | None = None
    rewritten: int = 0
    _position: dict[str, int] = field(factory=dict, init=False)

    def __call__(self, request: bytes) -> Answer:
        if request.startswith(b"{"):
            message = decode(request)
            if (
                answer := _answer_json(message, "wazuh-remoted", self.sections, self.stats, self.page_rows)
            ) is not None:
                return answer
            return self._assign(message) if message["command"] == "assigngroup" else _failure(UNKNOWN_COMMAND)
        words = request.decode(errors="replace").split(" ")
        known = {key[0] for key in (*self.states, *self.configurations)}
        if len(words) < 2 or words[0] not in known:
            return Act.CLOSE
        match words[1:]:
            case [component, "getstate", *rest] if state := self.states.get((words[0], component)):
                if component == "logcollector" and self.page_files is not None:
                    return self._page_of_state(words[0], state, rest == ["next"], self.page_files)
                return {"error": 0, "data": dict(state)}
            case [_, "getstate", *_]:
                return {"error": 1, "message": "Unable to get the state", "data": {}}
            case [component, "getconfig", section] if found := self.configurations.get((words[0], component, section)):
                return f"ok {json.dumps(found)}"
            case _:
                return "err Could not get requested section"

    def _assign(self, message: Mapping[str, Any]) -> Answer:
        match message.get("parameters"):
            case {"agent": str(), "md5": str()}:
                return _success({})
            case _:
                return _failure(BAD_ASSIGNMENT)

    def _page_of_state(self, agent_id: str, state: Mapping[str, Any], following: bool, page_files: int) -> Answer:
        """``remaining`` and ``json_updated`` stand beside ``data`` (SOCKETS.md, 8)."""
        position = self._position.get(agent_id, 0) if following else 0
        updated = following and self.rewritten > 0
        if updated:
            self.rewritten -= 1
            position = 0
        files = {part: state.get(part, {}).get("files", []) for part in ("global", "interval")}
        end = position + page_files
        remaining = any(len(one) > end for one in files.values())
        self._position[agent_id] = end if remaining else 0
        data = {part: {**state.get(part, {}), "files": files[part][position:end]} for part in files}
        return {"error": 0, "remaining": remaining, "json_updated": updated, "data": data}


@define
class TaskManagerModel:
    """task-manager of the groups A to F (SOCKETS.md, 4): ``data`` is always an array. ``tasks`` is agent number ->
    task.

    It wants ``origin`` with ``name`` and ``module``, ``command`` and ``parameters``; it knows no ``status``, which the
    published example asks for.
    """

    tasks: dict[int, Mapping[str, Any]] = field(factory=dict)

    def __call__(self, request: bytes) -> Answer:
        match decode(request):
            case {"origin": {"name": str(), "module": str()}, "command": str(command), "parameters": dict(parameters)}:
                pass
            case _:
                return {"error": 1, "data": [], "message": "Invalid message"}
        if command not in (
            "upgrade",
            "upgrade_custom",
            "upgrade_get_status",
            "upgrade_update_status",
            "upgrade_result",
            "upgrade_cancel_tasks",
        ):
            return {"error": 2, "data": [], "message": "Invalid command"}
        numbers = parameters.get("agents", [])
        if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
            return {"error": 5, "data": [], "message": "Error parsing the agents"}
        data: list[Any] = []
        for number in numbers:
            if number in self.tasks:
                data.append({"error": 0, "message": "Success", "agent": number, **self.tasks[number]})
            else:
                data.append({"error": 3, "message": "No task in DB", "agent": number})
        return {"error": 0, "data": data, "message": "Success"}


@define
class ComponentModel:
    """The request socket of a daemon that tells of itself. ``name`` is what it calls itself.

    ``takes="json"`` is analysisd (SOCKETS.md, 8: as remoted's own requests, with pages of 75 agents); ``takes="text"``
    are execd's, monitor's, wmodules', authd's and their kin (SOCKETS.md, 7: ``getconfig <section>``, answered with
    ``ok <json>`` or ``err <text>``), which understand no JSON. ``commands`` is what else it answers: a text request as
    a whole (execd's ``reload``, ``check-manager-configuration``), or a command in JSON (``reload-ruleset``).
    """

    name: str = "wazuh-analysisd"
    configurations: dict[str, Mapping[str, Any]] = field(factory=dict)
    stats: dict[int, Mapping[str, Any]] = field(factory=dict)
    page_rows: int = 75
    takes: Literal["json", "text"] = "json"
    commands: dict[str, Answer] = field(factory=dict)

    def __call__(self, request: bytes) -> Answer:
        if self.takes == "json":
            message = decode(request)
            command = message.get("command") if isinstance(message, dict) else None
            if isinstance(command, str) and command in self.commands:
                return self.commands[command]
            answer = _answer_json(message, self.name, self.configurations, self.stats, self.page_rows)
            return _failure(UNKNOWN_COMMAND) if answer is None else answer
        if (other := self.commands.get(request.decode(errors="replace"))) is not None:
            return other
        command, _, section = request.decode(errors="replace").partition(" ")
        if command != "getconfig":
            return "err Unrecognized command"
        found = self.configurations.get(section)
        return "err Could not get requested section" if found is None else f"ok {json.dumps(found)}"
