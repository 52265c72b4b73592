"""TLS: what the configuration allows, what a client is told that isn't allowed in, and what isn't TLS at all."""

from __future__ import annotations

import logging
import ssl
import warnings
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from socket import SHUT_RDWR

import attrs
import pytest
import trio
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Certificates
from tests.http.server.listener import (
    TOKEN,
    FakeOffer,
    Fakes,
    Server,
    read_reply,
    read_to_end,
    request_bytes,
    serving,
    serving_tcp,
    until,
)
from wazuh_comms_trio.config.models import Ssl, SslProtocol
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.http.server.streams.tls_stream import TlsStream
from wazuh_comms_trio.testing.agent.http import Reply
from wazuh_comms_trio.testing.streams import memory_connection


@pytest.fixture
def ssl_settings(certificates: Certificates) -> Ssl:
    return Ssl(certificates.key, certificates.cert, ca=certificates.ca)


def client_context(
    certificates: Certificates,
    version: ssl.TLSVersion | None = None,
    *,
    own_certificate: bool = False,
    ciphers: str | None = None,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca)
    if own_certificate:
        context.load_cert_chain(certificates.client_cert, certificates.client_key)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = version
            context.minimum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context


async def try_it(server: Server, context: ssl.SSLContext) -> tuple[Reply, trio.SSLStream[trio.abc.Stream]]:
    """One request. The stream's ``receive_some`` insists on a close_notify."""
    stream: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
        await server.connect(), context, server_hostname="localhost"
    )
    await stream.do_handshake()
    await stream.send_all(request_bytes("GET", "/api/v1/"))
    reply = await read_reply(stream)
    assert await stream.receive_some() == b""
    return reply, stream


