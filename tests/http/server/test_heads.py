"""Heads and bodies as they shouldn't be: each gets its status in the one shape, nothing gets a traceback."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.server.listener import LIMITS, TOKEN, Fakes, problem, read_reply, read_to_end, request_bytes, serving
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.http.server.hypercorn_protocol import MOST_LINES
from wazuh_comms_trio.testing.agent.http import ReplyDecoder

HOST = b"Host: localhost\r\n"
AUTH = b"Authorization: Bearer " + TOKEN + b"\r\n"
STATEFUL = b"POST /api/v1/events/stateful HTTP/1.1\r\n" + HOST + AUTH

MALFORMED = {
    "not HTTP": b"hello\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a version of its own": b"GET / HTTP/11\r\n" + HOST + b"\r\n",
    "HTTP/2 by name": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2's preface as a method": b"PRI / HTTP/1.1\r\n" + HOST + b"\r\n",
    "h2 prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x12\4\0\0\0\0\0",
    "no host": b"GET /api/v1/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    **{
        f"Host {value}": b"GET /api/v1/ HTTP/1.1\r\nHost: " + value.encode("latin-1") + b"\r\n\r\n"
        for value in (
            "a b",
            "a/b",
            "user@a",
            "http://a",
            "a:b",
            "a:-1",
            "a:65536",
            "a:100000000000000000000",
            "a:1:2",
            "a?b",
            "a#b",
            "a%zz",
            "a%2",
            "a\\b",
            "<a>",
            "caf\xe9",
            "::1",
            "[::1",
            "[]",
            "[::g]",
            "[1.2.3.4]",
            "[::1]a",
            "[1::2::3]",
        )
    },
    "an invalid host in HTTP/1.0": b"GET /api/v1/ HTTP/1.0\r\nHost: a/b\r\n\r\n",
    "space in the target": b"GET /api/v1/files?file_name=a b HTTP/1.1\r\n" + HOST + AUTH + b"\r\n",
    "tab in the target": b"GET /api/v1/files?file_name=a\tb HTTP/1.1\r\n" + HOST + AUTH + b"\r\n",
    "high byte in the target": b"GET /api/v1/files?file_name=\xc3\xa9 HTTP/1.1\r\n" + HOST + AUTH + b"\r\n",
    "absolute target without a host": b"GET https:///api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute target with a user": b"GET https://u@h/api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute target with an impossible port": b"GET https://h:99999/api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /api/v1/\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in a header": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a header's name": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X\0: a\r\n\r\n",
    "only NULs": b"\0" * 40,
    "header without a colon": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n",
    "space before the colon": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\n",
    "header without a name": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b": value\r\n\r\n",
    "folded first header": b"GET /api/v1/ HTTP/1.1\r\n folded\r\n" + HOST + b"\r\n",
    "method with a control character": b"GE\x01T /api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "Content-Length in words": STATEFUL + b"Content-Length: five\r\n\r\nhello",
    "Content-Length with a sign": STATEFUL + b"Content-Length: +5\r\n\r\nhello",
    "negative Content-Length": STATEFUL + b"Content-Length: -5\r\n\r\nhello",
    "hexadecimal Content-Length": STATEFUL + b"Content-Length: 0x5\r\n\r\nhello",
    "Content-Length with a fraction": STATEFUL + b"Content-Length: 5.0\r\n\r\nhello",
    "empty Content-Length": STATEFUL + b"Content-Length:\r\n\r\nhello",
    "Content-Length beyond all": STATEFUL + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
    "two Content-Lengths that differ": STATEFUL + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two that differ in one header": STATEFUL + b"Content-Length: 5, 6\r\n\r\nhello!",
    "two Content-Lengths that are equal": STATEFUL + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two that are equal in one header": STATEFUL + b"Content-Length: 5, 5\r\n\r\nhello",
    "bare line feeds": b"GET /api/v1/ HTTP/1.1\nHost: localhost\n\n",
    "one bare line feed": b"GET /api/v1/ HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "a bare line feed at the end": b"GET /api/v1/ HTTP/1.1\r\nHost: localhost\r\n\n",
    "a folded header": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X: y\r\n z\r\n\r\n",
    "a control character in a header": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X: a\x08b\r\n\r\n",
    "DEL in a header": b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X: a\x7fb\r\n\r\n",
    "a target without a slash": b"GET api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL whose slashes are encoded": b"GET https:%2F%2Flocalhost/api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL whose colon is encoded": b"GET https%3A//localhost/api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL with a backslash": b"GET https://a\\b/api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL without a host": b"GET https:///api/v1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "both framings": STATEFUL + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "both framings, the other way round": STATEFUL
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": STATEFUL.replace(b"HTTP/1.1", b"HTTP/1.0")
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "another coding": STATEFUL + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked twice": STATEFUL + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": STATEFUL + b"Transfer-Encoding: identity\r\n\r\nhello",
    "chunk size in words": STATEFUL + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
    "chunk longer than its size": STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "chunk of 2 to the 64": STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nhello",
    "endless chunk size": STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 600,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_is_400_in_the_one_shape(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        reply = await server.ask(data)
        assert problem(reply) == (400, 400)
    assert server.fakes.stateful.bodies == []
    ours = [record for record in caplog.records if record.name.startswith("wazuh_comms_trio")]
    assert len(ours) <= 1
    assert all(record.levelno == logging.DEBUG and not record.exc_info for record in ours)


@pytest.mark.parametrize("pieces", [[b"\r\n", b""], [b"\r", b"\n"], [b"\r", b"\nGET"], [b"\r\nG", b""]])
async def test_an_empty_line_before_the_request_is_ignored_however_it_is_cut(pieces: list[bytes]) -> None:
    head = b"GET /api/v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving() as server:
        stream = await server.connect()
        sent = b""
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
            sent += piece
        await stream.send_all((b"\r\n" + head).removeprefix(sent))
        assert (await read_reply(stream)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:27000",
        "a_b.example",
        "10.0.0.1:0",
        "[::1]",
        "[::ffff:10.0.0.1]:27000",
        "a:",
        "",
        "a%2Db",
        "x,y",
    ],
)
async def test_hosts_that_are_taken(host: str) -> None:
    async with serving() as server:
        reply = await server.ask(f"GET /api/v1/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert reply.status == 200


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_byte_by_byte(data: bytes) -> None:
    async with serving() as server:
        stream = await server.connect()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for byte in data:
                    await stream.send_all(bytes([byte]))

            nursery.start_soon(send)
            reply = await read_reply(stream)
            nursery.cancel_scope.cancel()
        assert problem(reply) == (400, 400)


@pytest.mark.parametrize(
    "data",
    [
        STATEFUL + b"Content-Length: 50\r\n\r\nhello",
        STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
async def test_a_body_that_ends_too_early_is_400_for_who_still_reads(data: bytes) -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(data)
        await stream.send_eof()
        assert problem(await read_reply(stream)) == (400, 2708)
    assert server.fakes.stateful.bodies == []


async def test_a_head_that_ends_too_early_is_400_for_who_still_reads() -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(b"GET /api/v1/ HTTP/1.1\r\nHost: loc")
        await stream.send_eof()
        assert problem(await read_reply(stream)) == (400, 400)


async def test_who_leaves_without_a_word_gets_none() -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_eof()
        assert await read_to_end(stream) == b""


# --- too much


@pytest.mark.parametrize("filler", [b"X: y\r\n", b"X: " + b"y" * 4000 + b"\r\n"])
@pytest.mark.parametrize("finished", [True, False])
async def test_a_head_above_the_limit_is_431(filler: bytes, finished: bool) -> None:
    head = b"GET /api/v1/ HTTP/1.1\r\n" + HOST
    head += filler * (1 + (LIMITS.head_bytes - len(head)) // len(filler))
    async with serving() as server:
        reply = await server.ask(head + (b"\r\n" if finished else b""))
    assert problem(reply) == (431, 431)


@pytest.mark.parametrize("other", [b"", b"Expect: x\r\n"], ids=["plain", "by h11"])
async def test_a_head_of_very_many_lines_is_431(other: bytes) -> None:
    begin = b"GET /api/v1/ HTTP/1.1\r\n" + HOST + other
    async with serving() as server:
        many = b"a:\r\n" * MOST_LINES
        assert problem(await server.ask(begin + many + b"\r\n")) == (431, 431)
        left = MOST_LINES - begin.count(b"\n") - 1
        assert (await server.ask(begin + many[: left * 4] + b"\r\n")).status == 200


async def test_a_head_of_exactly_the_limit_is_taken() -> None:
    head = b"GET /api/v1/ HTTP/1.1\r\n" + HOST + b"X: "
    head += b"y" * (LIMITS.head_bytes - len(head) - 4) + b"\r\n\r\n"
    assert len(head) == LIMITS.head_bytes
    async with serving() as server:
        assert (await server.ask(head)).status == 200


async def test_a_request_line_without_end_is_431() -> None:
    async with serving() as server:
        reply = await server.ask(b"GET /" + b"a" * 70000)
    assert problem(reply) == (431, 431)


SMALL = Limits(body_bytes=1000)


async def test_a_declared_body_above_the_limit_is_413_at_once() -> None:
    async with serving(limits=SMALL) as server:
        reply = await server.ask(STATEFUL + b"Content-Length: 1001\r\n\r\n")
        assert problem(reply) == (413, 413)
        reply = await server.ask(STATEFUL + b"Content-Length: 99999999999999999999\r\n\r\n")
        assert problem(reply) == (413, 413)


async def test_chunks_above_the_limit_are_413() -> None:
    async with serving(limits=SMALL) as server:
        head = STATEFUL + b"Transfer-Encoding: chunked\r\n\r\n"
        assert problem(await server.ask(head + b"3e9\r\n")) == (413, 413)
        assert problem(await server.ask(head + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n")) == (413, 413)
        body = b"1f4\r\n" + b"x" * 500 + b"\r\n1f4\r\n" + b"x" * 500 + b"\r\n0\r\n\r\n"
        assert (await server.ask(head + body)).status == 200
    assert server.fakes.stateful.bodies == [b"x" * 1000]


async def test_the_refusal_of_a_large_body_reaches_who_writes_before_reading() -> None:
    """As agents do. The connection's buffers are smaller than the body: without reading it, nobody could go on."""
    async with serving(buffer_bytes=4096) as server:
        stream = await server.connect()
        body = b"x" * 300_000
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", body, token=b"bad"))
        assert problem(await read_reply(stream)) == (403, 2706)
    async with serving(buffer_bytes=4096, limits=Limits(body_bytes=200_000)) as server:
        stream = await server.connect()
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"x" * 200_001))
        assert problem(await read_reply(stream)) == (413, 413)


