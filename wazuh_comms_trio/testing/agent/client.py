"""An agent, as the daemon sees one: single requests to try things with, and the whole program with its three loops.

    client = AgentClient(connect_tcp("127.0.0.1", 27000), uuid=uuid, key=key)
    await client.authenticate()
    reply = await client.post_stateless([stateless_event("logcollector", "file", {"event": {"original": "hello"}})])

It behaves like a real agent: a new connection for every request, no keep-alive, the same headers, an end without
close_notify. It runs over TCP or over any other stream (``MemoryListener.connect``), and on any clock of trio's. The
program is ``testing.agent.program.AgentProgram``.
"""

from __future__ import annotations

import json
import ssl
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from wazuh_comms_trio.testing.agent.connection import Connect, Verification, agent_tls, close_as_agent, open_tls
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply, exchange, in_chunks, request_head

__all__ = ["AgentClient", "enroll", "metadata_line", "stateful_event", "stateless_event", "token_expiry"]

USER_AGENT: Final = "WazuhXDR/v6.0.0 (Endpoint; x86_64; Linux)"
#: An agent gives up on GET commands after 11 to 15 minutes, on anything else after 60 s.
POLL_TIMEOUT: Final = 13 * 60.0
REQUEST_TIMEOUT: Final = 60.0


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def compact(value: object) -> bytes:
    return _encode(value).encode()


def stateless_event(module: str, collector: str, data: Mapping[str, Any]) -> bytes:
    """The two lines of one stateless event."""
    return compact({"module": module, "collector": collector}) + b"\n" + compact(data) + b"\n"


def stateful_event(
    id: str, module: str, operation: str, data: Mapping[str, Any] | None = None, *, collector: str | None = None
) -> bytes:
    """The lines of one stateful event. As agents do it, the data line is left out whenever the data is ``{}``,
    whatever the operation."""
    header = {"id": id, "module": module, "collector": collector, "operation": operation}
    line = compact({name: value for name, value in header.items() if value is not None}) + b"\n"
    return line + compact(data) + b"\n" if data else line


def metadata_line(
    uuid: str, *, name: str = "agent", groups: Sequence[str] = (), version: str = "6.0.0", hostname: str = "host"
) -> bytes:
    """Line 1 of every body of events."""
    system = {"name": "Ubuntu", "type": "Linux", "version": "24.04"}
    host = {"architecture": "x86_64", "hostname": hostname, "ip": ["10.0.0.5"], "os": system}
    agent = {"id": uuid, "name": name, "type": "Endpoint", "version": version, "groups": list(groups), "host": host}
    return compact({"agent": agent}) + b"\n"


def token_expiry(token: str) -> int:
    """A token's ``exp``, read as agents do: without verifying the token. Raises ``ValueError`` when it isn't an
    integer.
    """
    payload = token.split(".")[1]
    expiry = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
    if type(expiry) is not int:
        raise ValueError(f"exp is {expiry!r}")
    return expiry