OLD = "DEFAULT:@SECLEVEL=0"
V1, V1_1, V1_2, V1_3 = (getattr(ssl.TLSVersion, name) for name in ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"))


@pytest.mark.parametrize(
    ("protocol", "allowed"),
    [
        ("auto", {V1_2, V1_3}),
        ("TLS", {V1_2, V1_3}),
        ("TLSv1", {V1}),
        ("TLSv1.1", {V1_1}),
        ("TLSv1.2", {V1_2}),
        ("TLSv1.3", {V1_3}),
    ],
)
async def test_versions(
    protocol: SslProtocol, allowed: set[ssl.TLSVersion], ssl_settings: Ssl, certificates: Certificates
) -> None:
    context = server_context(attrs.evolve(ssl_settings, ssl_protocol=protocol))
    async with serving(ssl_context=context) as server:
        for version in (V1, V1_1, V1_2, V1_3):
            client = client_context(certificates, version, ciphers=OLD)
            if version in allowed:
                reply, stream = await try_it(server, client)
                assert reply.status == 200
                assert stream.version() == {V1: "TLSv1", V1_1: "TLSv1.1", V1_2: "TLSv1.2", V1_3: "TLSv1.3"}[version]
            else:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await try_it(server, client)
                # The client is told, rather than left with a connection that was closed on it.
                assert "PROTOCOL" in str(getattr(caught.value.__cause__, "reason", ""))


async def test_ciphers(ssl_settings: Ssl, certificates: Certificates) -> None:
    context = server_context(attrs.evolve(ssl_settings, ssl_ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))
    async with serving(ssl_context=context) as server:
        _, stream = await try_it(server, client_context(certificates, V1_2))
        assert stream.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        with pytest.raises(trio.BrokenResourceError) as caught:
            await try_it(server, client_context(certificates, V1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))
        assert "HANDSHAKE_FAILURE" in str(getattr(caught.value.__cause__, "reason", ""))
    for blank in ("", "  ", None):
        assert server_context(attrs.evolve(ssl_settings, ssl_ciphers=blank)).get_ciphers()


@pytest.mark.parametrize("version", [V1_2, V1_3])
async def test_agents_show_certificates_with_use_ca(
    version: ssl.TLSVersion, ssl_settings: Ssl, certificates: Certificates
) -> None:
    async with serving(ssl_context=server_context(attrs.evolve(ssl_settings, use_ca=True))) as server:
        reply, _ = await try_it(server, client_context(certificates, version, own_certificate=True))
        assert reply.status == 200
        with pytest.raises(trio.BrokenResourceError) as caught:
            await try_it(server, client_context(certificates, version))
        assert getattr(caught.value.__cause__, "reason", "") in (
            "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            "SSLV3_ALERT_HANDSHAKE_FAILURE",
        )
    foreign = attrs.evolve(ssl_settings, use_ca=True, ca=certificates.other_ca)
    async with serving(ssl_context=server_context(foreign)) as server:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await try_it(server, client_context(certificates, version, own_certificate=True))
        assert "UNKNOWN_CA" in str(getattr(caught.value.__cause__, "reason", ""))


async def test_without_use_ca_a_certificate_isnt_asked_for(ssl_settings: Ssl, certificates: Certificates) -> None:
    async with serving(ssl_context=server_context(ssl_settings)) as server:
        reply, _ = await try_it(server, client_context(certificates))
        assert reply.status == 200


def test_use_ca_without_ca(ssl_settings: Ssl) -> None:
    with pytest.raises(ValueError, match="use_ca"):
        server_context(attrs.evolve(ssl_settings, use_ca=True, ca=None))


def test_encrypted_keys(ssl_settings: Ssl, tmp_path: Path) -> None:
    """Without the password: an error, and not a question on the terminal."""
    key = load_pem_private_key(ssl_settings.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    encrypted.write_bytes(pem)
    server_context(attrs.evolve(ssl_settings, key=encrypted, keyfile_password="open sesame"))  # noqa: S106
    for wrong in ("something else", None):
        with pytest.raises(ssl.SSLError):
            server_context(attrs.evolve(ssl_settings, key=encrypted, keyfile_password=wrong))


async def test_no_alpn_and_no_tickets(ssl_settings: Ssl, certificates: Certificates) -> None:
    context = client_context(certificates)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(ssl_context=server_context(ssl_settings)) as server:
        _, stream = await try_it(server, context)
        assert stream.selected_alpn_protocol() is None
        assert not stream.session.has_ticket
        context = client_context(certificates, V1_2)
        context.options |= ssl.OP_NO_TICKET
        _, stream = await try_it(server, context)
        assert not stream.session.has_ticket  # only who asks gets one, and only in TLS 1.2


@pytest.mark.parametrize("use_ca", [False, True])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_stays_in_memory(
    ssl_settings: Ssl, certificates: Certificates, version: ssl.TLSVersion, use_ca: bool
) -> None:
    """OpenSSL would keep those of TLS 1.2 for two hours, a kilobyte or more each; a ticket is kept by the client."""
    context = server_context(attrs.evolve(ssl_settings, use_ca=use_ca))
    client = client_context(certificates, version, own_certificate=use_ca)
    async with serving(ssl_context=context) as server:
        for _ in range(3):
            reply, stream = await try_it(server, client)
            assert reply.status == 200
            await stream.aclose()
    assert context.session_stats()["accept_good"] == 3
    assert context.session_stats()["number"] == 0


async def test_an_agent_ends_without_close_notify(ssl_settings: Ssl, certificates: Certificates) -> None:
    """In mid-body, too, where it is an end like any other."""
    async with serving(ssl_context=server_context(ssl_settings)) as server:
        transport = await server.connect()
        stream = trio.SSLStream(transport, client_context(certificates), server_hostname="localhost")
        await stream.do_handshake()
        await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"x" * 10)[:-5])
        await transport.send_eof()
        reply = await read_reply(stream)
        assert (reply.status, reply.json()["code"]) == (400, 2708)


async def test_bodies_through_tls(ssl_settings: Ssl, certificates: Certificates) -> None:
    body = bytes(range(256)) * 4000
    async with serving(ssl_context=server_context(ssl_settings), buffer_bytes=3000) as server:
        server.fakes.files.files[b"big"] = body
        for request, status in (
            (request_bytes("POST", "/api/v1/events/stateful", body), 200),
            (request_bytes("GET", "/api/v1/files?file_name=big"), 200),
        ):
            stream = trio.SSLStream(await server.connect(), client_context(certificates), server_hostname="localhost")
            await stream.send_all(request)
            reply = await read_reply(stream)
            assert reply.status == status
        assert reply.body == body
    assert server.fakes.stateful.bodies == [body]


