"""Connections of balancers: whose they are in the application and the log, and what strangers can't make us believe."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from tests.conftest import Certificates
from tests.http.balancers.test_proxy_header import BLOCK_4, HELLO, binary, tlv
from tests.http.server.listener import Server, read_reply, read_to_end, request_bytes, serving
from wazuh_comms_trio.config.models import Limits, Ssl
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.http.balancers.trusted import TrustedBalancers
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.testing.agent.connection import agent_tls, open_tls
from wazuh_comms_trio.testing.agent.http import Reply

BALANCER, STRANGER = "10.0.0.5", "198.51.100.66"
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 27000\r\n"
REQUEST = request_bytes("GET", "/who")


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who is calling."""
    client = scope["client"]
    body = f"{client[0]} {client[1]}".encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def trust(server: Server, *, proxy: str = "", forwarded: str = "") -> None:
    server.context.balancers = TrustedBalancers.of(proxy.split(), forwarded.split())


async def ask(server: Server, host: str, *pieces: bytes) -> Reply:
    stream = await server.listener.connect(host)
    for piece in pieces:
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()
    return await read_reply(stream)


@pytest.mark.parametrize("header", [LINE, binary(payload=BLOCK_4), binary(payload=BLOCK_4 + tlv(0xEA, bytes(9000)))])
async def test_the_header_says_whose_connection_it_is(header: bytes, autojump_clock: MockClock) -> None:
    async with serving(app=who) as server:
        trust(server, proxy="10.0.0.0/24")
        assert (await ask(server, BALANCER, header + REQUEST)).body == b"203.0.113.7 4711"
        assert (await ask(server, BALANCER, header, REQUEST)).body == b"203.0.113.7 4711"
        bytewise = [header[i : i + 1] for i in range(60)] + [header[60:], REQUEST]
        assert (await ask(server, BALANCER, *(piece for piece in bytewise if piece))).body == b"203.0.113.7 4711"
        assert (await ask(server, STRANGER, REQUEST)).body.startswith(STRANGER.encode())  # without a header, as ever


async def test_before_tls(certificates: Certificates, autojump_clock: MockClock) -> None:
    context = server_context(Ssl(certificates.key, certificates.cert))
    async with serving(app=who, ssl_context=context) as server:
        trust(server, proxy=BALANCER)

        def connect(host: str, header: bytes) -> Callable[[], object]:
            async def connected() -> trio.abc.Stream:
                stream = await server.listener.connect(host)
                await stream.send_all(header)
                return stream

            return connected

        for header, client in (
            (LINE, b"203.0.113.7 4711"),
            (binary(payload=BLOCK_4), b"203.0.113.7 4711"),
            (binary(command=0, family=0, transport=0), BALANCER.encode()),  # a check of the balancer's own
            (b"PROXY UNKNOWN\r\n", BALANCER.encode()),
        ):
            tls = await open_tls(connect(BALANCER, header), agent_tls(), host="localhost")  # type: ignore[arg-type]
            await tls.send_all(REQUEST)
            assert (await read_reply(tls)).body.startswith(client)
        with pytest.raises(Exception, match="no connection"):
            await open_tls(connect(STRANGER, LINE), agent_tls(), host="localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [HELLO, REQUEST, b"PROXY TCP4 nonsense\r\n", binary(payload=b"short"), b"\r\n\r\n\0\r\nX"]
)
async def test_a_trusted_balancer_without_a_sound_header_is_closed(
    data: bytes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with serving(app=who) as server:
        trust(server, proxy=BALANCER)
        for _ in range(3):
            stream = await server.listener.connect(BALANCER)
            await stream.send_all(data)
            before = trio.current_time()
            assert await read_to_end(stream) == b""
            assert trio.current_time() == before  # at once: nothing is waited for
    failed = {(name, *labels): value for name, labels, value in server.context.metrics.snapshot()["values"]}
    assert failed["wazuh_comms_tls_handshakes_failed_total", server.context.name, "proxy_header"] == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1  # a minute
    assert f"{BALANCER}:" in warnings[0]
    assert "balancers.proxy_protocol" in warnings[0]


async def test_a_look_whether_the_port_is_open_is_nothing_to_log(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with serving(app=who) as server:
        trust(server, proxy=BALANCER)
        stream = await server.listener.connect(BALANCER)
        await stream.send_eof()
        assert await read_to_end(stream) == b""
        stream = await server.listener.connect(BALANCER)
        stream.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert server.context.connections == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_header_has_the_time_of_a_handshake(autojump_clock: MockClock) -> None:
    """However slowly its bytes come: with those of the handshake together."""
    async with serving(app=who, limits=Limits(handshake_timeout=10)) as server:
        trust(server, proxy=BALANCER)
        stream = await server.listener.connect(BALANCER)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            for position in range(len(LINE)):
                await stream.send_all(LINE[position : position + 1])
                await trio.sleep(1)
        assert trio.current_time() - began == pytest.approx(10, abs=1.1)
        assert server.context.connections == 0


async def test_forwarded_for_counts_from_trusted_networks_alone(autojump_clock: MockClock) -> None:
    forwarded = request_bytes("GET", "/who", headers=[b"X-Forwarded-For: 198.51.100.1, 203.0.113.7"])
    async with serving(app=who) as server:
        trust(server, forwarded="10.0.0.0/24")
        assert (await ask(server, BALANCER, forwarded)).body == b"203.0.113.7 0"
        assert (await ask(server, BALANCER, REQUEST)).body.startswith(BALANCER.encode())
        assert (await ask(server, STRANGER, forwarded)).body.startswith(STRANGER.encode())
        trust(server)
        assert (await ask(server, BALANCER, forwarded)).body.startswith(BALANCER.encode())


async def test_a_terminating_balancer_behind_one_that_passes_connections_on(autojump_clock: MockClock) -> None:
    """The PROXY header says who the second balancer's client is: another trusted balancer, whose header counts."""
    forwarded = request_bytes("GET", "/who", headers=[b"X-Forwarded-For: 192.0.2.44"])
    async with serving(app=who) as server:
        trust(server, proxy=BALANCER, forwarded="203.0.113.7")
        assert (await ask(server, BALANCER, LINE + forwarded)).body == b"192.0.2.44 0"
        other = b"PROXY TCP4 198.51.100.9 192.0.2.1 5 27000\r\n"
        assert (await ask(server, BALANCER, other + forwarded)).body == b"198.51.100.9 5"


async def test_refusals_name_the_client(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        trust(server, proxy=BALANCER, forwarded=BALANCER)
        assert (await ask(server, BALANCER, LINE + request_bytes("GET", "/nowhere"))).status == 404
        assert (await ask(server, BALANCER, LINE + b"GET / HTTP/9.9\r\n\r\n")).status == 400
        line = b"PROXY UNKNOWN\r\n"
        forwarded = request_bytes("GET", "/nowhere", headers=[b"X-Forwarded-For: 192.0.2.44"])
        assert (await ask(server, BALANCER, line + forwarded)).status == 404
    text = caplog.text
    assert "203.0.113.7:4711 GET /nowhere: 404" in text
    assert "203.0.113.7:4711 - -: 400" in text
    assert "192.0.2.44 GET /nowhere: 404" in text
