"""How an agent connects: a new connection for every request, TLS 1.3 without SNI, ALPN or resumption, Nagle's algorithm
on.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from socket import IPPROTO_TCP, SHUT_RDWR, TCP_NODELAY
from typing import Any, Literal

import trio

from wazuh_comms_trio.testing.agent.http import ExchangeFailed

__all__ = ["Connect", "Verification", "agent_tls", "close_as_agent", "connect_tcp", "open_tls"]

#: Makes a new connection, before TLS: ``connect_tcp(host, port)`` or a ``MemoryListener``'s ``connect``.
Connect = Callable[[], Awaitable[trio.abc.Stream]]

#: ``none``; ``certificate``: signed by the CA; ``full``: moreover made for the host.
Verification = Literal["none", "certificate", "full"]


def connect_tcp(host: str, port: int) -> Connect:
    """Connections over TCP. Nagle's algorithm stays on, as agents have it."""

    async def connect() -> trio.SocketStream:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(IPPROTO_TCP, TCP_NODELAY, 0)
        return stream

    return connect


def agent_tls(
    *, verification: Verification = "none", ca: Path | None = None, certificate: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """An agent's TLS settings. ``ca`` is what the server's certificate must come from; ``certificate`` (certificate,
    key) is the agent's own, for servers with ``ssl.use_ca``. The host name is checked by ``open_tls``, since checking
    it here would send SNI.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if verification == "none" else ssl.CERT_REQUIRED
    if ca is not None:
        context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


async def open_tls(
    connect: Connect,
    context: ssl.SSLContext,
    *,
    host: str,
    verification: Verification = "none",
    time_limit: float = 60.0,
) -> trio.SSLStream[trio.abc.Stream]:
    """Connects and shakes hands. Raises ``ExchangeFailed``; nothing stays open then, nor when cancelled."""
    try:
        with trio.fail_after(time_limit):
            transport = await connect()
            tls = trio.SSLStream(transport, context, https_compatible=True)
            try:
                await tls.do_handshake()
                if verification == "full" and not certificate_names(tls.getpeercert(), host):
                    raise ExchangeFailed(f"the server's certificate isn't for {host}")
            except BaseException:
                await trio.aclose_forcefully(transport)
                raise
    except trio.TooSlowError:
        raise ExchangeFailed("no connection in time") from None
    except (trio.BrokenResourceError, OSError) as exc:
        raise ExchangeFailed(f"no connection: {exc.__cause__ or exc}") from exc
    return tls


async def close_as_agent(stream: trio.abc.Stream) -> None:
    """``shutdown`` in both directions, without a TLS close_notify."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if isinstance(transport, trio.SocketStream):
        with suppress(OSError):  # the server was first
            transport.socket.shutdown(SHUT_RDWR)
    await trio.aclose_forcefully(transport)


def certificate_names(certificate: Mapping[str, Any] | None, host: str) -> bool:
    """Is ``host`` among the certificate's subjectAltNames? (Names may have ``*`` as their first label.)"""
    names = (certificate or {}).get("subjectAltName", ())
    try:
        address = ip_address(host)
    except ValueError:
        wanted = host.lower().rstrip(".")
        for kind, name in names:
            pattern = str(name).lower()
            if kind == "DNS" and (
                pattern == wanted or (pattern.startswith("*.") and pattern[2:] == wanted.partition(".")[2] != "")
            ):
                return True
        return False
    return any(kind == "IP Address" and ip_address(str(name).strip()) == address for kind, name in names)