async def test_ends_in_both_directions(ssl_settings: Ssl, certificates: Certificates) -> None:
    """Our end doesn't stop us from seeing the peer's, with a close_notify and without one."""
    for politely in (True, False):
        client_end, server_end = memory_connection()
        server = TlsStream(server_end, server_context(ssl_settings))
        client = trio.SSLStream(client_end, client_context(certificates), server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.do_handshake)
        await server_end.send_all(server.seal(b"bye", last=True))
        assert await client.receive_some() == b"bye"
        assert await client.receive_some() == b""
        if politely:
            await client.aclose()
        else:
            await client_end.send_eof()
        assert await server.receive_some() == b""
        assert await server.receive_some() == b""


async def test_a_parked_poll_over_tcp_ends_with_its_agent(ssl_settings: Ssl, certificates: Certificates) -> None:
    fakes = Fakes()
    async with serving_tcp(fakes, ssl_context=server_context(ssl_settings)) as address:
        for politely in (True, False):
            tcp = await trio.open_tcp_stream(*address)
            stream = trio.SSLStream(tcp, client_context(certificates), server_hostname="localhost")
            await stream.send_all(request_bytes("GET", "/api/v1/commands"))
            await until(lambda: fakes.commands.parked == 1)
            if politely:
                await stream.aclose()
            else:
                tcp.socket.shutdown(SHUT_RDWR)
                await tcp.aclose()
            await until(lambda: fakes.commands.parked == 0)
    assert fakes.commands.cancelled == 2


@pytest.mark.parametrize(
    "data",
    [
        b"GET /api/v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/authentication HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0" * 100,
        b"\xff" * 100,
        b"\x16\x03\x01" + b"\xff" * 100,
        b"\x16\x03\x01\x00\x05hello",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x10" + b"x" * 16,
        b"x",
        b"",
    ],
)
async def test_what_isnt_tls_is_closed_without_a_reply(
    data: bytes, ssl_settings: Ssl, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(ssl_context=server_context(ssl_settings)) as server:
        stream = await server.connect()
        await stream.send_all(data)
        await stream.send_eof()
        assert await read_to_end(stream) == b""
    ours = [record for record in caplog.records if record.name.startswith("wazuh_comms_trio")]
    assert len(ours) == 1
    assert ours[0].levelno == logging.DEBUG
    assert not ours[0].exc_info


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_before_tls(data: bytes) -> None:
    certificate = throwaway()

    async def main() -> None:
        async with serving(ssl_context=certificate) as server:
            stream = await server.connect()
            await stream.send_all(data)
            await stream.send_eof()
            with pytest.raises(StopAsyncIteration):
                await anext(aiter(stream))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def throwaway() -> ssl.SSLContext:
    """A server's context whose certificate nobody will ever see."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


async def test_a_connection_reset_in_the_handshake(ssl_settings: Ssl) -> None:
    async with serving(ssl_context=server_context(ssl_settings)) as server:
        stream = await server.listener.connect()
        await stream.send_all(b"\x16\x03")
        await trio.testing.wait_all_tasks_blocked()
        stream.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert not server.context.idle_scopes


@pytest.mark.real_clock
async def test_a_command_is_delivered_to_who_reads_the_reply_and_just_closes(
    ssl_settings: Ssl, certificates: Certificates
) -> None:
    """As plain HTTP clients do: with our end unread that would be a reset, before anything was acknowledged."""
    fakes = Fakes()
    fakes.commands.offers.append(offer := FakeOffer())
    async with serving_tcp(fakes, ssl_context=server_context(ssl_settings)) as address:

        def poll() -> int:
            connection = HTTPSConnection(address[0], address[1], timeout=10, context=context)
            connection.request("GET", "/api/v1/commands", headers={"Authorization": f"Bearer {TOKEN.decode()}"})
            with closing(connection):
                reply = connection.getresponse()
                reply.read()
                return reply.status

        context = client_context(certificates)
        context.check_hostname = False
        assert await trio.to_thread.run_sync(poll) == 200
        await until(lambda: offer.fate)
    assert offer.fate == ["confirmed"]
