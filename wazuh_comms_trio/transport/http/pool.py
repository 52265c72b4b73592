"""HTTP for trio programs, on the project's own client: ``open_http``. Needs the extra ``http`` (h11).

    async with open_http("wdb-http") as db:
        groups = await db.call(db_agent_groups("001"))

What holds under cancellation: waiting for a turn, nothing happened; afterwards the connection is given up, and the
request may have been carried out all the same.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar
from weakref import WeakSet

import trio
from attrs import frozen

from wazuh_comms_trio.errors import BacklogFull, WazuhException
from wazuh_comms_trio.foundation.extras import how_to_install
from wazuh_comms_trio.transport.aio.connecting import connect_nowait, connect_unix
from wazuh_comms_trio.transport.aio.stream_io import SocketIO
from wazuh_comms_trio.transport.errors import TransportClosed, require_trio
from wazuh_comms_trio.transport.http.call import MAX_ANSWER_BYTES, HTTPAnswer, HTTPCall, HTTPRequest
from wazuh_comms_trio.transport.http.errors import HTTPConnectError, HTTPFailed, HTTPTimeout, numbers_of
from wazuh_comms_trio.transport.http.target import HTTPTarget, http_target
from wazuh_comms_trio.transport.pool.connector import Connect
from wazuh_comms_trio.transport.pool.turns import Turns
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.transport.switches import ReleaseName, is_known_at_once

try:
    from wazuh_comms_trio.http.client.connecting import PlainStream
    from wazuh_comms_trio.http.client.connection import HttpFailure
    from wazuh_comms_trio.http.client.pool import HttpPool
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        f"HTTP in trio programs needs {_missing.name}: {how_to_install('http')} (HTTPClient does without)",
        name=_missing.name,
    ) from _missing

T = TypeVar("T")

DEFAULT_SIZE: Final[int] = 4
_RECEIVE_BYTES: Final = 65536


@frozen(kw_only=True)
class HTTPStatistics:
    """A snapshot. The first three are the present, the others count from the beginning."""

    idle: int
    in_use: int
    tasks_waiting: int
    requests: int
    connects: int


class HTTPPool:
    """Made by ``open_http``; may be used by any number of tasks."""

    def __init__(
        self,
        target: HTTPTarget,
        *,
        size: int,
        request_timeout: float,
        idle_timeout: float,
        require_owner: int | str | None,
        max_answer_bytes: int,
        connect: Connect | None,
    ) -> None:
        self.service: str = target.daemon.name
        self.release: Release = target.release
        self._target = target
        self._numbers = numbers_of(self.service)
        self._timeout = request_timeout
        self._require_owner = require_owner
        self._connect_stream = connect
        self._turns = Turns(size)
        self._streams: WeakSet[trio.abc.Stream] = WeakSet()  # that ``connect`` gave
        self._sockets: set[_SocketStream] = set()
        self._closed = False
        self._requests = self._connects = self._in_use = 0
        make = partial(HttpPool, self._open, host="localhost", largest_reply=max_answer_bytes)
        self._kept = make(keepalive=idle_timeout, most_idle=size if target.daemon.reusable else 0)
        self._fresh = make(keepalive=0.0, most_idle=0)  # for what mustn't be sent twice

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._kept.idle} idle, {self._in_use} in use"
        return f"<HTTPPool {self.service} of {self.release}: {state}>"

    def statistics(self) -> HTTPStatistics:
        """A snapshot."""
        return HTTPStatistics(
            idle=self._kept.idle,
            in_use=self._in_use,
            tasks_waiting=self._turns.waiting,
            requests=self._requests,
            connects=self._connects,
        )

    async def call(self, call: HTTPCall[T]) -> T:
        """Carry out a typed call, such as ``db_agent_groups(1)``; returns what it says. A checkpoint.

        :class:`NotInRelease` (1012) for a route that this release doesn't have, before anything is sent;
        :class:`HTTPStatusError` for an answer of 400 and above; ``ValueError`` for another service's call.
        """
        if call.service != self.service:
            raise ValueError(f"{call!r} is none for {self.service}")
        return call.result(await self.send(call.prepare(self.release), repeatable=call.repeatable))

    async def send(self, request: HTTPRequest, *, repeatable: bool = False) -> HTTPAnswer:
        """Send any request, return its answer whatever its status. A checkpoint. ``repeatable``: it may be sent again
        when a kept connection turned out to be closed. :class:`HTTPTimeout` after ``request_timeout``, the wait for a
        turn not included."""
        self._require_open()
        pool = self._kept if repeatable else self._fresh
        await self._turns.take()
        self._requests += 1
        self._in_use += 1
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._timeout):
                reply = await pool.request(*request, was_unseen=_was_unseen)
                return HTTPAnswer(reply.status, reply.headers, reply.body)
            raise HTTPTimeout(self._numbers.timeout, f"no whole answer within {self._timeout:g} s")
        except HttpFailure as exc:
            self._require_open()
            raise HTTPFailed(self._numbers.failed, str(exc), sent=exc.sent) from exc
        finally:
            self._in_use -= 1
            self._turns.give_back()

    def _require_open(self) -> None:
        if self._closed:
            raise TransportClosed(1014, "this pool is closed")

    async def _open(self) -> trio.abc.Stream:
        stream = await self._connect()
        self._connects += 1
        return stream

    async def _connect(self) -> trio.abc.Stream:
        if self._connect_stream is not None:
            try:
                stream = await self._connect_stream()
            except OSError as exc:
                raise HTTPConnectError(self._numbers.connect, f"{self.service}: {exc.strerror or exc}") from exc
            self._streams.add(stream)
            return stream
        first: WazuhException | None = None
        for place in self._target.places:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
                try:
                    return _SocketStream(SocketIO(connect_nowait(place, self._require_owner)), self._sockets)
                except BacklogFull:
                    return _SocketStream(await connect_unix(place, self._require_owner), self._sockets)
            except WazuhException as exc:
                first = first or exc
        assert first is not None  # a service has a place
        raise HTTPConnectError(self._numbers.connect, first.message) from first

    async def _close(self) -> None:
        self._closed = True
        for sock in list(self._sockets):
            sock.close_nowait()
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)


def _was_unseen(failure: HttpFailure) -> bool:
    """Of a kept connection: its peer had closed it, as a rule, when the request began."""
    return not failure.heard and not failure.timed_out


class _SocketStream(PlainStream):
    """A Unix socket as a stream, at the price of one ``send``, one wait and one ``recv`` for a request. It is among
    ``open_ones`` while it is open."""

    def __init__(self, io: SocketIO, open_ones: set[_SocketStream]) -> None:
        self.io: SocketIO = io
        self._open_ones = open_ones
        open_ones.add(self)

    def close_nowait(self) -> None:
        self._open_ones.discard(self)
        self.io.close()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.io.send_nowait(memoryview(data))
        if sent < len(data):
            await self.io.send_rest(bytes(data), sent)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self.io.sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.io.receive_some(max_bytes or _RECEIVE_BYTES)

    async def aclose(self) -> None:
        self.close_nowait()


@asynccontextmanager
async def open_http(
    service: str,
    *,
    home: str | os.PathLike[str] | None = None,
    release: ReleaseName | None = None,
    size: int = DEFAULT_SIZE,
    request_timeout: float = 10.0,
    idle_timeout: float = 4.0,
    require_owner: int | str | None = None,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    connect: Connect | None = None,
) -> AsyncIterator[HTTPPool]:
    """One of the server's HTTP sockets (``wdb-http``, ``engine``, ``vulnerability-detector``, ``inventory-sync``,
    ``remoted-admin``) for the length of the block. Connects when asked to, not before.

    ``release`` decides on routes and places; None finds it out, in a thread. At most ``size`` requests are under way; a
    task that finds no room waits, first come first served. ``request_timeout`` in seconds limits each request. A
    connection is kept where the service keeps it, for ``idle_timeout`` seconds, and never used for calls that mustn't
    be sent twice. ``connect`` returns a stream to talk over instead of the socket. Errors: see :class:`HTTPError`.
    """
    require_trio("open_http")
    if size < 1:
        raise ValueError(f"a pool needs room for at least one connection, not {size}")
    if is_known_at_once(release, needed=True):
        target = http_target(service, release, home)
    else:
        target = await trio.to_thread.run_sync(http_target, service, release, home, abandon_on_cancel=True)
    pool = HTTPPool(
        target,
        size=size,
        request_timeout=request_timeout,
        idle_timeout=idle_timeout,
        require_owner=require_owner,
        max_answer_bytes=max_answer_bytes,
        connect=connect,
    )
    try:
        yield pool
    finally:
        await pool._close()
