"""HTTP: what our reader takes, h11 and llhttp (httptools) read in the same way; how it was cut changes nothing."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import h11
import httptools
from attrs import define, field

from tests.fuzz.target import Target, in_pieces
from wazuh_comms_trio.errors import BodyTooLarge, MalformedRequest
from wazuh_comms_trio.http.client.simple_messages import parse_head
from wazuh_comms_trio.http.server.framing.bodies import ChunkedBody
from wazuh_comms_trio.http.server.hypercorn_protocol import Http11, hypercorn_config
from wazuh_comms_trio.http.server.refusals import HeadTooLarge

__all__ = ["TARGETS"]

HEAD_BYTES = 2048
BODY_BYTES = 1000
CONFIG = hypercorn_config(HEAD_BYTES)


@define
class Message:
    """What a parser made of the first message."""

    method: bytes = b""
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(factory=list)
    body: bytes = b""
    #: the head, and the whole
    has_head: bool = False
    complete: bool = False


# --- ours


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """What waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def ours(pieces: Sequence[bytes]) -> Message | str:
    """A refusal's kind as a string."""
    http = Http11(CONFIG, BODY_BYTES, secure=True, client=("127.0.0.1", 1))
    found = Message()
    try:
        for piece in pieces:
            if found.has_head:
                found.body += http.body.feed(piece)
            elif now(http.feed(piece)):
                found.has_head = True
                scope = http.asgi_scope
                found.method, found.target = (
                    scope["method"].encode(),
                    scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b""),
                )
                found.headers = [(name, value) for name, value in scope["headers"]]
                found.body += http.body.feed(http.first_body)
    except (MalformedRequest, BodyTooLarge, HeadTooLarge) as refusal:
        return type(refusal).__name__
    found.complete = found.has_head and http.body.complete
    return found


# --- theirs


@define
class _Collector:
    message: Message = field(factory=Message)

    def on_url(self, url: bytes) -> None:
        if not self.message.complete:
            self.message.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.message.complete and not self.message.has_head:
            self.message.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.message.has_head = True

    def on_body(self, body: bytes) -> None:
        if not self.message.complete:
            self.message.body += body

    def on_message_complete(self) -> None:
        self.message.complete = True


def llhttp(data: bytes) -> Message | str:
    """Its complaint as a string, unless it came after the first message."""
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        collector.message.complete = True
    except httptools.HttpParserError as error:
        if not collector.message.complete:
            return str(error)
    collector.message.method = parser.get_method() if collector.message.has_head else b""
    return collector.message


def h11_reads(data: bytes) -> Message | str:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    connection.receive_data(data)
    found = Message()
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                found.method, found.target, found.has_head = event.method, event.target, True
                found.headers = list(event.headers)
            elif isinstance(event, h11.Data):
                found.body += event.data
            else:
                found.complete = isinstance(event, h11.EndOfMessage)
                return found
    except h11.RemoteProtocolError as error:
        return str(error)


# --- requests


def check_request(data: bytes) -> None:
    if not data:
        return
    whole = ours([data])
    cut = ours(in_pieces(data))
    if isinstance(whole, str) and isinstance(cut, str):
        return  # which of two complaints comes first may depend on the cut
    assert whole == cut, f"whole: {whole}, in pieces: {cut}"
    if not whole.has_head:
        return
    plain = data.removeprefix(b"\r\n")
    for read in (llhttp(plain), h11_reads(plain)):
        if isinstance(read, str):
            # Which methods there are isn't llhttp's to say: ours answers the others with 405.
            assert "method" in read.lower() or not whole.complete, f"{whole} was refused: {read}"
            continue
        assert read.has_head, f"{whole} wasn't finished for another"
        # The application is told path and query: without a query it can't know of a question mark.
        target = read.target.removesuffix(b"?") if b"?" not in read.target[:-1] else read.target
        assert (target, _values(read)) == (whole.target, _values(whole)), f"{whole} was read as {read}"
        if whole.complete and whole.method != b"CONNECT" and not _switches(whole):
            assert (read.body, read.complete) == (whole.body, whole.complete), f"{whole} was read as {read}"


