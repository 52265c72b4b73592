"""Models of 5.0's daemons: the task-manager of 5.0.0, keystore, control, and what remoted, authd and wazuh-db do there
that they didn't do before. Callbacks for ``open_fake_daemon``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from attrs import define, field

from wazuh_comms_trio.testing.daemons.authd import AuthdModel
from wazuh_comms_trio.testing.daemons.conduct import Act, Answer
from wazuh_comms_trio.testing.daemons.models import BAD_ASSIGNMENT, RemotedModel, decode
from wazuh_comms_trio.testing.daemons.wazuh_db import WazuhDBModel
from wazuh_comms_trio.transport.releases.release import release_of

#: 5.0.0's number for what was 12.
BAD_ASSIGNMENT_5: Final = 8
_YEAR: Final = 31536000
_TASK_TYPES: Final = ("active_response", "remote_upgrade", "agent_restart", "agent_reload")
_BAD_NAME: Final = re.compile(r"[\x00-\x20\x7f]|\A[#!]|\A\Z")


@define
class AgentTasksModel:
    """The task-manager of 5.0.0. ``tasks`` is task id -> task, with ``agent_id``, ``task_type``, ``payload`` and
    ``delivered``; ``now`` the moment in seconds of the epoch that ``create_time`` is compared with, None the real one.
    Its refusals are words; what it hands out it marks as delivered, even if the answer is lost.
    """

    now: float | None = None
    tasks: dict[str, dict[str, Any]] = field(factory=dict)

    def __call__(self, request: bytes) -> Answer:
        message = decode(request)
        if not isinstance(message, dict):
            return {"error": "invalid_json"}
        match message.get("action"):
            case "create_task":
                return self._create(message)
            case "get_pending_tasks" if isinstance(message.get("agent_id"), str):
                return self._pending(message["agent_id"])
            case action:
                return {"error": "parsing_error", "message": f"Unknown action: {action}"}

    def _create(self, message: Mapping[str, Any]) -> Answer:
        agent, kind, created = message.get("agent_id"), message.get("task_type"), message.get("create_time")
        if not isinstance(agent, str) or kind not in _TASK_TYPES or "payload" not in message:
            return {"error": "parsing_error", "message": "Missing or invalid field"}
        now = time.time() if self.now is None else self.now
        if not isinstance(created, int) or not now - _YEAR <= created <= now + 60:
            return {"error": "parsing_error", "message": "Invalid create_time"}
        source = message.get("source_id")
        key = ":".join([source if isinstance(source, str) else "", agent, kind, str(created)])
        task_id = sha256(key.encode()).hexdigest()
        task = {"agent_id": agent, "task_type": kind, "payload": message["payload"], "delivered": False}
        self.tasks.setdefault(task_id, task)
        return {"status": "ok", "task_id": task_id}

    def _pending(self, agent: str) -> Answer:
        found: list[dict[str, Any]] = []
        for task_id, task in self.tasks.items():
            if task["agent_id"] == agent and not task["delivered"] and len(found) < 100:
                task["delivered"] = True
                found.append({"task_id": task_id, "task_type": task["task_type"], "payload": task["payload"]})
        return {"status": "ok", "tasks": found}


@define
class KeystoreModel:
    """keystore: ``GET|family|key``, ``PUT|family|key|value``, ``DELETE|family|key``. A value that is missing or empty
    reads as ``wazuh-manager``; whether one was there isn't told."""

    values: dict[tuple[str, str], str] = field(factory=dict)

    def __call__(self, request: bytes) -> Answer:
        words = request.decode(errors="replace").split("|", 3)
        match words:
            case ["GET", family, key]:
                value = self.values.get((family, key)) or "wazuh-manager"
                return self._done("GET", family, key) | {"value": value}
            case ["PUT", family, key, value]:
                self.values[family, key] = value
                return self._done("PUT", family, key)
            case ["DELETE", family, key]:
                self.values.pop((family, key), None)
                return self._done("DELETE", family, key)
            case _:
                return {"status": "error", "message": "Invalid request format"}

    def _done(self, verb: str, family: str, key: str) -> dict[str, str]:
        return {"status": "ok", "operation": verb, "columnFamily": family, "key": key}


@define
class ControlModel:
    """The control socket, without frames. In 4.x any text is answered with this host's ``address`` (None: ``Err``);
    from 5.0.0-beta1 on it takes ``restart`` and ``reload``. ``stranger``: the caller is neither root nor the server's
    user, so 5.0.0 closes without an answer."""

    release: str = "5.0.0"
    address: str | None = "192.0.2.1"
    stranger: bool = False
    orders: list[str] = field(factory=list)

    def __call__(self, request: bytes) -> Answer:
        release = release_of(self.release)
        if not release.at_least("E"):
            return self.address or "Err"
        if release.group == "G" and self.stranger:
            return Act.CLOSE
        text = request.decode(errors="replace")
        if release.group == "G" and " " in text:
            return "err Invalid command"
        if text not in ("restart", "reload"):
            return b"Err\0"
        self.orders.append(text)
        return "ok accepted" if release.group == "G" else "ok "


