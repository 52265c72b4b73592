"""One request as an agent makes it: on a TLS connection of its own, which ends without close_notify.

A fleet makes thousands of them a second on one core. So a connection is the standard library's SSL socket and trio's
waiting for descriptors, nothing between; replies are read by the HTTP client's short way, and what is unusual by h11.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import h11
import trio
from attrs import evolve, frozen

from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.http.client.simple_messages import parse_head

__all__ = ["ExchangeFailed", "Node", "Reply", "exchange", "find_node"]

T = TypeVar("T")

#: Replies with more than this are refused by agents.
_REPLY_LIMIT: Final = 8 * 1024 * 1024
_HEAD_LIMIT: Final = 16 * 1024
_RECEIVE: Final = 65536
#: A slow link sends so many pieces a second.
_PIECES: Final = 4
#: Seconds to find out which of several addresses is listened on.
_PROBE_LIMIT: Final = 2.0


class ExchangeFailed(Exception):
    """No reply that an agent could use; ``str()`` is a short cause, the same for the same fault."""


@frozen
class Reply:
    status: int
    body: bytes = b""


@frozen
class Node:
    """The node as a fleet sees it: requests go to the first of ``places``. ``name`` is what certificates are compared
    with, None where they aren't looked at."""

    places: tuple[tuple[socket.AddressFamily, tuple[Any, ...]], ...]
    host: str
    context: ssl.SSLContext
    name: str | None

    @property
    def addresses(self) -> list[str]:
        return [str(address[0]) for _, address in self.places]

    @property
    def port(self) -> int:
        return int(self.places[0][1][1])

    @property
    def is_loopback(self) -> bool:
        return all(ip_address(address.partition("%")[0]).is_loopback for address in self.addresses)

    def where_it_listens(self) -> Node:
        """Of a name with several addresses (``localhost``) the first one that takes a connection is asked from then on.
        Blocks for some seconds at most."""
        for place in self.places if len(self.places) > 1 else ():
            with suppress(OSError), socket.socket(place[0], socket.SOCK_STREAM) as sock:
                sock.settimeout(_PROBE_LIMIT)
                sock.connect(place[1])
                return evolve(self, places=(place,))
        return self


def tls_context(ca: str | None, certificate: tuple[str, str] | None) -> ssl.SSLContext:
    """TLS as agents have it, 1.3 alone; without ``ca`` no certificate is checked. Raises ``OSError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = ca is not None
    context.verify_mode = ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED
    if ca is not None:
        context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def find_node(url: str, context: ssl.SSLContext) -> Node:
    """The node at a URL. Raises ``Failure`` for what isn't ``https://HOST:PORT`` or has no address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Failure(f"{url}: {error}") from None
    if parts.scheme != "https" or not host or port is None or parts.path not in ("", "/") or parts.query or "@" in url:
        raise Failure(f"{url} isn't of the form https://HOST:PORT")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Failure(f"{host}: {getattr(error, 'strerror', None) or error}") from None
    name = host if context.verify_mode == ssl.CERT_REQUIRED else None
    return Node(tuple(dict.fromkeys((each[0], each[4]) for each in found)), host, context, name)


async def exchange(
    node: Node, head: bytes, body: bytes, *, time_limit: float = 60.0, bytes_per_second: int | None = None
) -> Reply:
    """Connects, sends the head, then the body, and reads the reply. Raises ``ExchangeFailed``. The connection is closed
    in any case; cancelled, the request may have been served."""
    family, address = node.places[0]
    raw = sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        with trio.fail_after(time_limit):
            await _connect(raw, address)
            sock = node.context.wrap_socket(raw, do_handshake_on_connect=False, server_hostname=node.name)
            await _drive(sock.do_handshake, sock)
            await _send(sock, head, bytes_per_second)
            if body:
                await _send(sock, body, bytes_per_second)
            return await _receive(sock)
    except trio.TooSlowError:
        raise ExchangeFailed("no reply in time") from None
    except ssl.SSLError as error:
        raise ExchangeFailed(f"TLS: {error.reason or error.strerror or error}") from error
    except OSError as error:
        raise ExchangeFailed(error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


async def _connect(sock: socket.socket, address: tuple[Any, ...]) -> None:
    try:
        sock.connect(address)
    except BlockingIOError:
        await trio.lowlevel.wait_writable(sock)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, f"connect: {os.strerror(error)}") from None
    except OSError as error:
        raise OSError(error.errno, f"connect: {error.strerror}") from error


async def _drive(call: Callable[[], T], sock: socket.socket) -> T:
    """Repeats a call that doesn't block until OpenSSL has what it needs."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)


async def _send(sock: socket.socket, data: bytes, bytes_per_second: int | None) -> None:
    view, position = memoryview(data), 0
    size = len(view) if bytes_per_second is None else max(1, bytes_per_second // _PIECES)
    while position < len(view):
        sent = await _drive(partial(sock.send, view[position : position + size]), sock)
        position += sent
        if bytes_per_second is not None:
            await trio.sleep(sent / bytes_per_second)


async def _receive(sock: socket.socket) -> Reply:
    data = b""
    while True:
        piece = await _drive(lambda: sock.recv(_RECEIVE), sock)
        data += piece
        end = data.find(b"\r\n\r\n") + 4
        if end >= 4:
            break
        if not piece:
            raise ExchangeFailed("closed before the reply")
        if len(data) > _HEAD_LIMIT:
            raise ExchangeFailed("a reply with too long a head")
    if data.startswith(b"HTTP/1.1 204 "):
        return Reply(204)
    head = parse_head(data, end)
    if head is None:
        return await _receive_unusual(sock, data)
    if head.length > _REPLY_LIMIT:
        raise ExchangeFailed("a reply above 8 MiB")
    body = bytearray(data[end:])
    while len(body) < head.length:
        piece = await _drive(lambda: sock.recv(_RECEIVE), sock)
        if not piece:
            raise ExchangeFailed("closed within the reply")
        body += piece
    return Reply(head.status, bytes(body[: head.length]))


async def _receive_unusual(sock: socket.socket, data: bytes) -> Reply:
    """A reply in chunks, or one that is none."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "node")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, body = 0, bytearray()
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await _drive(lambda: sock.recv(_RECEIVE), sock))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            if len(body) > _REPLY_LIMIT:
                raise ExchangeFailed("a reply above 8 MiB")
    except h11.RemoteProtocolError:
        raise ExchangeFailed("not a reply of HTTP/1.1") from None
    return Reply(status, bytes(body))