# --- taken all the same


@pytest.mark.parametrize(
    "data",
    [
        STATEFUL + b"content-LENGTH:5\r\n\r\nhello",
        b"\r\n" + STATEFUL + b"Content-Length: 5\r\n\r\nhello",
        STATEFUL.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: 5\r\n\r\nhello",
        STATEFUL.replace(b"HTTP/1.1", b"HTTP/1.0").replace(HOST, b"") + b"Content-Length: 5\r\n\r\nhello",
        STATEFUL + b"Transfer-Encoding: CHUNKED\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        STATEFUL + b"Connection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        STATEFUL + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        STATEFUL.replace(b"/api", b"https://localhost:27000/api") + b"Content-Length: 5\r\n\r\nhello",
        STATEFUL.replace(b"stateful", b"%73tateful") + b"Content-Length: 5\r\n\r\nhello",
        STATEFUL.replace(b"Bearer", b"bearer") + b"Content-Length: 5\r\n\r\nhello",
    ],
)
async def test_unusual_requests_are_taken(data: bytes) -> None:
    async with serving() as server:
        reply = await server.ask(data)
        assert reply.status == 200
        assert reply.header("connection") == "close"
    assert server.fakes.stateful.bodies == [b"hello"]


@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ],
)
async def test_no_upgrade(headers: bytes) -> None:
    async with serving() as server:
        reply = await server.ask(b"GET /api/v1/ HTTP/1.1\r\n" + HOST + headers + b"\r\n")
    assert reply.status == 200
    assert reply.header("upgrade") is None


