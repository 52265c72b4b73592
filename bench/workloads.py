"""What agents ask for, as bytes, and what each may cost: PERFORMANCE's table of targets, in multiples of the floor."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from bench.processes import Payload

AGENT_HEADERS = (
    "Host: localhost\r\nUser-Agent: WazuhXDR/v6.0.0 (Endpoint; x86_64; Linux)\r\nAccept: application/json\r\n"
)
FILE_BYTES = 64 * 1024
PACKAGE_FIELDS = (
    "architecture checksum description format groups item_id multiarch name priority scan_time source vendor version"
)


@dataclass(frozen=True)
class Agent:
    uuid: str
    key: str
    token: str = ""


@dataclass(frozen=True)
class Workload:
    """``make(agents, n)`` makes n requests. ``first`` and ``goal``: multiples of the floor; with ``pbkdf2`` one hash is
    added to both.
    """

    name: str
    status: int
    first: float
    goal: float
    make: Callable[[Sequence[Agent], int], list[Payload]]
    requests: int  # of one round
    pbkdf2: bool = False


def request(method: str, path: str, token: str = "", body: bytes | None = None) -> Payload:
    lines = f"{method} {path} HTTP/1.1\r\n{AGENT_HEADERS}"
    if token:
        lines += f"Authorization: Bearer {token}\r\n"
    if body is not None:
        lines += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{lines}\r\n".encode(), body or b""


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def metadata(agent: Agent) -> bytes:
    system = {"name": "Ubuntu", "type": "Linux", "version": "24.04"}
    host = {"architecture": "x86_64", "hostname": "h1", "ip": ["10.0.0.5"], "os": system}
    described = {"id": agent.uuid, "name": "a1", "type": "Endpoint", "version": "6.0.0", "groups": [], "host": host}
    return compact({"agent": described}) + b"\n"


def root(agents: Sequence[Agent], n: int) -> list[Payload]:
    return [request("GET", "/api/v1/")] * n


def stateless(size: int) -> Callable[[Sequence[Agent], int], list[Payload]]:
    """Bodies of about ``size`` bytes in events of about 500."""
    header = compact({"module": "logcollector", "collector": "file"}) + b"\n"

    def make(agents: Sequence[Agent], n: int) -> list[Payload]:
        payloads = []
        for number in range(n):
            agent = agents[number % len(agents)]
            body = metadata(agent)
            while len(body) < size:
                text = "x" * min(430, max(1, size - len(body) - 100))
                body += header + compact({"event": {"original": text}}) + b"\n"
            payloads.append(request("POST", "/api/v1/events/stateless", agent.token, body))
        return payloads

    return make


_ids = count()


def stateful(events: int) -> Callable[[Sequence[Agent], int], list[Payload]]:
    """Every event creates a document of its own, of about 250 bytes."""

    def make(agents: Sequence[Agent], n: int) -> list[Payload]:
        payloads = []
        for number in range(n):
            agent = agents[number % len(agents)]
            lines = [metadata(agent)]
            for _ in range(events):
                id = f"{next(_ids):040x}"
                header = {"id": id, "module": "inventory", "collector": "packages", "operation": "create"}
                package = {"name": "zlib1g", "version": "1:1.3.dfsg-3.1ubuntu2", "architecture": "amd64"}
                more = {"description": "compression library - runtime", "size": 163840, "type": "deb"}
                data = {"@timestamp": "2025-03-11T19:12:36.629Z", "package": package | more}
                lines += [compact(header) + b"\n", compact(data) + b"\n"]
            payloads.append(request("POST", "/api/v1/events/stateful", agent.token, b"".join(lines)))
        return payloads

    return make


class FirstLogins:
    """Every request is another agent's first."""

    def __init__(self) -> None:
        self._used = 0

    def __call__(self, agents: Sequence[Agent], n: int) -> list[Payload]:
        fresh = agents[self._used : self._used + n]
        assert len(fresh) == n, "more agents have to be enrolled"
        self._used += n
        return [log_in(agent) for agent in fresh]


def log_in(agent: Agent) -> Payload:
    return request("POST", "/api/v1/authentication", body=compact({"uuid": agent.uuid, "key": agent.key}))


def logins(agents: Sequence[Agent], n: int) -> list[Payload]:
    return [log_in(agents[number % len(agents)]) for number in range(n)]


def files(agents: Sequence[Agent], n: int) -> list[Payload]:
    path = "/api/v1/files?file_name=default.conf"
    return [request("GET", path, agents[number % len(agents)].token) for number in range(n)]


def scans(agents: Sequence[Agent], n: int) -> list[Payload]:
    package = dict.fromkeys(PACKAGE_FIELDS.split(), "x")
    body = compact({"type": "packagelist", "agent": {"id": "a"}, "packages": [package | {"size": 1}], "hotfixes": []})
    path = "/api/v1/vulnerability/scan"
    return [request("POST", path, agents[number % len(agents)].token, body) for number in range(n)]


def polls(agents: Sequence[Agent], n: int) -> list[Payload]:
    return [request("GET", "/api/v1/commands", agents[number % len(agents)].token) for number in range(n)]


WORKLOADS = (
    Workload("GET /api/v1/", 200, 3.5, 1.8, root, 1000),
    Workload("stateless 1 kB", 204, 4.5, 2.0, stateless(1000), 800),
    Workload("stateless 100 kB", 204, 4.5, 1.7, stateless(100_000), 500),
    Workload("stateful 1 event", 200, 4.5, 2.3, stateful(1), 600),
    Workload("stateful 10 events", 200, 5.0, 2.5, stateful(10), 500),
    Workload("stateful 100 events", 200, 6.0, 3.0, stateful(100), 300),
    Workload("stateful 1000 events", 200, 12.0, 6.0, stateful(1000), 80),
    Workload("authentication, first", 200, 4.5, 2.5, FirstLogins(), 100, pbkdf2=True),
    Workload("authentication, again", 200, 4.5, 2.5, logins, 600),
    Workload("files 64 kB", 200, 4.5, 2.5, files, 600),
    Workload("vulnerability scan", 200, 4.5, 2.5, scans, 600),
)
