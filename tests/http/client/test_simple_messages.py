"""What is written and read by hand is what h11 would have written and read; what isn't so simple is h11's."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.http.client import connection as module
from wazuh_comms_trio.http.client.connection import HttpConnection, HttpFailure, HttpReply
from wazuh_comms_trio.http.client.simple_messages import encode_head, parse_head

OK = b"HTTP/1.1 200 OK\r\n"
SIMPLE = [
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 \r\ncontent-length:  3 \t\r\nX-A: b  c\r\n\r\nabc",
    b"HTTP/1.1 503\r\nRetry-After: 5\r\nContent-Length: 1\r\n\r\nx",
    OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi",
    OK + b"Content-Length: 2\r\nConnection: Keep-Alive\r\nX: \xe9\r\nEmpty:\r\n\r\nhi",
]
UNUSUAL = [
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Connection: close\r\n\r\nuntil the end",
    OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length: 2\r\nX: a\r\n folded\r\n\r\nhi",
    OK + b"Content-Length: 2\r\nConnection: close, x\r\n\r\nhi",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
]
WRONG = [
    b"garbage\r\n\r\n",
    OK + b"Content-Length: 5\r\n\r\nhel",
    OK + b"Content-Length: -5\r\n\r\n",
    OK + b"Content-Length: 5, 6\r\n\r\nhello",
    OK + b"Content-Length: 5\r\nbad name: x\r\n\r\nhello",
    OK + b"Content-Length: 5\r\nX: a\0b\r\n\r\nhello",
    OK + b"Content-Le",
    b"HTTP/1.1 999999 OK\r\nContent-Length: 0\r\n\r\n",
    b"",
    OK + b"X: " + b"y" * 70_000,
]


class Scripted(trio.abc.Stream):
    """A peer that says this, in pieces, and closes."""

    def __init__(self, said: bytes, piece: int) -> None:
        self.sent = bytearray()
        self._pieces = [said[start : start + piece] for start in range(0, len(said), piece)]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.pop(0) if self._pieces else b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def outcome(said: bytes, piece: int, body: bytes | None) -> tuple[Any, ...]:
    stream = Scripted(said, piece)
    connection = HttpConnection(stream, host="localhost")
    result: HttpReply | tuple[str, bool, bool]
    try:
        result = await connection.exchange("POST", "/x?y=%20", [("X-A", "b c"), ("Content-Type", "t/t")], body)
    except HttpFailure as failure:
        result = ("failed", failure.sent, failure.heard)
    return result, connection.reusable, bytes(stream.sent)


@pytest.mark.parametrize("body", [None, b"", b"{}"])
@pytest.mark.parametrize("piece", [1, 3, 17, 100_000])
@pytest.mark.parametrize("said", [*SIMPLE, *UNUSUAL, *WRONG])
async def test_the_same_as_by_h11_alone(
    said: bytes, piece: int, body: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = max(piece, 1000) if len(said) > 1000 else piece  # h11 looks at a long head anew for each byte
    found = await outcome(said, piece, body)
    monkeypatch.setattr(module, "encode_head", lambda *arguments: None)
    assert found == await outcome(said, piece, body)


@pytest.mark.parametrize("said", SIMPLE)
def test_simple_ones_are_read_by_hand(said: bytes) -> None:
    assert parse_head(said, said.index(b"\r\n\r\n") + 4) is not None


@pytest.mark.parametrize("said", UNUSUAL)
def test_unusual_ones_are_left_to_h11(said: bytes) -> None:
    end = said.find(b"\r\n\r\n") + 4
    assert end < 4 or parse_head(said, end) is None


async def test_more_than_was_asked_for_ends_the_connection() -> None:
    connection = HttpConnection(Scripted(SIMPLE[0] + b"HTTP/1.1 200", 1000), host="x")
    assert (await connection.exchange("GET", "/", [])).body == b"hello"
    assert not connection.reusable


async def test_an_answer_above_the_limit() -> None:
    connection = HttpConnection(Scripted(SIMPLE[0], 1000), host="x", largest_reply=4)
    with pytest.raises(HttpFailure, match="too large"):
        await connection.exchange("GET", "/", [])
    assert not connection.reusable


async def test_several_exchanges_of_either_kind() -> None:
    said = [SIMPLE[0], UNUSUAL[0], SIMPLE[2], UNUSUAL[2], SIMPLE[1]]
    stream = Scripted(b"", 1)
    stream._pieces = list(said)
    connection = HttpConnection(stream, host="x")
    bodies = [(await connection.exchange("GET", "/", [])).body for _ in said]
    assert bodies == [b"hello", b"hi", b"abc", b"", b""]
    assert connection.reusable
    assert connection.used == len(said)


async def test_cancelled_the_connection_isnt_reusable() -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    connection = HttpConnection(ours, host="x")
    with trio.move_on_after(0.01):
        await connection.exchange("GET", "/", [])
    assert not connection.reusable
    with pytest.raises(RuntimeError, match="cannot take another"):
        await connection.exchange("GET", "/", [])


# --- properties ---

TEXT = st.text(st.characters(max_codepoint=0x17F), max_size=12)
WORDS = st.text(st.sampled_from("abcXYZ019-_~!"), min_size=1, max_size=8)


@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "get", "A B", "HEAD"]) | TEXT,
    target=st.just("/v1/x") | WORDS.map("/".__add__) | TEXT,
    headers=st.lists(st.tuples(WORDS | TEXT | st.just("Connection"), WORDS | TEXT), max_size=3),
    length=st.none() | st.integers(0, 10**6),
)
def test_a_head_is_h11s_or_none(method: str, target: str, headers: list[tuple[str, str]], length: int | None) -> None:
    """No text of any argument changes the form: what h11 refuses isn't written, and the rest is the same bytes."""
    ours = encode_head(method, target, "localhost", headers, length)
    framing = [] if length is None else [("Content-Length", str(length))]
    try:
        fields = [("Host", "localhost"), *headers, *framing]
        latin = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        request = h11.Request(method=method, target=target, headers=latin)
        theirs = h11.Connection(h11.CLIENT).send(request)
    except (h11.LocalProtocolError, UnicodeEncodeError, ValueError):
        theirs = None
    if ours is not None:
        assert ours == theirs
        assert ours.count(b"\r\n") == len(headers) + len(framing) + 3


@given(st.binary(max_size=60) | st.from_regex(rb"HTTP/1\.1 [0-9]{3} OK\r\n([A-Za-z]{1,5}: ?[ -~]{0,6}\r\n){0,3}"))
def test_a_head_that_is_read_is_h11s(start: bytes) -> None:
    head = start + b"Content-Length: 0\r\n\r\n"
    ours = parse_head(head, head.index(b"\r\n\r\n") + 4)
    if ours is None:
        return
    theirs = h11.Connection(h11.CLIENT)
    theirs.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    theirs.send(h11.EndOfMessage())
    theirs.receive_data(head)
    event = theirs.next_event()
    assert isinstance(event, h11.Response)
    assert ours.status == event.status_code
    assert ours.headers == {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
