"""What the HTTP daemons of each release answer: callbacks for ``open_fake_http``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field

from wazuh_comms_trio.testing.daemons.http_server import FakeReply, FakeRequest
from wazuh_comms_trio.transport.releases.release import release_of

_MISSING: Final = FakeReply(404, "Not Found")
# 5.0.0's routes and their methods.
_ALLOWED: Final = {
    "/v1/agents/groups": "GET",
    "/v1/agents/all": "GET",
    "/v1/agents/sync": "GET, POST",
    "/v1/agents/summary": "POST",
}
# How many of each kind a summary of all agents counts.
_TOP: Final = 5
_SCAN_BYTES: Final = 4096


def _without_empty(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value not in ("", " ", None, [], {})}


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:_TOP])


@define
class WazuhDBHTTPModel:
    """wazuh-db over HTTP. ``agents`` is number -> row, with ``connection_status``, ``version``, ``os_name``; ``groups``
    number -> names by priority; ``unsynced`` what the next ``GET /v1/agents/sync`` tells, once. Empty members are left
    out, as in the real answers.
    """

    release: str = "5.0.0"
    agents: dict[int, dict[str, Any]] = field(factory=dict)
    groups: dict[int, list[str]] = field(factory=dict)
    unsynced: dict[str, list[Any]] = field(factory=dict)
    received: list[Any] = field(factory=list)

    def __call__(self, request: FakeRequest) -> FakeReply:
        new = release_of(self.release).group == "G"
        try:
            return self._answer(request, new)
        except (ValueError, AttributeError):
            return FakeReply(500, "Internal server error" if new else "")

    def _answer(self, request: FakeRequest, new: bool) -> FakeReply:
        match (request.method, request.target):
            case ("GET", "/v1/agents/sync"):
                told, self.unsynced = _without_empty(self.unsynced), {}
                return FakeReply(200, told)
            case ("POST", "/v1/agents/sync"):
                self.received.append(json.loads(request.body))
                return FakeReply(200)
            case ("POST", "/v1/agents/summary"):
                return self._summary(request.body)
            case _:
                return self._of_5(request) if new else self._of_4(request)

    def _of_5(self, request: FakeRequest) -> FakeReply:
        match (request.method, request.target):
            case ("GET", "/v1/agents/groups"):
                agent = request.headers.get("x-wazuh-agent-id")
                if agent is None:
                    return FakeReply(400, "Missing X-Wazuh-Agent-Id header")
                return FakeReply(200, self.groups.get(int(agent), [])) if agent.isdigit() else FakeReply(500, "stoi")
            case ("GET", "/v1/agents/all"):
                return FakeReply(200, [_without_empty({"id": one, **row}) for one, row in self.agents.items()])
            case (_, target) if target in _ALLOWED:
                return FakeReply(405, "Method Not Allowed", {"Allow": _ALLOWED[target]})
            case _:
                return _MISSING

    def _of_4(self, request: FakeRequest) -> FakeReply:
        if request.method == "POST" and request.target == "/v1/agents/restartinfo":
            return self._restart_info(json.loads(request.body or b"{}"))
        if request.method != "GET":
            return FakeReply(404)
        if request.target == "/v1/agents/ids":
            return FakeReply(200, [number for number in self.agents if number])
        if request.target == "/v1/agents/ids/groups":
            found = {str(number): names for number, names in self.groups.items() if names}
            return FakeReply(200, _without_empty({"data": found}))
        if match := re.fullmatch(r"/v1/agents/ids/groups/(.+)", request.target):
            return FakeReply(200, [number for number, names in self.groups.items() if match[1] in names])
        if match := re.fullmatch(r"/v1/agents/([^/]+)/groups", request.target):
            return FakeReply(200, self.groups.get(int(match[1]), [])) if match[1].isdigit() else FakeReply(500)
        return FakeReply(404)

    def _summary(self, body: bytes) -> FakeReply:
        # The numbers are scanned, not parsed: any text with digits is taken; only an empty body means all.
        wanted = list(self.agents) if not body else [int(number) for number in re.findall(rb"\d+", body)]
        rows = {number: self.agents[number] for number in wanted if number in self.agents}
        counts: dict[str, dict[str, int]] = {"agents_by_status": {}, "agents_by_os": {}, "agents_by_groups": {}}
        for number, row in rows.items():
            names: dict[str, list[Any]] = {
                "agents_by_status": [row.get("connection_status")],
                "agents_by_os": [row.get("os_name")],
                "agents_by_groups": self.groups.get(number, []),
            }
            for part, found in names.items():
                for name in (one for one in found if one):
                    counts[part][name] = counts[part].get(name, 0) + 1
        if not body:
            counts = {part: _most(found) for part, found in counts.items()}
        return FakeReply(200, _without_empty(counts))

    def _restart_info(self, wanted: Mapping[str, Any]) -> FakeReply:
        ids, negate = wanted.get("ids") or [], wanted.get("negate", False)
        items = [
            {"id": number, "version": row.get("version", "")}
            for number, row in self.agents.items()
            if row.get("connection_status") == "active" and (not ids or (number in ids) is not negate)
        ]
        return FakeReply(200, {"items": items})


@define
class EngineModel:
    """The engine's API, and its socket for events (``engine-events``), whose ``batches`` are ``H`` and ``E`` lines of
    ``limit`` bytes at most. ``release`` decides whether there is a status. ``routes`` is what other routes of its API
    answer, target -> JSON; without any they are 404."""

    release: str = "5.0.0"
    metrics: dict[str, Any] = field(factory=dict)
    ready: bool = True
    batches: list[bytes] = field(factory=list)
    limit: int = 1024 * 1024
    routes: dict[str, Any] = field(factory=dict)

    def __call__(self, request: FakeRequest) -> FakeReply:
        match (request.method, request.target):
            case ("POST", "/metrics/dump"):
                return FakeReply(200, self.metrics)
            case ("POST", "/metrics/list"):
                return FakeReply(200, sorted(self.metrics))
            case ("POST", "/events/enriched"):
                return self._events(request.body)
            case ("GET", "/status") if release_of(self.release).at_least("5.0.0-beta3"):
                return FakeReply(200, {"ready": self.ready, "spaces": {}, "ioc": {}, "geo": {}})
            case ("POST", target) if target in self.routes:
                return FakeReply(200, self.routes[target])
            case _:
                return FakeReply(404)

    def _events(self, batch: bytes) -> FakeReply:
        if len(batch) > self.limit:
            return FakeReply(413, "too large")
        kinds = [line[:2] for line in batch.splitlines()]
        if not kinds or kinds[0] != b"H " or any(kind not in (b"H ", b"E ") for kind in kinds):
            return FakeReply(400, {"error": "invalid batch", "code": 400})
        self.batches.append(batch)
        return FakeReply(200)


@define
class ScannerModel:
    """The vulnerability detector. ``refusal`` is the word of a 503 that a scan gets, None for a queued one."""

    release: str = "5.0.0"
    offset: int = 0
    refusal: str | None = None
    topics: set[str] = field(factory=lambda: {"feed"})
    running: bool = False
    scans: list[str] = field(factory=list)

    def __call__(self, request: FakeRequest) -> FakeReply:
        status = {"available": True, "status": "ready", "enabled": True, "offset": self.offset}
        if (request.method, request.target) == ("GET", "/vulnerability-detector/status"):
            return FakeReply(200, status | {"last_successful_update": None})
        if release_of(self.release).group != "G":
            return FakeReply(404)
        match (request.method, request.target):
            case ("GET", "/"):
                return FakeReply(200, {"status": "ok"})
            case ("GET", "/vulnerability-detector/offset"):
                return FakeReply(200, {"offset": self.offset})
            case ("POST", "/vulnerability-detector/scan"):
                return self._scan(request.body)
            case ("POST", "/ondemand"):
                return self._update(request.body)
            case _:
                return _MISSING

    def _scan(self, body: bytes) -> FakeReply:
        if len(body) > _SCAN_BYTES:
            return FakeReply(413, "Payload Too Large")
        try:
            agent = json.loads(body).get("agent_id")
        except (ValueError, AttributeError):
            return FakeReply(500, {"error": "internal_error", "retryable": False})
        if agent is None:
            return FakeReply(400, {"error": "missing_required_fields", "retryable": False})
        if not isinstance(agent, str) or not agent.isdigit():
            return FakeReply(400, {"error": "invalid_agent_id", "retryable": False})
        if self.refusal is not None:
            return FakeReply(503, {"error": self.refusal, "retryable": self.refusal != "vd_not_initialized"})
        self.scans.append(agent)
        return FakeReply(200, {})

    def _update(self, body: bytes) -> FakeReply:
        try:
            message = json.loads(body)
            topic = message.get("topic")
        except (ValueError, AttributeError):
            return FakeReply(500, {"error": "internal_error", "retryable": False})
        if topic not in self.topics:
            return FakeReply(404, {"error": "unknown_topic"})
        if self.running:
            return FakeReply(409, {"error": "running"})
        self.offset = self.offset if message.get("offset") is None else 0
        return FakeReply(200)


@define
class InventoryModel:
    """Inventory sync. ``conflict`` is the body of a 409 that a stateful message gets, ``loading`` the seconds after
    which a feed that is loading lets itself be asked again."""

    conflict: Mapping[str, Any] | None = None
    loading: int | None = None
    messages: list[tuple[str, bytes]] = field(factory=list)
    deleted: list[str] = field(factory=list)

    def __call__(self, request: FakeRequest) -> FakeReply:
        match (request.method, request.target):
            case ("GET", "/"):
                return FakeReply(200, {"status": "ok"})
            case ("GET", "/metrics"):
                return FakeReply(200, {"messages": len(self.messages)})
            case ("POST", "/stateful" | "/agents/delete" | "/stats" | "/config") | ("DELETE", "/agents"):
                return self._of_agent(request, request.headers.get("x-wazuh-agent-id", ""))
            case _:
                return _MISSING

    def _of_agent(self, request: FakeRequest, agent: str) -> FakeReply:
        if not agent.isdigit():
            return FakeReply(400, {"error": "Invalid agent id", "code": 400})
        if self.loading is not None:
            return FakeReply(503, {"error": "feed loading", "code": 503}, {"Retry-After": str(self.loading)})
        if request.target == "/stateful":
            if self.conflict is not None:
                return FakeReply(409, dict(self.conflict))
            known = (agent, request.body) in self.messages
            self.messages.append((agent, request.body))
            return FakeReply(200, {"status": "ok", "noop": True} if known else {"status": "ok"})
        if request.target in ("/agents/delete", "/agents"):
            self.deleted.append(agent)
        return FakeReply(200, {"status": "ok"})


@define
class RemotedAdminModel:
    """remoted's admin socket."""

    metrics: list[dict[str, Any]] = field(factory=list)

    def __call__(self, request: FakeRequest) -> FakeReply:
        match (request.method, request.target):
            case ("GET", "/"):
                return FakeReply(200, {"status": "ok", "module": "remoted_module"})
            case ("GET", "/metrics"):
                return FakeReply(200, {"name": "remoted", "timestamp": 0, "metrics": self.metrics})
            case _:
                return _MISSING
