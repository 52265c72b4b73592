"""What agents send, as bytes: a request is its head and its body. Pure."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Sequence
from typing import Any, Final

from wazuh_comms_trio.cli.fleet.mix import Mix

__all__ = ["Request", "RequestMaker", "enrolment", "session_request"]

Request = tuple[bytes, bytes]

_HEADERS: Final = "User-Agent: WazuhXDR/v6.0.0 (Endpoint; x86_64; Linux)\r\nAccept: application/json\r\n"
_HOST_FACTS: Final = {"architecture": "x86_64", "ip": ["10.0.0.5"]}
_SYSTEM: Final = {"name": "Ubuntu", "type": "Linux", "version": "24.04"}
_LOG_LINE: Final = (
    "Mar 11 19:12:36 web-1 sshd[2114]: Failed password for invalid user admin from 10.0.0.99 port 51344 ssh2"
)


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class RequestMaker:
    """Makes the requests of a whole fleet. ``host`` is the node's, as the header has it; ``run`` is in the ids of
    documents, so that one run doesn't go on with those of another."""

    def __init__(self, mix: Mix, host: str, run: str) -> None:
        self._mix = mix
        self._headers = f"Host: {host}\r\n{_HEADERS}"
        self._run = run
        self._stateless = _stateless_events(mix.stateless.bytes)

    def log_in(self, uuid: str, key: str) -> Request:
        return self._head("POST", "/api/v1/authentication", "", compact({"uuid": uuid, "key": key}))

    def stateless(self, token: str, metadata: bytes) -> Request:
        return self._head("POST", "/api/v1/events/stateless", token, metadata + self._stateless)

    def stateful(self, token: str, metadata: bytes, sent: int, timestamp: str) -> Request:
        """A stateful body; ``sent`` events were sent before: the agent's documents are made first, and then change in
        turn."""
        lines = [metadata]
        documents = self._mix.stateful.documents
        for number in range(sent, sent + self._mix.stateful.events):
            operation = "create" if number < documents else "update"
            lines.append(
                b'{"id":"%b-%x","module":"inventory","collector":"packages","operation":"%b"}\n'
                b'{"@timestamp":"%b","package":{"name":"package-%d","version":"1:1.3.dfsg-%d","architecture":"amd64",'
                b'"description":"one of the packages of a simulated agent","size":163840,"type":"deb"}}\n'
                % (
                    self._run.encode(),
                    number % documents,
                    operation.encode(),
                    timestamp.encode(),
                    number % documents,
                    number // documents,
                )
            )
        return self._head("POST", "/api/v1/events/stateful", token, b"".join(lines))

    def report(self, token: str, metadata: bytes, document_ids: Sequence[str]) -> Request:
        """A stateful body that reports each of these commands as a success."""
        lines = [metadata]
        for document_id in document_ids:
            header = {"id": document_id, "module": "command", "operation": "update"}
            data = {"command": {"result": {"code": 0, "message": "simulated"}}}
            lines.append(compact(header) + b"\n" + compact(data) + b"\n")
        return self._head("POST", "/api/v1/events/stateful", token, b"".join(lines))

    def poll(self, token: str) -> Request:
        return self._head("GET", "/api/v1/commands", token, b"")

    def file(self, token: str) -> Request:
        return self._head("GET", f"/api/v1/files?file_name={self._mix.files.name}", token, b"")

    def _head(self, method: str, path: str, token: str, body: bytes) -> Request:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if method == "POST" else ""
        return f"{method} {path} HTTP/1.1\r\n{self._headers}{authorization}{content}\r\n".encode("latin-1"), body


def metadata_line(uuid: str, name: str, hostname: str) -> bytes:
    """The first line of every body of events."""
    host = {**_HOST_FACTS, "hostname": hostname, "os": _SYSTEM}
    agent = {"id": uuid, "name": name, "type": "Endpoint", "version": "6.0.0", "groups": [], "host": host}
    return compact({"agent": agent}) + b"\n"


def _stateless_events(size: int) -> bytes:
    """Events of about 500 bytes, together about ``size``, at least one."""
    header = compact({"module": "logcollector", "collector": "file"}) + b"\n"

    def event(text: str) -> bytes:
        return header + compact({"event": {"original": text}}) + b"\n"

    events, rest = b"", size - len(metadata_line("0" * 36, "fleet-0000-00000", "fleet-0000-00000"))
    smallest = len(event(""))
    while rest - len(events) > 500 + smallest:
        events += event((_LOG_LINE * 5)[: 500 - smallest])
    left = max(1, rest - len(events) - smallest)
    return events + event((_LOG_LINE * (left // len(_LOG_LINE) + 1))[:left])


# --- enrolment ---


def session_request(host: str, user: str, password: str) -> Request:
    basic = b64encode(f"{user}:{password}".encode()).decode()
    return _management(host, "/security/user/authenticate", f"Basic {basic}", b"")


def enrolment(host: str, token: str, uuid: str, name: str, key: str) -> Request:
    described: dict[str, Any] = {"id": uuid, "name": name, "type": "Endpoint", "version": "6.0.0", "key": key}
    described["host"] = {**_HOST_FACTS, "hostname": name, "os": _SYSTEM}
    return _management(host, "/agents", f"Bearer {token}", compact(described))


def _management(host: str, path: str, authorization: str, body: bytes) -> Request:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{_HEADERS}Authorization: {authorization}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1"), body


def token_life(token: str, now: Callable[[], float]) -> float:
    """For how many seconds a token is good, as agents read it: without verifying it. Raises ``ValueError``."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]) - now()
    except (AttributeError, LookupError, TypeError) as error:  # not text, too
        raise ValueError(f"not a token: {error!r}") from None