async def test_expect_100_continue() -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(STATEFUL + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"hello")
        assert (await read_reply(stream)).status == 200
    assert server.fakes.stateful.bodies == [b"hello"]


async def test_a_refusal_isnt_preceded_by_100_continue() -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(
            STATEFUL.replace(TOKEN, b"bad") + b"Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 Forbidden\r\n")


async def test_a_pipelined_second_request_is_never_executed() -> None:
    one = request_bytes("POST", "/api/v1/events/stateful", b"first")
    two = request_bytes("POST", "/api/v1/events/stateful", b"second")
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(one + two)
        decoder = ReplyDecoder()
        decoder.feed(data := await read_to_end(stream))
        assert decoder.reply is not None
        assert data.count(b"HTTP/1.1 ") == 1
    assert server.fakes.stateful.bodies == [b"first"]


async def test_an_http_1_0_client_gets_a_framed_reply() -> None:
    async with serving() as server:
        reply = await server.ask(b"GET /api/v1/ HTTP/1.0\r\n\r\n")
    assert reply.status == 200
    assert reply.header("content-length") == "0"


# --- anything at all


@settings(max_examples=150)
@given(st.binary(max_size=400))
def test_any_bytes_get_one_reply_or_an_end(data: bytes) -> None:
    check_any(data)


FRAGMENTS = st.sampled_from(
    [
        b"GET ", b"POST ", b"/api/v1/", b"/api/v1/events/stateful", b" HTTP/1.1", b"\r\n", b"\n", b"\r", HOST, AUTH,
        b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"5", b"0", b"hello", b":", b" ", b"\0", b"\xff",
        b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"ffff", b";",
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(FRAGMENTS, max_size=25).map(b"".join))
def test_any_pieces_of_http_get_one_reply_or_an_end(data: bytes) -> None:
    check_any(data)


def check_any(data: bytes) -> None:
    """No 5xx and nothing in the log above debug: the fixture that watches for errors does the rest."""

    async def main() -> bytes:
        async with serving(Fakes()) as server:
            stream = await server.connect()
            await stream.send_all(data)
            await stream.send_eof()
            return await read_to_end(stream)

    answer = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    if answer:
        status = int(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").split(b" ")[1])
        assert 200 <= status < 500
