"""One request over a real socket with TLS, to servers that answer well, badly, slowly, or not at all."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve

from wazuh_comms_trio.cli.fleet.connection import ExchangeFailed, Node, Reply, exchange, find_node, tls_context
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.testing import throwaway_certificate

Serve = Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]
HEAD = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[Node]:
    certificate = throwaway_certificate()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.cert, certificate.key)

    async def connected(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        try:
            await serve(tls)
        except trio.BrokenResourceError:
            pass  # the client has left
        finally:
            await trio.aclose_forcefully(tls)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connected, 0)
        port = listeners[0].socket.getsockname()[1]
        yield find_node(f"https://127.0.0.1:{port}", context or tls_context(None, None))
        nursery.cancel_scope.cancel()


def answering(*pieces: bytes, heard: list[bytes] | None = None, until: bytes = b"\r\n\r\n") -> Serve:
    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        data = b""
        while until not in data:
            data += await stream.receive_some(65536)
        if heard is not None:
            heard.append(data)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.001)  # so that they come apart

    return serve


@pytest.mark.parametrize(
    ("pieces", "reply"),
    [
        ([OK], Reply(200, b"ok")),
        ([bytes([byte]) for byte in OK], Reply(200, b"ok")),
        ([OK + b"and more"], Reply(200, b"ok")),
        ([b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"], Reply(204)),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], Reply(503)),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"], Reply(200, b"ok")),
    ],
)
async def test_replies(pieces: list[bytes], reply: Reply) -> None:
    async with serving(answering(*pieces)) as node:
        assert await exchange(node, HEAD, b"") == reply


@pytest.mark.parametrize(
    ("pieces", "cause"),
    [
        ([], "closed before the reply|EOF"),
        ([b"HTTP/1.1 200 OK\r\nContent-"], "closed before the reply|EOF"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"], "closed within the reply|EOF"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"], "not a reply|EOF"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "not a reply of HTTP/1.1"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"], "above 8 MiB"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000], "too long a head"),
    ],
)
async def test_no_replies(pieces: list[bytes], cause: str) -> None:
    async with serving(answering(*pieces)) as node:
        with pytest.raises(ExchangeFailed, match=cause):
            await exchange(node, HEAD, b"")


async def test_head_and_body_arrive_whole_also_over_a_slow_link() -> None:
    heard: list[bytes] = []
    body = bytes(range(256)) * 40 + b"end of body"
    async with serving(answering(OK, heard=heard, until=b"end of body")) as node:
        await exchange(node, HEAD, body)
        await exchange(node, HEAD, body, bytes_per_second=1_000_000)
    assert heard == [HEAD + body] * 2


async def test_a_server_that_says_nothing_and_one_that_isnt_there() -> None:
    async def silent(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await trio.sleep_forever()

    async with serving(silent) as node:
        with pytest.raises(ExchangeFailed, match="no reply in time"):
            await exchange(node, HEAD, b"", time_limit=0.05)
    with pytest.raises(ExchangeFailed, match="connect: Connection refused"):
        await exchange(node, HEAD, b"")


async def test_a_certificate_is_checked_against_the_ca_that_was_given() -> None:
    certificate = throwaway_certificate()
    async with serving(answering(OK), tls_context(str(certificate.cert), None)) as node:
        assert (await exchange(node, HEAD, b"")).status == 200
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with serving(answering(OK), strict) as node:
        with pytest.raises(ExchangeFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await exchange(node, HEAD, b"")


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1",
        "https://a",
        "a:1",
        "https://a:x",
        "https://a:1/api",
        "https://u@a:1",
        "https://[::1",
        "https://a:0x1",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Failure):
        find_node(url, tls_context(None, None))


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("https://127.0.0.1:1", True),
        ("https://127.9.9.9:1/", True),
        ("https://[::1]:1", True),
        ("https://192.0.2.1:1", False),
    ],
)
def test_what_is_this_machine(url: str, loopback: bool) -> None:
    assert find_node(url, tls_context(None, None)).is_loopback is loopback


async def test_a_name_with_several_addresses_is_asked_where_it_listens() -> None:
    async with serving(answering(OK)) as node:
        away = ("127.0.0.1", find_free_port())
        both = evolve(node, places=((socket.AF_INET, away), *node.places))
        with pytest.raises(ExchangeFailed, match="refused"):
            await exchange(both, HEAD, b"")
        found = await trio.to_thread.run_sync(both.where_it_listens)
        assert found.places == node.places
        assert (await exchange(found, HEAD, b"")).status == 200
    assert both.where_it_listens() == both  # nobody: what is asked says why


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