def _values(message: Message) -> list[tuple[bytes, bytes]]:
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in message.headers]


def _switches(message: Message) -> bool:
    return any(name == b"upgrade" for name, _ in message.headers)


_HEAD = b"POST /api/v1/events/stateful?x=1 HTTP/1.1\r\nHost: localhost:27000\r\n"
REQUESTS = Target(
    check_request,
    (
        _HEAD + b"Content-Length: 5\r\n\r\nhello",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nGET",
        _HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /api/v1/commands HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer a.b.c\r\nUser-Agent: X\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: \r\nX: \xe9 \t y\r\nx:y\r\n\r\n",
        _HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
        b"HEAD http://a/b HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
    ),
    (
        b"Transfer-Encoding: chunked\r\n",
        b"transfer-encoding:\tchunked \r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 05\r\n",
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\n",
        b"Host: a\r\n",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"CONNECT ",
        b"PRI ",
        b"\r\n ",
        b"gzip, chunked",
    ),
    cases=500,
)


# --- chunks alone


def chunks(pieces: Sequence[bytes]) -> tuple[bytes, bool, int] | str:
    body, found = ChunkedBody(BODY_BYTES), b""
    try:
        for piece in pieces:
            found += body.feed(piece)
    except (MalformedRequest, BodyTooLarge) as refusal:
        return type(refusal).__name__
    assert body.received == len(found) <= BODY_BYTES
    return found, body.complete, body.excess


def check_chunks(data: bytes) -> None:
    whole = chunks([data])
    assert chunks(in_pieces(data)) == whole or isinstance(whole, str)
    if isinstance(whole, str):
        return
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    body, complete, excess = whole
    if not complete:
        return  # it may still be refused
    sent = data[: len(data) - excess]
    for read in (llhttp(head + sent), h11_reads(head + sent)):
        assert not isinstance(read, str), f"{whole} was refused: {read}"
        assert (read.body, read.complete) == (body, complete), f"{whole} was read as {read}"


CHUNKS = Target(
    check_chunks,
    (
        b"5\r\nhello\r\n0\r\n\r\n",
        b'00a;name="va\\"lue";x\r\n0123456789\r\n1 \t\r\nA\r\n0\r\nTrailer: 1\r\nb:\r\n\r\nrest',
        b"3e8\r\n" + b"x" * 1000 + b"\r\n0000;\r\n\r\n",
    ),
    (b"0\r\n\r\n", b"\r\n", b";a=b", b"7fffffffffffffff", b"8000000000000000", b"\n", b"0" * 30),
    cases=1000,
)


# --- what the indexer and the engine answer


def check_reply(data: bytes) -> None:
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return
    simple = parse_head(data, end)
    if simple is None:
        return
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.receive_data(data[:end])
    event = connection.next_event()
    assert isinstance(event, h11.Response), f"{simple}: {event}"
    assert event.status_code == simple.status
    assert {name.decode(): value.decode("latin-1") for name, value in event.headers} == simple.headers
    assert [int(value) for name, value in event.headers if name == b"content-length"] == [simple.length]
    assert simple.closing is any(value.lower() == b"close" for name, value in event.headers if name == b"connection")
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    parser.feed_data(data[:end] + b"x" * min(simple.length, 1))
    assert collector.message.has_head
    assert parser.get_status_code() == simple.status
    assert collector.message.complete is (simple.length < 2)
    assert {name.decode(): value.decode("latin-1") for name, value in collector.message.headers} == simple.headers


REPLIES = Target(
    check_reply,
    (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 503\r\nRetry-After:\t3 \r\ncontent-length:1\r\nconnection: Keep-Alive\r\n\r\nx",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        b"Content-Length: 5\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"X: \xe9\r\n",
        b"\t",
        b"199",
        b"599",
    ),
)

TARGETS = {"http-request": REQUESTS, "http-chunks": CHUNKS, "http-reply": REPLIES}
