"""A TCP proxy whose ways can be switched: what stands between the client and a node in tests of faults. TLS ends there
if asked to."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import trio

Mode = Literal["pass", "refuse", "hang"]


class Proxy:
    """``pass``: as if it weren't there. ``refuse``: connections end at once. ``hang``: they are taken, what comes is
    swallowed, nothing is answered. ``cut_after``: that many bytes of the next answer go through, then the connection
    breaks. ``delay``: seconds before each piece of an answer. ``on_request`` sees what clients send."""

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self.port = 0
        self.mode: Mode = "pass"
        self.cut_after: int | None = None
        self.delay = 0.0
        self.accepted = 0
        self.received = 0
        self.on_request: Callable[[bytes], None] = lambda data: None
        self._tls = tls
        self._scopes: set[trio.CancelScope] = set()
        self._changed = trio.Event()

    def switch(self, mode: Mode) -> None:
        """From now on; connections that are open break, unless it is ``hang``: then they fall silent."""
        self.mode = mode
        self._changed.set()
        self._changed = trio.Event()
        if mode != "hang":
            self.break_all()

    def break_all(self) -> None:
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._handle, listeners, task_status=task_status)

    async def _handle(self, client: trio.abc.Stream) -> None:
        self.accepted += 1
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with client:
                    if self.mode == "refuse":
                        return
                    if self._tls is not None:
                        client = trio.SSLStream(client, self._tls, server_side=True, https_compatible=True)
                        await client.do_handshake()
                    await self._connect(client)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass
            finally:
                self._scopes.discard(scope)

    async def _connect(self, client: trio.abc.Stream) -> None:
        node = await trio.open_tcp_stream("127.0.0.1", self.target_port)
        async with node, trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, client, node, nursery.cancel_scope)
            await self._return(node, client)
            nursery.cancel_scope.cancel()

    async def _forward(self, client: trio.abc.Stream, node: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while data := await _read(client):
                self.received += len(data)
                self.on_request(data)
                await self._flowing()
                await node.send_all(data)
        finally:
            scope.cancel()

    async def _return(self, node: trio.abc.Stream, client: trio.abc.Stream) -> None:
        while data := await _read(node):
            await self._flowing()
            if self.delay:
                await trio.sleep(self.delay)
            if self.cut_after is not None:
                kept, self.cut_after = data[: self.cut_after], None
                await client.send_all(kept)
                return
            await client.send_all(data)

    async def _flowing(self) -> None:
        while self.mode == "hang":
            await self._changed.wait()


async def _read(stream: trio.abc.Stream) -> bytes:
    """The next piece; empty at the end, however that came."""
    try:
        return bytes(await stream.receive_some(65536))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


@asynccontextmanager
async def proxy(target_port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    made = Proxy(target_port, tls)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.serve)
        try:
            yield made
        finally:
            nursery.cancel_scope.cancel()
