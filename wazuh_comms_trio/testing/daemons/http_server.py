"""Fake HTTP daemons on Unix sockets: ``open_fake_http``.

    async with open_fake_http("wdb-http", WazuhDBHTTPModel(), release="5.0.0", home=tmp_path) as daemon:
        ...

Connections, the backlog and most oddities are those of the framed fakes. HTTP is read here by hand: a mistake in the
client's library must not hide behind itself.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio
from attrs import evolve, field, frozen

from wazuh_comms_trio.testing.daemons.conduct import HEALTHY, Act, Conduct, Oddities
from wazuh_comms_trio.testing.daemons.releases import place_of
from wazuh_comms_trio.testing.daemons.server import FakeDaemon, run_fake
from wazuh_comms_trio.testing.daemons.sockets import StrPath
from wazuh_comms_trio.transport.releases.release import release_of

_REASONS: Final = (
    {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict"}
    | {411: "Length Required", 413: "Payload Too Large", 414: "URI Too Long", 431: "Request Header Fields Too Large"}
    | {500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout"}
)
# What 5.0's own server holds of all bodies together: the limit of routes for data.
_DATA_BYTES: Final = 256 * 1024 * 1024


@frozen
class FakeRequest:
    """A request as it came. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@frozen
class FakeReply:
    """An answer. ``body`` may be JSON's values, text or bytes."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(factory=dict)

    @property
    def content(self) -> bytes:
        """The body's bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


#: What a request is answered with: a reply, or an ``Act``.
HTTPCallback: TypeAlias = "Callable[[FakeRequest], FakeReply | Act]"


@frozen(kw_only=True)
class HTTPConduct:
    """How a server treats requests. ``keep_alive``: of one connection it takes many. ``strict``: it is 5.0's own
    server, which wants Content-Length, and limits a head to 32 lines, a target to 2048 bytes, a body to ``body_limit``.
    ``chunked``: its answers are."""

    keep_alive: bool = True
    strict: bool = False
    chunked: bool = False
    body_limit: int = 64 * 1024


class FakeHTTPDaemon(FakeDaemon):
    """A running fake. Made by ``open_fake_http``. ``calls`` is every request that was understood, in order;
    ``requests`` their bytes; otherwise as ``FakeDaemon``."""

    def __init__(self, name: str, answer: HTTPCallback, http: HTTPConduct, oddities: Oddities) -> None:
        # HTTP has no frames: what the framed fakes do with them is overridden below.
        super().__init__(name, lambda request: b"", Conduct(one_shot=not http.keep_alive, threads=64), oddities)
        self.http = http
        self.calls: list[FakeRequest] = []
        self.respond = answer
        self._rest: dict[trio.abc.Stream, bytes] = {}
        self._closing = False

    async def _receive(self, stream: trio.abc.Stream) -> bytes | None:
        """One request's bytes: its head, and as much of a body as it announces."""
        data = self._rest.pop(stream, b"")
        while b"\r\n\r\n" not in data:
            if not (more := bytes(await stream.receive_some())):
                return None
            data += more
        head, rest = data.split(b"\r\n\r\n", 1)
        length = _length_of(head)
        while len(rest) < length:
            if not (more := bytes(await stream.receive_some())):
                return None
            rest += more
        self._rest[stream] = rest[length:]
        return head + b"\r\n\r\n" + rest[:length]

    async def _call(self, request: bytes) -> Any:
        refused = self._refusal(request)
        answer: FakeReply | Act
        if refused is not None:
            answer = refused
        else:
            head, body = request.split(b"\r\n\r\n", 1)
            method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            call = FakeRequest(method, target, _headers(head), body)
            self.calls.append(call)
            answer = self.respond(call)
        if self.oddities.answer_delay:
            await trio.sleep(self.oddities.answer_delay)
        return Act.CLOSE if self.oddities.close_without_answer else answer

    def _refusal(self, request: bytes) -> FakeReply | None:
        head, body = request.split(b"\r\n\r\n", 1)
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return FakeReply(400, "Bad Request")
        if not self.http.strict:
            return None
        headers = _headers(head)
        if "transfer-encoding" in headers or (words[0] == b"POST" and "content-length" not in headers):
            return FakeReply(411, "Length Required")
        if len(words[1]) > 2048:
            return FakeReply(414, "URI Too Long")
        names = ((len(name), len(value)) for name, value in headers.items())
        if head.count(b"\r\n") > 32 or any(name > 256 or value > 8192 for name, value in names):
            return FakeReply(431, "Request Header Fields Too Large")
        return FakeReply(413, "Payload Too Large") if len(body) > self.http.body_limit else None

    async def _send(self, stream: trio.abc.Stream, answer: Any, streamed: bool) -> bool:
        if isinstance(answer, Act):
            return await super()._send(stream, answer, streamed)
        data = self._encode(answer)
        await self._send_pieces(stream, data if self.oddities.cut_after is None else data[: self.oddities.cut_after])
        return self.oddities.cut_after is None

    def _encode(self, reply: FakeReply) -> bytes:
        content = reply.content
        lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if self.http.chunked:
            lines.append("Transfer-Encoding: chunked")
            halves = [part for part in (content[: len(content) // 2], content[len(content) // 2 :]) if part]
            content = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in halves) + b"0\r\n\r\n"
        else:
            lines.append(f"Content-Length: {len(content)}")
        if not self.http.keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + content


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _length_of(head: bytes) -> int:
    length = _headers(head).get("content-length", "0")
    return int(length) if length.isdigit() else 0


@asynccontextmanager
async def open_fake_http(
    name: str,
    answer: HTTPCallback,
    *,
    release: str = "5.0.0",
    home: StrPath | None = None,
    path: StrPath | None = None,
    conduct: HTTPConduct | None = None,
    oddities: Oddities = HEALTHY,
) -> AsyncIterator[FakeHTTPDaemon]:
    """Run a fake HTTP daemon for the length of the block: ``wdb-http``, ``engine``, ``vulnerability-detector``,
    ``inventory-sync``, ``remoted-admin`` or one of your own.

    ``release`` decides where under ``home`` the socket is and how it treats its connections: 5.0.0's own server answers
    one request and closes, the library of those before keeps connections. With ``path`` it is exactly there, with
    neither the daemon is in memory. What a callback raises comes out of the block, in a group.
    """
    group = release_of(release).group
    own_server = group == "G" and name not in ("engine", "engine-events")
    if conduct is None:
        conduct = HTTPConduct(keep_alive=False, strict=True) if own_server else HTTPConduct()
        if name == "inventory-sync":
            conduct = evolve(conduct, body_limit=_DATA_BYTES)
    daemon = FakeHTTPDaemon(name, answer, conduct, oddities)
    if path is not None:
        daemon.path = Path(path)
    elif home is not None:
        daemon.path = Path(home) / place_of(name, group)
    async with run_fake(daemon) as running:
        yield running