class AgentClient:
    """Makes one agent's requests, one connection each. Several tasks may use it at once.

    Every request returns a ``Reply``, whatever its status, or raises ``ExchangeFailed``. ``token`` is the last one that
    ``authenticate`` got; it may be set. ``chunked`` sends bodies in HTTP chunks, as agents built with other HTTP
    libraries do. Without ``tls`` it speaks in the clear, with a server that does.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        uuid: str,
        key: str,
        name: str = "agent",
        groups: Sequence[str] = (),
        host: str = "localhost",
        verification: Verification = "none",
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        chunked: bool = False,
        tls: bool = True,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.uuid = uuid
        self.key = key
        self.host = host
        self.chunked = chunked
        self.wall_clock = wall_clock
        self.token: str | None = None
        self._name = name
        self.set_groups(groups)
        self._connect = connect
        self._verification: Verification = verification
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = agent_tls(verification=verification, ca=ca, certificate=certificate)

    def __repr__(self) -> str:
        return f"<AgentClient {self.uuid}>"

    def set_groups(self, groups: Sequence[str]) -> None:
        """From now on the agent says that it is in these."""
        self.groups: Sequence[str] = tuple(groups)
        self.metadata: bytes = metadata_line(self.uuid, name=self._name, groups=groups)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
        authorised: bool = True,
        read_timeout: float = REQUEST_TIMEOUT,
    ) -> Reply:
        """One request on a connection of its own. ``path`` goes out unencoded; ``headers`` are added to the agent's."""
        all_headers = [("Host", self.host), ("User-Agent", USER_AGENT), ("Accept", "application/json")]
        if authorised and self.token is not None:
            all_headers.append(("Authorization", f"Bearer {self.token}"))
        pieces: Iterable[bytes] = ()
        if body is not None:
            all_headers.append(("Content-Type", "application/json"))
            if self.chunked:
                all_headers.append(("Transfer-Encoding", "chunked"))
                pieces = in_chunks(body)
            else:
                all_headers.append(("Content-Length", str(len(body))))
                pieces = (body,)
        head = request_head(method, path, [*all_headers, *headers])
        stream = await self._open()
        try:
            return await exchange(stream, head, pieces, write_timeout=REQUEST_TIMEOUT, read_timeout=read_timeout)
        finally:
            await close_as_agent(stream)

    async def _open(self) -> trio.abc.Stream:
        if self._tls is not None:
            return await open_tls(self._connect, self._tls, host=self.host, verification=self._verification)
        try:
            return await self._connect()
        except OSError as error:
            raise ExchangeFailed(f"no connection: {error}") from error

    # --- the endpoints ------------------------------------------------------------------------------------------------

    async def alive(self) -> Reply:
        return await self.request("GET", "/api/v1/", authorised=False)

    async def authenticate(self) -> Reply:
        """On success ``token`` is the new one. Another reply, too, is returned; what is wrong with it is the caller's
        to see.
        """
        body = compact({"uuid": self.uuid, "key": self.key})
        reply = await self.request("POST", "/api/v1/authentication", body, authorised=False)
        if reply.status == 200:
            self.token = str(reply.json()["token"])
        return reply

    async def post_stateless(self, events: Iterable[bytes]) -> Reply:
        """Events as ``stateless_event`` makes them; the metadata line comes before them."""
        return await self.request("POST", "/api/v1/events/stateless", self.metadata + b"".join(events))

    async def post_stateful(self, events: Iterable[bytes]) -> Reply:
        """Events as ``stateful_event`` makes them; the metadata line comes before them."""
        return await self.request("POST", "/api/v1/events/stateful", self.metadata + b"".join(events))

    async def poll(self) -> Reply:
        """GET commands: held open by the server until there are some."""
        return await self.request("GET", "/api/v1/commands", read_timeout=POLL_TIMEOUT)

    async def get_file(self, name: str) -> Reply:
        """``name`` goes out unencoded, as agents write it."""
        return await self.request("GET", f"/api/v1/files?file_name={name}")

    async def get_group_file(self, group: str) -> Reply:
        """What an agent asks for of each of its groups."""
        return await self.get_file(f"{group}.yml")

    async def scan(self, request: Mapping[str, Any]) -> Reply:
        return await self.request("POST", "/api/v1/vulnerability/scan", compact(request))

    async def report(self, document_id: str, code: int, message: str = "") -> Reply:
        """What became of a command: 0 success, 1 failure, 2 in progress, 3 timeout, 4 unknown."""
        return await self.post_stateful([command_report(document_id, code, message)])


def command_report(document_id: str, code: int, message: str = "") -> bytes:
    """The stateful event that reports a command's outcome."""
    return stateful_event(document_id, "command", "update", {"command": {"result": {"code": code, "message": message}}})


async def enroll(
    connect: Connect,
    *,
    user: str,
    password: str,
    uuid: str,
    key: str,
    name: str = "agent",
    host: str = "localhost",
    groups: Sequence[str] = (),
    ca: Path | None = None,
    verification: Verification = "none",
) -> Reply:
    """The two calls of an agent that joins; the first one's reply when that one failed. ``connect`` leads to the
    enrolment port.
    """
    context = agent_tls(verification=verification, ca=ca)

    async def call(path: str, authorization: str, body: bytes) -> Reply:
        headers = [("Host", host), ("User-Agent", USER_AGENT), ("Accept", "application/json")]
        headers += [("Authorization", authorization), ("Content-Type", "application/json")]
        headers += [("Content-Length", str(len(body)))]
        stream = await open_tls(connect, context, host=host, verification=verification)
        try:
            return await exchange(stream, request_head("POST", path, headers), (body,) if body else ())
        finally:
            await close_as_agent(stream)

    basic = b64encode(f"{user}:{password}".encode()).decode()
    reply = await call("/security/user/authenticate", f"Basic {basic}", b"")
    if reply.status != 200:
        return reply
    token = reply.json()["data"]["token"]
    agent = json.loads(metadata_line(uuid, name=name, groups=groups))["agent"]
    agent = {field: agent[field] for field in ("id", "name", "type", "version")} | {"key": key, "host": agent["host"]}
    return await call("/agents", f"Bearer {token}", compact(agent))
