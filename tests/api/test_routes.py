"""Every endpoint, on our connections and on hypercorn's server: what it answers, and what it asks of its service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.api.servers import SERVERS, Serving, serving_by_connections
from tests.http.server.listener import (
    AUTHORIZED,
    FakeFile,
    FakeFiles,
    FakeOffer,
    Fakes,
    Server,
    problem,
    read_reply,
    read_to_end,
    request_bytes,
)
from wazuh_comms_trio.backends.interfaces import EngineReply
from wazuh_comms_trio.services.vulnerability import SCAN_BYTES
from wazuh_comms_trio.testing.agent.http import Reply

STATEFUL = "/api/v1/events/stateful"
STATELESS = "/api/v1/events/stateless"


async def test_root_needs_no_token_and_has_no_body(serving: Serving) -> None:
    async with serving() as server:
        reply = await server.request("GET", "/api/v1/", token=None)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.header("connection") == "close"
    assert reply.header("content-length") == "0"


async def test_authentication(serving: Serving) -> None:
    async with serving() as server:
        body = json.dumps({"uuid": "u", "key": "right", "more": [1]}).encode()
        reply = await server.request("POST", "/api/v1/authentication", body, token=None)
        assert (reply.status, reply.json()) == (200, {"token": "token-of-u"})
        body = json.dumps({"uuid": "u", "key": "wrong"}).encode()
        reply = await server.request("POST", "/api/v1/authentication", body, token=None)
        assert (reply.status, reply.json()) == (401, {"message": "Invalid key", "code": 401})


async def test_stateful_and_stateless(serving: Serving) -> None:
    async with serving() as server:
        reply = await server.request("POST", STATEFUL, b"one body")
        assert (reply.status, reply.json()) == (200, {"results": []})
        reply = await server.request("POST", STATELESS, b"another")
        assert (reply.status, reply.body) == (204, b"")
    assert server.fakes.stateful.bodies == [b"one body"]
    assert server.fakes.stateless.bodies == [b"another"]
    assert server.fakes.stateless.lengths == [7]


async def test_files_and_scan(serving: Serving) -> None:
    async with serving() as server:
        reply = await server.request("GET", "/api/v1/files?file_name=default.conf")
        assert (reply.status, reply.body) == (200, b"<agent/>")
        reply = await server.request("POST", "/api/v1/vulnerability/scan", b"{}")
        assert (reply.status, reply.body) == (200, b"[]")
        assert reply.header("content-type") == "application/json"


async def test_command_is_delivered_and_confirmed(serving: Serving) -> None:
    fakes = Fakes()
    async with serving(fakes) as server:
        offer = FakeOffer()
        fakes.commands.offers.append(offer)
        reply = await server.request("GET", "/api/v1/commands")
        assert reply.status == 200
        assert reply.json()["commands"][0]["document_id"] == "c1"
        with trio.fail_after(10):
            await offer.settled.wait()
        assert offer.fate == ["confirmed"]


async def test_a_poll_that_is_over_is_408(serving: Serving) -> None:
    fakes = Fakes()
    fakes.commands.limit = 0.01
    async with serving(fakes) as server:
        assert problem(await server.request("GET", "/api/v1/commands")) == (408, 408)


async def test_poll_ends_with_408(autojump_clock: trio.testing.MockClock) -> None:
    async with serving_by_connections() as server:
        began = trio.current_time()
        reply = await server.request("GET", "/api/v1/commands")
        assert problem(reply) == (408, 408)
        assert trio.current_time() - began == pytest.approx(300)


# --- what isn't there


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v1/commands/",
        "/api/v1/authentication/",
        "/api/v1/events",
        "/api/v1/events/stateful/",
        "//api/v1/",
        "/api/v1//commands",
        "/api/v1/../v1/commands",
        "/api/v1/./commands",
        "/API/v1/commands",
        "/api/v1/commands%2F",
        "/api%2Fv1%2F",
        "/api/v1%2F",
        "/api/v1%2fready",
        "/api/v1/events%2Fstateful",
        "/%2Fapi/v1/",
        "https://localhost/api%2Fv1/",
        "/api/v1/commands%252F",
        "/api/v1/commands%00",
        "/api/v1/commands;x",
        "/api/v2/commands",
        "/static/x",
        "*",
        "https://localhost",
        "https://localhost/nothing",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_routes_are_404_and_never_a_redirect(serving: Serving, path: str, method: str) -> None:
    async with serving() as server:
        assert problem(await server.request(method, path)) == (404, 404)
        assert server.fakes.commands.parked == 0


@pytest.mark.parametrize("path", ["/api/v1/", "/api/%76%31/", "/%61pi/v1/", "https://localhost/ap%69/v1/"])
async def test_an_encoded_letter_is_that_letter(serving: Serving, path: str) -> None:
    """RFC 3986, 2.3: of letters, digits and ``-._~`` both forms are the same."""
    async with serving() as server:
        assert (await server.request("GET", path)).status == 200


CODINGS = ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "gzip, identity", "x"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    "path",
    ["/api/v1/authentication", STATEFUL, STATELESS, "/api/v1/vulnerability/scan"],
    ids=lambda p: p.split("/")[-1],
)
async def test_a_body_in_a_coding_is_415(serving: Serving, path: str, coding: str) -> None:
    """And says what would have been taken (RFC 9110, 15.5.16). Nobody looks into the body."""
    async with serving() as server:
        header = b"Content-Encoding: " + coding.encode()
        reply = await server.ask(request_bytes("POST", path, b"\x1f\x8b...", headers=[header]))
        assert problem(reply) == (415, 415)
        assert reply.header("accept-encoding") == "identity"
        fakes = server.fakes
        assert (fakes.stateful.bodies, fakes.stateless.bodies, fakes.scans.bodies) == ([], [], [])


@pytest.mark.parametrize(
    "headers", [[b"Content-Encoding: identity"], [b"Content-Encoding:"], [b"Accept-Encoding: gzip"]]
)
async def test_a_body_as_it_is(serving: Serving, headers: list[bytes]) -> None:
    async with serving() as server:
        reply = await server.ask(request_bytes("POST", STATEFUL, b"one body", headers=headers))
        assert reply.status == 200
    assert server.fakes.stateful.bodies == [b"one body"]


async def test_two_headers_are_one_list(serving: Serving) -> None:
    async with serving() as server:
        headers = [b"Content-Encoding: identity", b"Content-Encoding: gzip"]
        assert problem(await server.ask(request_bytes("POST", STATEFUL, b"x", headers=headers))) == (415, 415)


async def test_what_takes_no_body_doesnt_mind_its_coding(serving: Serving) -> None:
    async with serving() as server:
        request = request_bytes("GET", "/api/v1/files?file_name=default.conf", headers=[b"Content-Encoding: gzip"])
        assert (await server.ask(request)).status == 200


ALLOWED = {
    "/api/v1/": {"GET", "HEAD"},
    "/api/v1/authentication": {"POST"},
    "/api/v1/commands": {"GET"},
    STATEFUL: {"POST"},
    STATELESS: {"POST"},
    "/api/v1/files": {"GET", "HEAD"},
    "/api/v1/vulnerability/scan": {"POST"},
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"]


@pytest.mark.parametrize(
    ("method", "path"), [(m, p) for p, allowed in ALLOWED.items() for m in METHODS if m not in allowed]
)
async def test_wrong_methods_are_405_with_the_right_ones(serving: Serving, method: str, path: str) -> None:
    async with serving() as server:
        reply = await server.request(method, path)
        assert reply.status == 405
        assert set((reply.header("allow") or "").split(", ")) == ALLOWED[path]
        if method != "HEAD":
            assert problem(reply) == (405, 405)
        else:
            assert reply.body == b""


@pytest.mark.parametrize("path", ALLOWED)
async def test_methods_are_upper_case(path: str) -> None:
    """On our own connections: hypercorn makes them so."""
    async with serving_by_connections() as server:
        assert problem(await server.request("get", path)) == (405, 405)


async def test_head(serving: Serving) -> None:
    async with serving() as server:
        reply = await server.request("HEAD", "/api/v1/")
        assert (reply.status, reply.body) == (200, b"")
        reply = await server.request("HEAD", "/api/v1/files?file_name=default.conf")
        assert (reply.status, reply.header("content-length"), reply.body) == (200, "8", b"")
        reply = await server.request("HEAD", "/api/v1/files?file_name=nothing")
        assert (reply.status, reply.body) == (404, b"")


# --- tokens


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (m, p)
        for p, allowed in ALLOWED.items()
        for m in sorted(allowed - {"HEAD"})
        if p not in ("/api/v1/", "/api/v1/authentication")
    ],
)
@pytest.mark.parametrize("token", [None, b"bad"])
async def test_no_good_token_is_403(serving: Serving, method: str, path: str, token: bytes | None) -> None:
    async with serving() as server:
        body = b"x" if method == "POST" else None
        assert problem(await server.request(method, path, body, token=token)) == (403, 2706)
    fakes = server.fakes
    assert [fakes.stateful.bodies, fakes.stateless.bodies, fakes.scans.bodies, fakes.commands.cancelled] == [
        [],
        [],
        [],
        0,
    ]


# --- bodies


BAD_CREDENTIALS = [b"", b"[]", b'{"uuid":1,"key":"k"}', b'{"uuid":"u"}', b"\xff", b'{"uuid":"\\u0000","key":"k"}']


@pytest.mark.parametrize("body", [*BAD_CREDENTIALS, b"[" * 8_000])
async def test_malformed_credentials_are_400(serving: Serving, body: bytes) -> None:
    async with serving() as server:
        assert problem(await server.request("POST", "/api/v1/authentication", body, token=None)) == (400, 400)


async def test_credentials_in_chunks_and_without_content_type(serving: Serving) -> None:
    async with serving() as server:
        head = b"POST /api/v1/authentication HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        reply = await server.ask(head + b'e\r\n{"uuid":"u","k\r\ne\r\ney":"right"}  \r\n0\r\n\r\n')
        assert reply.json() == {"token": "token-of-u"}


async def test_credentials_that_are_too_large_are_413(serving: Serving) -> None:
    async with serving() as server:
        body = b'{"uuid":"u","key":"right"}' + b" " * 8_500
        assert problem(await server.request("POST", "/api/v1/authentication", body, token=None)) == (413, 413)


async def test_stateless_in_chunks_has_no_length(serving: Serving) -> None:
    async with serving() as server:
        head = b"POST /api/v1/events/stateless HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED
        reply = await server.ask(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert reply.status == 204
    assert server.fakes.stateless.bodies == [b"onetwo"]
    assert server.fakes.stateless.lengths == [None]


@pytest.mark.parametrize("path", [STATEFUL, STATELESS, "/api/v1/vulnerability/scan", "/api/v1/authentication"])
async def test_a_body_that_breaks_off_is_2708(path: str) -> None:
    """On our own connections: hypercorn closes one whose peer has ended."""
    async with serving_by_connections() as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("POST", path, b"hello")[:-1])
        await stream.send_eof()
        assert problem(await read_reply(stream)) == (400, 2708)


@pytest.mark.parametrize("query", ["", "?", "?name=x", "?file_name=a&file_name=b"])
async def test_files_without_a_name_are_400(serving: Serving, query: str) -> None:
    async with serving() as server:
        assert problem(await server.request("GET", f"/api/v1/files{query}")) == (400, 400)


async def test_files_are_streamed_exactly(serving: Serving) -> None:
    fakes = Fakes()
    fakes.files.files |= {b"empty": b"", b"large": b"x" * 300_000}
    async with serving(fakes) as server:
        for name, size in (("empty", 0), ("large", 300_000)):
            reply = await server.request("GET", f"/api/v1/files?file_name={name}")
            assert (reply.status, len(reply.body)) == (200, size)
            assert reply.header("content-length") == str(size)
            assert reply.header("content-type") == "application/octet-stream"


@pytest.mark.expects_errors
async def test_a_file_that_breaks_off_looks_like_it(serving: Serving, unexpected_errors: list[str]) -> None:
    class Short(FakeFile):
        @property
        def size(self) -> int:
            return len(self.content) + 1

    class Files(FakeFiles):
        @asynccontextmanager
        async def open_file(self, caller: object, raw_name: bytes) -> AsyncIterator[FakeFile]:
            yield Short(b"content")

    fakes = Fakes(files=Files())
    async with serving(fakes) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("GET", "/api/v1/files?file_name=x"))
        data = await read_to_end(stream)
        assert data.endswith(b"content")
        assert b"content-length: 8" in data
        assert b"Internal" not in data
        ours = isinstance(server, Server)
    assert len(unexpected_errors) == ours  # hypercorn says nothing of it


async def test_the_engines_answer_to_a_scan_goes_through(serving: Serving) -> None:
    fakes = Fakes()
    fakes.scans.reply = EngineReply(422, b"<no>", "text/html")
    async with serving(fakes) as server:
        reply = await server.request("POST", "/api/v1/vulnerability/scan", b"{}")
        assert (reply.status, reply.body, reply.header("content-type")) == (422, b"<no>", "text/html")
        fakes.scans.reply = EngineReply(200, b"")
        reply = await server.request("POST", "/api/v1/vulnerability/scan", b"{}")
        assert (reply.status, reply.body, reply.header("content-length")) == (200, b"", "0")


@pytest.mark.parametrize("status", [429, 503])
async def test_an_engine_that_is_busy_says_when_to_come_again(serving: Serving, status: int) -> None:
    fakes = Fakes()
    fakes.scans.reply = EngineReply(status, b'{"error":["not now"]}')
    async with serving(fakes) as server:
        reply = await server.request("POST", "/api/v1/vulnerability/scan", b"{}")
        assert (reply.status, reply.body) == (status, b'{"error":["not now"]}')
        assert int(reply.header("retry-after") or "0") > 0


async def test_a_large_scan(serving: Serving) -> None:
    async with serving() as server:
        body = b" " * SCAN_BYTES
        assert (await server.request("POST", "/api/v1/vulnerability/scan", body)).status == 200
    assert server.fakes.scans.bodies == [body]


@pytest.mark.parametrize("server_name", SERVERS)
@given(
    name=st.sampled_from(
        ["Host", "Cookie", "Content-Type", "Accept", "Range", "X-Forwarded-For", "Date", "Origin", "Expect", "Upgrade"]
    ),
    value=st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte not in b"\r\n\0")),
)
def test_headers_have_no_say_in_an_authentication(server_name: str, name: str, value: bytes) -> None:
    async def main() -> Reply:
        async with SERVERS[server_name]() as server:
            body = b'{"uuid":"u","key":"right"}'
            host = b"" if name == "Host" else b"Host: x\r\n"
            head = b"POST /api/v1/authentication HTTP/1.1\r\n%b%b: %b\r\nContent-Length: %d\r\n\r\n"
            return await server.ask(head % (host, name.encode(), value, len(body)) + body)

    ours = server_name == "connections"
    reply = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if ours else None)
    if reply.status != 200:
        assert (problem(reply) if ours else (reply.status, 400)) == (400, 400)  # not a header at all
        assert not value.isascii() or not value.decode().isprintable()