@define
class UpgradeModel:
    """The upgrade socket of every release. ``tasks`` is agent number -> task id; 5.0.0 wants a ``request_time``."""

    release: str = "5.0.0"
    tasks: dict[int, int] = field(factory=dict)

    def __call__(self, request: bytes) -> Answer:
        message = decode(request)
        parameters = message.get("parameters") if isinstance(message, dict) else None
        if not isinstance(parameters, dict) or message.get("command") not in (
            "upgrade",
            "upgrade_custom",
            "upgrade_result",
        ):
            return {"error": 1, "data": [], "message": "Could not parse message JSON"}
        if not all(isinstance(one, int) for one in parameters.get("agents", [None])):
            return {"error": 2, "data": [], "message": "Required parameters in json message where not found"}
        rows: list[dict[str, Any]] = []
        for number in parameters["agents"]:
            if message["command"] == "upgrade_result":
                known = number in self.tasks
                rows.append({"agent": number, "error": 0 if known else 7, "message": "Success" if known else "No task"})
            elif number in self.tasks:
                rows.append({"agent": number, "error": 8, "message": "Upgrade procedure is already running"})
            else:
                self.tasks[number] = len(self.tasks) + 1
                rows.append({"agent": number, "error": 0, "message": "Success", "task_id": self.tasks[number]})
        return {"error": 0, "data": rows, "message": "Success"}


@define
class RemotedModel5(RemotedModel):
    """remoted's request socket from 5.0.0-beta1 on: ``<id> control restart`` and ``reload`` go to the ``sessions``,
    agents with a classic connection. 5.0.0 knows no ``getagentsstats``, and refuses every text unless ``legacy``."""

    release: str = "5.0.0-beta3"
    sessions: set[str] = field(factory=set)
    legacy: bool = True
    orders: list[tuple[str, str]] = field(factory=list)

    def __call__(self, request: bytes) -> Answer:
        message = decode(request)
        final = release_of(self.release).group == "G"
        if isinstance(message, dict):
            if final and message.get("command") == "getagentsstats":
                return {"error": 4, "message": "Unknown command", "data": {}}
            answer = super().__call__(request)
            if final and isinstance(answer, dict) and answer["error"] == BAD_ASSIGNMENT:
                answer["error"] = BAD_ASSIGNMENT_5
            return answer
        if final and not self.legacy:
            return "err Legacy delivery disabled"
        match request.decode(errors="replace").split(" "):
            case [agent, "control", ("restart" | "reload") as order] if agent in self.sessions:
                self.orders.append((agent, order))
                return "ok "
            case [agent, "control", _] if agent in {key[0] for key in self.states}:
                return "err Cannot send request"
            case _:
                return super().__call__(request)


@define
class AuthdModel5(AuthdModel):
    """authd of 5.0.0: nothing crashes it any more; a name that can't be stored is 9017. On a ``worker`` an agent is
    added through the master (``reachable``, else 9016), everything else is 9015."""

    reachable: bool = True

    def __call__(self, request: bytes) -> Answer:
        if not request.lstrip().startswith(b"{"):
            return super().__call__(request)
        message = decode(request)
        if not isinstance(message, dict):
            return {"error": 9002, "message": "Parsing JSON input"}
        function, arguments = message.get("function"), message.get("arguments")
        if function not in ("add", "remove", "get"):
            return {"error": 9003, "message": "No such function"}
        if not isinstance(arguments, dict):
            return {"error": 9004, "message": "No such argument"}
        for name, code in (("ip", 9006), ("groups", 9014), ("key", 9002), ("key_hash", 9002), ("id", 9010)):
            if arguments.get(name) is not None and not isinstance(arguments[name], str):
                return {"error": code, "message": f"Invalid {name}"}
        if self.worker:
            if function != "add" or {"id", "key"} & arguments.keys():
                return {"error": 9015, "message": "Manager is a worker node"}
            if not self.reachable:
                return {"error": 9016, "message": "Master node is unreachable"}
        named = arguments.get("name")
        if function == "add" and (not isinstance(named, str) or len(named) > 128 or _BAD_NAME.search(named)):
            return {"error": 9017, "message": "Invalid agent name"}
        given = {key: value for key, value in arguments.items() if value is not None}
        return super().__call__(json.dumps({"function": function, "arguments": given}).encode())

    def _sent_to_master(self) -> bool:
        return False  # what a worker does was decided before


@define
class WazuhDBModel5(WazuhDBModel):
    """wazuh-db from 5.0.0-beta1 on: no databases of agents, no labels, no names by id."""

    def __call__(self, request: bytes) -> Answer:
        text = request.decode(errors="replace").lstrip()
        actor, _, rest = text.partition(" ")
        if text.startswith("{"):
            return super().__call__(request)
        if actor not in ("global", "mitre", "task"):
            return f"err Invalid DB query actor: {actor}"
        if rest.split(" ", 1)[0] in ("get-labels", "set-labels"):
            return f"err Invalid DB query syntax, near '{rest[:32]}'"
        return super().__call__(request)
