"""Requests that can't be served, whoever sends them, each with what it is answered (docs/api.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from wazuh_comms_trio.testing.agent.client import metadata_line

__all__ = ["Malformed", "malformed_requests"]

_NEST: Final = 3500
_JSON: Final = "Content-Type: application/json"


@frozen
class Malformed:
    """``data``: the whole request. ``statuses``: what its sender, whose token is good, is answered, one of these."""

    about: str
    data: bytes
    statuses: Sequence[int]

    @property
    def place(self) -> str:
        """Its method and route, as limits know it."""
        method, _, rest = self.data.partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        return f"{method.decode('latin-1')} {target.removeprefix(b'/api/v1/').decode('latin-1')}"


def malformed_requests(uuid: str, token: str) -> Sequence[Malformed]:
    """All there are, of an agent."""
    return list(_all_of(uuid, f"Authorization: Bearer {token}"))


def _request(about: str, line: str, headers: Sequence[str], body: bytes, *statuses: int) -> Malformed:
    lines = [f"{line} HTTP/1.1", "Host: x", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return Malformed(about, "\r\n".join([*lines, "", ""]).encode("latin-1") + body, statuses)


def _all_of(uuid: str, token: str) -> Iterator[Malformed]:
    yield from _of_files(token)
    yield from _of_events(uuid, token)
    yield from _of_scans(token)
    yield from _of_http(uuid, token)
    login = "POST /api/v1/authentication"
    for body in (b"", b"[]", b'{"uuid":"%b"}' % uuid.encode(), b'{"uuid":"%b","key":"a\0"}' % uuid.encode()):
        yield _request("log-in", login, [_JSON], body, 400)
    yield _request("log-in", login, [_JSON], b"[" * _NEST + b"]" * _NEST, 400)
    yield _request("log-in", login, [_JSON], b"\0" * 9000, 413)


def _of_files(token: str) -> Iterator[Malformed]:
    for name in ("", "..", "web%2Fmerged.mg", "..%2Fdefault.yml", "a%00b", "default.yml%2F"):
        yield _request(f"file {name}", f"GET /api/v1/files?file_name={name}", [token], b"", 400)
    yield _request("file", "GET /api/v1/files?file_name=%FF", [token], b"", 400, 404)
    yield _request("no file", "GET /api/v1/files", [token], b"", 400)
    yield _request("two files", "GET /api/v1/files?file_name=a&file_name=b", [token], b"", 400)


def _of_events(uuid: str, token: str) -> Iterator[Malformed]:
    metadata = metadata_line(uuid)
    event = b'{"id":"d0","module":"fim","operation":"create"}\n{"n":"malformed"}\n'
    for first in (b"", b"\n\n", b"[]\n", b"{}\n", b'{"agent":[]}\n', b'{"agent":{"id":7}}\n', b'{"agent":{\n'):
        yield _request("metadata", "POST /api/v1/events/stateful", [token], first + event if first else b"", 400)
    deep = b'{"agent":{"id":"%b","x":%b}}\n' % (uuid.encode(), b"[" * _NEST + b"]" * _NEST)
    yield _request("deep metadata", "POST /api/v1/events/stateful", [token], deep + event, 400)
    yield _request("no body", "POST /api/v1/events/stateless", [token], b"", 400)
    zipped = [token, "Content-Encoding: gzip"]
    yield _request("coding", "POST /api/v1/events/stateful", zipped, metadata + event, 415)
    yield _request("coding", "POST /api/v1/events/stateless", zipped, metadata + b"{}\n{}\n", 415)


def _of_scans(token: str) -> Iterator[Malformed]:
    bodies = (
        b"",
        b"[]",
        b'{"type":"another"}',
        b'{"type":"packagelist"}',
        b'{"type":"packagelist","packages":{}}',
        b'{"type":"packagelist","packages":[7],"hotfixes":[],"os":{},"agent":{}}',
        b'{"type":"packagelist","packages":[{"name":"a"},],"hotfixes":[],"os":{},"agent":{}}',
        b'{"type":"fullscan","packages":[],"hotfixes":[],"os":{}}',
        b'{"type":"packagelist","packages":%b}' % (b"[" * _NEST + b"]" * _NEST),
    )
    for body in bodies:
        yield _request("scan", "POST /api/v1/vulnerability/scan", [token, _JSON], body, 400)


def _of_http(uuid: str, token: str) -> Iterator[Malformed]:
    body = metadata_line(uuid) + b'{"id":"d0","module":"fim","operation":"create"}\n{"n":"malformed"}\n'
    post = "POST /api/v1/events/stateful"
    yield _request("route", "GET /api/v1/nothing", [token], b"", 404)
    yield _request("route", "GET /api/v1%2Fcommands", [token], b"", 404)
    yield _request("method", "POST /api/v1/commands", [token], body, 405)
    yield _request("method", "GET /api/v1/events/stateful", [token], b"", 405)
    yield _request("folded", post, [token, "X: a\r\n b"], body, 400)
    yield _request("two lengths", post, [token, f"Content-Length: {len(body) + 1}"], body, 400)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    yield _request("two lengths", post, [token, "Transfer-Encoding: chunked"], chunked, 400)
    yield _request("control character", post, [token, "X: a\x01b"], body, 400)
    yield _request("two hosts", post, [token, "Host: y"], body, 400)
    yield _request("long head", post, [token, f"X: {'x' * 70_000}"], body, 431, 400)
    yield _request("long GET", "GET /api/v1/commands", [token], b"x" * 5000, 413)
    head = f"{post} HTTP/1.1\r\nHost: x\r\n{token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for chunks in (b"zz\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n", b"-1\r\n", b"0\r\nX: a\nY\r\n\r\n"):
        yield Malformed("chunks", head + chunks, [400])
    yield Malformed("no HTTP", b"\x16\x03\x01 hello\r\n\r\n", [400])
    yield Malformed("old HTTP", b"GET /api/v1/commands HTTP/3.0\r\nHost: x\r\n\r\n", [400])
