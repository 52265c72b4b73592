"""What a refused agent leaves for operators, and what it is told itself."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from tests.conftest import Certificates
from wazuh_comms_trio.config.models import Ssl
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.daemon.logging.formats import make_formatter
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.http.server.listener_context import WORTH_A_WARNING
from wazuh_comms_trio.http.server.streams.tls_stream import handshake_cause
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.testing import open_daemon
from wazuh_comms_trio.testing.agent.http import exchange, request_head

UUID = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


class Lines(logging.Handler):
    """As the daemon writes them, in the task that logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(make_formatter("plain"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.set_level(logging.DEBUG)
    handler = Lines()
    logging.getLogger("wazuh_comms_trio").addHandler(handler)
    yield handler.lines
    logging.getLogger("wazuh_comms_trio").removeHandler(handler)


async def test_refused_log_ins(autojump_clock: MockClock, log: list[str]) -> None:
    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent(UUID)
        assert (await agent.authenticate()).status == 200
        for _ in range(3):
            reply = await daemon.client(UUID, "x" * 32).authenticate()
            assert (reply.status, reply.json()["message"]) == (401, "Invalid key")  # no cause on the wire
        stranger = await daemon.client(UUID.replace("0", "1"), "x" * 32).authenticate()
        assert stranger.status == 403
        metrics = daemon.worker.metrics
        assert metrics.value(families.LOGINS_TAKEN) == 1
        assert metrics.value(families.LOGINS_REFUSED, "wrong_key") == 3
        assert metrics.value(families.LOGINS_REFUSED, "unknown_agent") == 1
    warnings = [line for line in log if " WARNING " in line]
    assert len(warnings) == 2  # the first of each cause
    assert f"a log-in of agent {UUID} from " in warnings[0]
    assert "was refused: wrong_key [request=" in warnings[0]
    assert "unknown_agent" in warnings[1]
    (taken,) = [line for line in log if f"agent {UUID} logged in from " in line]
    assert " DEBUG " in taken


async def test_refused_tokens(autojump_clock: MockClock, log: list[str]) -> None:
    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent(UUID)
        await agent.authenticate()
        await daemon.backends.agents.remove(UUID)
        assert (await agent.post_stateless([])).status == 403
        head = request_head("GET", "/api/v1/commands", [("Host", "h"), ("Authorization", "Bearer not.a.token")])
        async with await daemon.connect() as stream:
            assert (await exchange(stream, head)).status == 403
        metrics = daemon.worker.metrics
        assert metrics.value(families.TOKENS_REFUSED, "agent_removed") == 1
        assert metrics.value(families.TOKENS_REFUSED, "malformed") == 1
    warnings = [line for line in log if " WARNING " in line]
    assert f"a token of agent {UUID} from " in warnings[0]
    assert "agent_removed" in warnings[0]
    assert "malformed" in warnings[1]


async def test_a_reply_of_5xx_leads_to_its_lines(autojump_clock: MockClock, log: list[str]) -> None:
    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent(UUID)
        assert (await agent.authenticate()).header("X-Request-Id") is None

        async def away(*_: object, **__: object) -> None:
            await trio.lowlevel.checkpoint()
            raise BackendUnavailable

        daemon.worker.services.scans.scan = away  # type: ignore[method-assign,assignment]
        reply = await agent.scan({"type": "packagelist"})
        assert reply.status == 503
        await trio.sleep(1)  # it is counted once it was sent
        assert daemon.worker.metrics.value(families.REQUESTS, "agents", "/api/v1/vulnerability/scan", "503") == 1
    request = reply.header("X-Request-Id")
    assert request
    assert [line for line in log if f"[request={request}" in line and ": 503 " in line]


def server_error(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLError | None:
    """Of a real handshake in memory, with alerts and all."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(10):
        for side in (theirs, ours):
            try:
                side.do_handshake()
                if side is ours:
                    ours.read(1)  # in TLS 1.3 what the client thinks of us comes after our handshake
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                if side is ours:
                    return error
    return None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_causes_of_failed_handshakes(certificates: Certificates, version: ssl.TLSVersion) -> None:
    server = server_context(Ssl(certificates.key, certificates.cert))
    asking = server_context(Ssl(certificates.key, certificates.cert, use_ca=True, ca=certificates.ca))
    newest = server_context(Ssl(certificates.key, certificates.cert, ssl_protocol="TLSv1.3"))
    trusting = ssl.create_default_context(cafile=certificates.ca)
    distrusting = ssl.create_default_context(cafile=certificates.other_ca)
    for context in (trusting, distrusting):
        context.maximum_version = version
    found = {}
    for name, client, context in (
        ("well", trusting, server),
        ("distrusting", distrusting, server),
        ("without a certificate", trusting, asking),
        ("too old", trusting, newest),
    ):
        error = server_error(client, context)
        wrapped = trio.BrokenResourceError()
        wrapped.__cause__ = error
        found[name] = None if error is None else handshake_cause(wrapped)
    assert found == {
        "well": None,
        "distrusting": "distrusts_us",
        "without a certificate": "no_client_certificate",
        "too old": "protocol_version" if version is ssl.TLSVersion.TLSv1_2 else None,
    }
    assert found["distrusting"] in WORTH_A_WARNING


def test_who_only_leaves() -> None:
    assert handshake_cause(trio.BrokenResourceError()) == "left"
    assert handshake_cause(OSError("reset")) == "left"
