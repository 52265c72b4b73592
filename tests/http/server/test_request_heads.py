"""A plain head is read as h11 reads it, and whatever isn't plain is left to h11: the two ways give the same."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.http.server.test_heads import MALFORMED
from wazuh_comms_trio.errors import CommsError, MalformedRequest
from wazuh_comms_trio.http.client.simple_messages import parse_head
from wazuh_comms_trio.http.server import hypercorn_protocol
from wazuh_comms_trio.http.server.framing.heads import read_plain_head
from wazuh_comms_trio.http.server.hypercorn_protocol import Http11, hypercorn_config
from wazuh_comms_trio.http.server.refusals import HeadTooLarge

HEAD_BYTES = 4096
AGENTS = (
    b"POST /api/v1/events/stateful HTTP/1.1\r\nHost: 127.0.0.1:27000\r\nUser-Agent: WazuhXDR/5.0.0 (Endpoint; x86_64; "
    b"Ubuntu)\r\nAccept: application/json\r\nAuthorization: Bearer ey.J_-.x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 5\r\nConnection: close\r\n\r\n"
)


async def outcome(data: bytes) -> object:
    """What becomes of bytes that come at once, in all that the rest of the server sees."""
    http = Http11(hypercorn_config(HEAD_BYTES), 1000, secure=True, client=("::1", 1))
    try:
        if not await http.feed(data):
            return http.head_size
        body = http.body.feed(http.first_body)
    except CommsError as error:
        return type(error), str(error)
    scope = {name: value for name, value in http.asgi_scope.items() if name != "state"}
    return scope, type(http.body), http.body.declared, body, http.body.excess, http.wants_100


async def both(data: bytes) -> None:
    quick = await outcome(data)
    with patch.object(hypercorn_protocol, "read_plain_head", lambda text: None):
        assert quick == await outcome(data)


def test_what_agents_send_is_plain() -> None:
    head = read_plain_head(AGENTS)
    assert head is not None
    assert (head.method, head.target, len(head.headers)) == (b"POST", b"/api/v1/events/stateful", 7)
    assert head.headers[0] == (b"host", b"127.0.0.1:27000")
    assert read_plain_head(b"GET /api/v1/commands HTTP/1.1\r\nhost:a\r\n\r\n") is not None


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_is_refused_alike(name: str) -> None:
    await both(MALFORMED[name])


#: What a head is put together of, here and there where it doesn't belong.
PIECES = [piece + b"\r\n" for piece in AGENTS.split(b"\r\n")[:-1]] + [
    *(b"GET / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"CONNECT /a HTTP/1.1\r\n", b"GET /a HTTP/1.0\r\n"),
    *(b"get /a HTTP/1.1\r\n", b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\n"),
    *(b"Content-Length: 5,5\r\n", b"Content-Length:\t05 \r\n", b"Content-Length: " + b"1" * 19 + b"\r\n"),
    *(b"X: \xe9\xff \t y \r\n", b"X:\r\n", b"X: \x0b\r\n", b"X: \x7f\r\n", b"X: " + b"y" * HEAD_BYTES + b"\r\n"),
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b"\x01", b"hello"),
]


@st.composite
def heads(draw: Callable[[st.SearchStrategy[object]], object]) -> bytes:
    """An agent's head with some pieces put in, taken away or changed."""
    lines = list(PIECES[:8])
    for _ in range(draw(st.integers(0, 4))):  # type: ignore[call-overload]
        place = draw(st.integers(0, len(lines)))
        what = draw(st.sampled_from(["add", "drop", "cut", "byte"]))
        if what == "add" or not lines or place == len(lines):
            lines.insert(place, draw(st.sampled_from(PIECES)))  # type: ignore[call-overload, arg-type]
        elif what == "drop":
            del lines[place]  # type: ignore[arg-type]
        else:
            at = draw(st.integers(0, len(lines[place])))  # type: ignore[index, call-overload]
            more = draw(st.binary(max_size=2)) if what == "byte" else b""
            lines[place] = lines[place][:at] + more + lines[place][at + (what == "cut") :]  # type: ignore[index, operator]
    return b"".join(lines) + draw(st.sampled_from([b"\r\n", b"\r\nhello", b"\r\nhello more", b""]))  # type: ignore[operator]


@given(heads())
@example(AGENTS + b"hello")
@example(b"\r\n" + AGENTS)
@example(AGENTS[:-2] + b"X: a\r\n b\r\n\r\n")
@example(AGENTS[:-2] + b"nothing X: a\r\n\r\n")
@example(AGENTS[:-2] + b"X: " + b"a" * HEAD_BYTES + b"\r\n\r\n")
async def test_the_two_ways_give_the_same(data: bytes) -> None:
    await both(data)


@pytest.mark.parametrize("more", [b"\0", b"\x0b", b"\r x"])
async def test_h11_is_not_shown_what_would_stop_the_event_loop(more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at 16 000 blanks before a control character for half a second, and four times as many for eight."""
    data = AGENTS[:-2] + b"X:" + b" " * 2000 + more + b"\r\n\r\n"
    monkeypatch.setattr(h11.Connection, "next_event", lambda self: h11.NEED_DATA)
    for cut in (0, 30, len(data) - 1):
        http = Http11(hypercorn_config(HEAD_BYTES), 1000, secure=True, client=("::1", 1))
        assert not cut or not await http.feed(data[:cut])
        with pytest.raises(MalformedRequest):
            await http.feed(data[cut:])
    http = Http11(hypercorn_config(HEAD_BYTES), 1000, secure=True, client=("::1", 1))
    with pytest.raises(HeadTooLarge):
        await http.feed(data[:-7] + b" " * HEAD_BYTES + data[-7:])


def test_blanks_are_looked_at_once() -> None:
    """Looked at again from each of them, these would take hours."""
    blanks = b" " * 3_000_000
    assert read_plain_head(b"GET / HTTP/1.1\r\nHost: a\r\nX:" + blanks + b"\0\r\n\r\n") is None
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX:" + blanks + b"\0\r\n\r\n"
    assert parse_head(answer, len(answer)) is None
