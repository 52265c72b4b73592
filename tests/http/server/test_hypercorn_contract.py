"""What ``http/server/hypercorn_protocol.py`` relies on in hypercorn and h11, neither of which promises it. When an
upgrade changes it, this fails first, and says what it was.
"""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

import h11
import hypercorn.protocol.events as stream_events
import pytest
from hypercorn.config import Config
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import WorkerContext

import wazuh_comms_trio
from wazuh_comms_trio.http.server.hypercorn_protocol import Http11, hypercorn_config, reply_head

REQUEST = b"POST /a%20b?c=%64 HTTP/1.1\r\nHost: x\r\nX-Y: z\r\nContent-Length: 5\r\n\r\nhello"


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


def test_the_pinned_version() -> None:
    assert version("hypercorn").startswith("0.18.")


def test_the_stream_class() -> None:
    assert parameters(HTTPStream) == [
        "app", "config", "context", "task_group", "ssl", "client", "server", "send", "stream_id",
    ]  # fmt: skip
    assert parameters(HTTPStream.handle) == ["self", "event"]
    assert parameters(HTTPStream.app_send) == ["self", "message"]
    assert [state.name for state in ASGIHTTPState] == ["REQUEST", "RESPONSE", "TRAILERS", "CLOSED"]


def test_the_events() -> None:
    assert parameters(stream_events.Request) == ["stream_id", "headers", "http_version", "method", "raw_path", "state"]
    assert parameters(stream_events.Response) == ["stream_id", "headers", "status_code"]
    assert parameters(stream_events.Body) == ["stream_id", "data"]
    assert parameters(stream_events.EndBody) == ["stream_id"]


def test_the_settings() -> None:
    for name in ("h11_max_incomplete_size", "include_server_header", "keep_alive_max_requests", "accesslog"):
        assert hasattr(Config, name)
    assert [name for name, _ in hypercorn_config(100).response_headers("h11")] == [b"date"]
    assert WorkerContext(None).max_requests is None


def test_h11_tells_heads_that_are_too_large_from_malformed_ones() -> None:
    for data, hint in ((b"GET / HTTP/1.1\r\nx: " + b"y" * 100, 431), (b"rubbish\r\n\r\n", 400)):
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=50)
        connection.receive_data(data)
        with pytest.raises(h11.RemoteProtocolError) as caught:
            connection.next_event()
        assert caught.value.error_status_hint == hint


async def test_a_request_comes_in_whole() -> None:
    http = Http11(hypercorn_config(1000), 1000, secure=True, client=("10.0.0.1", 5))
    assert not await http.feed(REQUEST[:20])
    assert await http.feed(REQUEST[20:])
    assert http.first_body == b"hello"
    assert http.body.declared == 5
    scope = http.asgi_scope
    assert scope == {
        "type": "http",
        "http_version": "1.1",
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "method": "POST",
        "scheme": "https",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=%64",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"x-y", b"z"), (b"content-length", b"5")],
        "client": ("10.0.0.1", 5),
        "server": None,
        "state": {},
        "extensions": {},
    }


async def test_a_reply_goes_out_framed_and_closes() -> None:
    http = Http11(hypercorn_config(1000), 1000, secure=True, client=None)
    await http.feed(REQUEST)
    headers = [(b"content-length", b"2")]
    await http.write({"type": "http.response.start", "status": 200, "headers": headers})
    assert (len(http.outgoing), http.finished) == (1, False)
    await http.write({"type": "http.response.body", "body": b"h", "more_body": True})
    await http.write({"type": "http.response.body", "body": b"i"})
    assert http.finished
    head, _, body = b"".join(http.outgoing).partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"HTTP/1.1 200 OK"
    assert body == b"hi"
    names = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    assert names.pop(b"date").endswith(b"GMT")
    assert names == {b"content-length": b"2", b"connection": b"close"}


@pytest.mark.parametrize("parts", [[b"hi!"], [b"h"], [b"h", b"i", b"!"], []])
async def test_a_reply_that_isnt_as_long_as_it_says(parts: list[bytes]) -> None:
    http = Http11(hypercorn_config(1000), 1000, secure=True, client=None)
    await http.feed(REQUEST)
    await http.write({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"2")]})

    async def write_all() -> None:
        for part in parts:
            await http.write({"type": "http.response.body", "body": part, "more_body": True})
        await http.write({"type": "http.response.body", "body": b""})

    with pytest.raises(ValueError, match="too"):
        await write_all()
    assert not http.finished


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nx: y", b"a\rb", b"\0"])
def test_no_header_makes_another(value: bytes) -> None:
    with pytest.raises(ValueError, match="control character"):
        reply_head(200, [(b"x", value)], hypercorn_config(1000))


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_replies_without_a_body(method: bytes, status: int) -> None:
    http = Http11(hypercorn_config(1000), 1000, secure=True, client=None)
    await http.feed(REQUEST.replace(b"POST", method))
    await http.write({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
    await http.write({"type": "http.response.body", "body": b"hi"})
    assert http.finished
    assert b"".join(http.outgoing).endswith(b"\r\n\r\n")


async def test_an_unknown_length_is_chunked_or_closed() -> None:
    for request, coding in ((REQUEST, b"chunked"), (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), None)):
        http = Http11(hypercorn_config(1000), 1000, secure=True, client=None)
        await http.feed(request)
        await http.write({"type": "http.response.start", "status": 200, "headers": []})
        await http.write({"type": "http.response.body", "body": b"hello"})
        data = b"".join(http.outgoing).lower()
        assert (b"transfer-encoding: chunked" in data) == (coding is not None)
        assert data.endswith(b"5\r\nhello\r\n0\r\n\r\n" if coding else b"\r\n\r\nhello")


def test_one_file_touches_them() -> None:
    package = Path(wazuh_comms_trio.__file__).parent
    users, users_of_its_public_server = set(), set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            file = path.relative_to(package).as_posix()
            for name in names:
                if name.split(".")[0] == "hypercorn":
                    (users_of_its_public_server if file.startswith("daemon/operators/") else users).add((file, name))
    assert {file for file, _ in users} == {"http/server/hypercorn_protocol.py"}
    documented = {"hypercorn.config", "hypercorn.trio"}
    assert users_of_its_public_server == {("daemon/operators/process.py", name) for name in documented}
