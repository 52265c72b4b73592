"""Pairs of connected streams of each kind."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
import trustme

from tests.transport.peers import Listening
from wazuh_comms_trio.transport.aio.protocol import ConnectionState, WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


@asynccontextmanager
async def stream_pair(kind: str) -> AsyncIterator[Pair]:
    """Both ends of a stream: in memory, a socket pair, TCP, TLS over a socket pair."""
    if kind == "memory":
        left: trio.abc.Stream
        right: trio.abc.Stream
        left, right = trio.testing.memory_stream_pair()
    elif kind == "tcp":
        (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        left = await trio.open_tcp_stream("127.0.0.1", tcp.socket.getsockname()[1])
        right = await tcp.accept()
        await tcp.aclose()
    else:
        a, b = socket.socketpair()
        left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (a, b))
        if kind == "tls":
            authority = trustme.CA()
            client_context = ssl.create_default_context()
            authority.configure_trust(client_context)
            server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert("node").configure_cert(server_context)
            left = trio.SSLStream(left, client_context, server_hostname="node", https_compatible=True)
            right = trio.SSLStream(right, server_context, server_side=True, https_compatible=True)
    try:
        yield left, right
    finally:
        await trio.aclose_forcefully(left)
        await trio.aclose_forcefully(right)


def state_of(protocol: WazuhAsyncProtocol) -> ConnectionState:
    return protocol.state


KINDS = ["memory", "socket", "tcp", "tls"]


async def echo(payload: bytes) -> bytes:
    return b"re:" + payload


async def connected(server: Listening, **options: Any) -> WazuhAsyncSocket:
    return await WazuhAsyncSocket.from_path(server.path, **options)


class Unhelpful(trio.abc.Stream):
    """A stream of a program's own, around another one."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()
