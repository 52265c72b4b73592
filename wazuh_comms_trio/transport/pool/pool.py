"""Connections to one daemon for many tasks: ``open_pool``.

    async with open_pool("wazuh-db") as pool:
        answer = await pool.request("global get-agent-info 1")

Who gets which connection is decided synchronously (``_idle`` and the turns), then acted upon. A request has its
connection to itself: an idle one where the daemon allows it (wazuh-db), the one used last, otherwise a new one. Tasks
are served in the order in which they came.

What holds under cancellation: while waiting for a connection nothing happened; afterwards the request's connection is
given up, since its late answer must not reach the next one. Leaving the block closes every connection, also those in
use, whose tasks then get ``trio.ClosedResourceError``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar, overload

import trio
from attrs import frozen

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket
from wazuh_comms_trio.transport.conversation import Conversation
from wazuh_comms_trio.transport.daemon import Daemon
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed, require_trio
from wazuh_comms_trio.transport.guards import guard_of
from wazuh_comms_trio.transport.pool.connector import Connect, Connector
from wazuh_comms_trio.transport.pool.turns import Turns
from wazuh_comms_trio.transport.switches import ReleaseName, is_known_at_once, resolve
from wazuh_comms_trio.wire.envelope import TextErrors, decode_text, encode_text
from wazuh_comms_trio.wire.framing import MAX_RECEIVE_BYTES, encode_frame
from wazuh_comms_trio.wire.wdb_paging import Due, due_meaning

T = TypeVar("T")

#: wazuh-db has 8 worker threads: more connections wait there, not here.
DEFAULT_SIZE: Final = 8


@frozen(kw_only=True)
class PoolStatistics:
    """A snapshot. The first four are the present, the others count from the beginning.

    ``requests`` were sent or tried; ``connects`` are connections made; ``retries`` requests repeated on a fresh
    connection; ``expired`` connections closed because they were idle too long; ``given_up`` those closed for a
    cancelled, failed or unfinished request; ``backlog_waits`` pauses because the daemon's backlog was full.
    """

    size: int
    idle: int
    in_use: int
    tasks_waiting: int
    requests: int
    connects: int
    retries: int
    expired: int
    given_up: int
    backlog_waits: int


class Pool:
    """Made by ``open_pool``; may be used by any number of tasks."""

    def __init__(
        self,
        daemon: Daemon,
        connector: Connector,
        *,
        size: int,
        idle_timeout: float,
        nursery: trio.Nursery,
        text_errors: TextErrors = "replace",
    ) -> None:
        self.daemon = daemon
        self.size = size
        #: what becomes of bytes of an answer that aren't UTF-8
        self.text_errors: TextErrors = text_errors
        self._connector = connector
        self._guard = guard_of(daemon.name)
        self._idle_timeout = idle_timeout
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._turns = Turns(size)
        # Connections and since when they are idle, the one used last at the right end.
        self._idle: deque[tuple[WazuhAsyncProtocol, float]] = deque()
        self._in_use: set[WazuhAsyncProtocol | WazuhAsyncSocket] = set()
        self._idle_came = trio.Event()
        self._closed = False
        self._requests = self._retries = self._expired = self._given_up = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._idle)} idle, {len(self._in_use)} in use, of {self.size}"
        return f"<Pool {self.daemon.name}: {state}>"

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return PoolStatistics(
            size=self.size,
            idle=len(self._idle),
            in_use=len(self._in_use),
            tasks_waiting=self._turns.waiting,
            requests=self._requests,
            connects=self._connector.connects,
            retries=self._retries,
            expired=self._expired,
            given_up=self._given_up,
            backlog_waits=self._connector.backlog_waits,
        )

    @overload
    async def request(self, message: bytes) -> bytes: ...

    @overload
    async def request(self, message: str) -> str: ...

    @overload
    async def request(self, message: Mapping[str, Any], *, type: type[T], schema: Any = None) -> T: ...

    @overload
    async def request(self, message: Mapping[str, Any], *, type: None = None, schema: Any = None) -> Any: ...

    async def request(self, message: Any, *, type: Any = None, schema: Any = None) -> Any:
        """Send one request, return its answer. A checkpoint.

        ``bytes`` are answered with bytes, as they came; text with text, without a trailing NUL; a mapping is sent as
        JSON and answered with the answer's ``data``, decoded into ``type`` when given, both validated as in
        ``WazuhAsyncSocketJSON.request``.

        Repeated once, on a fresh connection, only where nothing of it had gone out. Errors: as ``WazuhAsyncSocket``'s;
        ``BacklogFull`` (1013) when the daemon's backlog stayed full for ``connect_timeout``. Cancelled while waiting,
        nothing has happened; afterwards the connection is given up.
        """
        if isinstance(message, bytes):
            _refuse_options(type, schema)
            return await self._exchange_one(message)
        if isinstance(message, str):
            _refuse_options(type, schema)
            return decode_text(await self._exchange_one(encode_text(message)), self.text_errors)
        conversation = Conversation(message, daemon=self.daemon.name, schema=schema)
        return conversation.result(await self._exchange_one(conversation.payload), type, self.text_errors)

    @asynccontextmanager
    async def lease(self, *, reuse: bool = True, fresh: bool = False) -> AsyncIterator[WazuhAsyncProtocol]:
        """A connection for the length of the block, to ask several things in order. Waits for its turn as a request
        does.

        It is kept for others afterwards if nothing is under way on it, unless ``reuse`` is false; ``fresh`` asks for a
        new one. With a daemon that answers one request and closes it serves one request.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._turns.take()
        try:
            connection = None if fresh else self._take_idle()
            while connection is not None and connection.is_connection_lost():
                await _close_now(connection)
                connection = self._take_idle()
            if connection is None:
                connection = await self._connect()
            self._in_use.add(connection)
            clean = False
            try:
                yield connection
                clean = True
            finally:
                await self._give_back(connection, reuse and clean)
        finally:
            self._turns.give_back()

    # --- one request --------------------------------------------------------------------------------------------------

    async def _exchange_one(self, payload: bytes, *, paged: bool = False) -> bytes:
        """``paged``: an answer that is ``due`` is a page, whatever the query looks like."""
        frame = encode_frame(payload, self.daemon.header_format)  # refused before a connection is made for it
        if self._guard is not None:
            self._guard(payload)
        self._requests += 1
        if not self._turns.take_nowait():
            await self._turns.take()
        try:
            connection = self._take_idle()
            try:
                return await self._ask(connection or await self._connect(), frame, paged)
            except TransportBroken as error:
                if error.bytes_sent or self._closed:
                    raise
            self._retries += 1
            return await self._ask(await self._connect(), frame, paged)
        finally:
            self._turns.give_back()

    async def _ask(self, connection: WazuhAsyncProtocol, frame: bytes, paged: bool) -> bytes:
        self._in_use.add(connection)
        clean = False
        try:
            answer = await connection._request_alone(frame)
            clean = paged or _is_whole(frame, self.daemon.header_size, answer)
        finally:
            self._in_use.discard(connection)
            if not clean or not self._keep(connection):
                self._given_up += not clean
                await _close_now(connection)
        return answer

    # --- deciding, synchronously --------------------------------------------------------------------------------------

    def _take_idle(self) -> WazuhAsyncProtocol | None:
        """The connection used last: the daemon has it in its caches, and is the least likely to have ended it."""
        self._require_open()
        return self._idle.pop()[0] if self._idle else None

    def _keep(self, connection: WazuhAsyncProtocol) -> bool:
        """Keep it for the next request, if that may be."""
        if not self.daemon.reusable or self._closed or not connection._is_ready():
            return False
        self._idle.append((connection, trio.current_time()))
        if not self._idle_came.is_set():
            self._idle_came.set()
        return True

    def _require_open(self) -> None:
        if self._closed:
            raise TransportClosed(1014, "this pool is closed")

    # --- acting -------------------------------------------------------------------------------------------------------

    async def _connect(self) -> WazuhAsyncProtocol:
        """A new connection. Cancelled, nothing stays open."""
        await self._make_room()
        connection = await self._connector.protocol()
        await self._refuse_if_closed(connection)
        return connection

    async def _refuse_if_closed(self, connection: trio.abc.AsyncResource) -> None:
        """The pool may have been closed while this was being connected."""
        if self._closed:
            await _close_now(connection)
            self._require_open()

    # --- a connection that won't be used again: one task's own, with nothing shared on it ---

    async def _open_own(self) -> WazuhAsyncSocket:
        """A fresh connection in this task's turn, to be given to ``_close_own`` or ``_abandon_own``."""
        self._requests += 1
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._turns.take()
        try:
            await self._make_room()
            connection = await self._connector.socket()
            await self._refuse_if_closed(connection)
        except BaseException:
            self._turns.give_back()
            raise
        self._in_use.add(connection)
        return connection

    async def _close_own(self, connection: WazuhAsyncSocket, clean: bool = False) -> None:
        """Not cancelled. Doing it again does nothing."""
        if connection in self._in_use:
            self._given_up += not clean
            self._in_use.discard(connection)
            self._turns.give_back()
        await _close_now(connection)

    def _abandon_own(self, connection: WazuhAsyncSocket) -> None:
        """The same from where nothing can be awaited, which may be another thread. Once the loop has ended, nothing is
        left to do."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._start_closing, connection)

    def _start_closing(self, connection: WazuhAsyncSocket) -> None:
        if not self._closed:
            self._nursery.start_soon(self._close_own, connection)

    async def _give_back(self, connection: WazuhAsyncProtocol, clean: bool) -> None:
        """Keep it, or close it without waiting. Not cancelled."""
        self._in_use.discard(connection)
        if not clean or not self._keep(connection):
            self._given_up += not clean
            await _close_now(connection)

    async def _make_room(self) -> None:
        """Close idle connections in favour of a fresh one: no more than ``size`` are ever open."""
        while len(self._idle) > self._turns.free:  # every turn that is taken has a connection, or will
            await _close_now(self._idle.popleft()[0])

    async def _expire(self) -> None:
        """Close what was idle for too long, while the pool is open."""
        while True:
            self._idle_came = trio.Event()
            while self._idle:
                connection, since = self._idle[0]
                if trio.current_time() < (deadline := since + self._idle_timeout):
                    await trio.sleep_until(deadline)
                    continue
                self._idle.popleft()
                self._expired += 1
                await _close_now(connection)
            await self._idle_came.wait()

    async def _close(self) -> None:
        self._closed = True
        for connection in [*(connection for connection, _ in self._idle), *self._in_use]:
            await _close_now(connection)
        self._idle.clear()


async def _close_now(connection: trio.abc.AsyncResource) -> None:
    """Close without waiting for anything, cancelled or not; what led here isn't replaced by a Cancelled."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await connection.aclose()


def _is_whole(frame: bytes, header_size: int, answer: bytes) -> bool:
    """Whether the connection is as good as before: wazuh-db streams rows after some queries, which must not become
    others' answers, and gives that connection a send timeout, also where there are no rows."""
    if not answer.startswith((b"due", b'ok {"status"')):
        return True
    meaning = due_meaning(frame[header_size:].decode(errors="replace"))
    return meaning is Due.PAGES if answer.startswith(b"due") else meaning is not Due.ROWS


def _refuse_options(type: Any, schema: Any) -> None:
    if type is not None or schema is not None:
        raise TypeError("'type' and 'schema' are for messages given as mappings, which are sent as JSON")


@asynccontextmanager
async def open_pool(
    daemon: str | Daemon,
    *,
    home: str | os.PathLike[str] | None = None,
    release: ReleaseName | None = None,
    size: int = DEFAULT_SIZE,
    idle_timeout: float = 30.0,
    connect_timeout: float = 5.0,
    max_receive_bytes: int = MAX_RECEIVE_BYTES,
    require_owner: int | str | None = None,
    connect: Connect | None = None,
    text_errors: TextErrors = "replace",
) -> AsyncIterator[Pool]:
    """A pool of connections to a registered daemon (or to a ``Daemon``) for the length of the block. Connects when
    asked to, not before.

    ``home`` is the Wazuh folder that the daemon's path is under, None where the release is installed; ``release`` as in
    :func:`set_defaults`. At most ``size`` connections are open; a task that finds none waits, first come first served.
    A connection idle for ``idle_timeout`` seconds (on trio's clock) is closed. While the daemon's backlog is full,
    connecting is tried again with growing pauses for ``connect_timeout`` seconds. ``max_receive_bytes`` limits one
    answer's payload; ``require_owner`` as in ``WazuhAsyncSocket``; ``connect`` returns a stream to talk over instead of
    the daemon's socket. ``text_errors``: bytes of an answer that aren't UTF-8 are replaced by U+FFFD, with ``"strict"``
    they are ``AnswerInvalid`` (1014), with ``"surrogateescape"`` kept as Python keeps them in file names; a request in
    bytes gets its answer as bytes whatever it says.

    A daemon that answers one request and then closes gets a fresh connection for each request.
    """
    require_trio("open_pool")
    if size < 1:
        raise ValueError(f"a pool needs room for at least one connection, not {size}")
    if idle_timeout < 0 or connect_timeout < 0:
        raise ValueError("a time-out can't be negative")
    if is_known_at_once(release):
        target = resolve(daemon, release, home)
    else:
        target = await trio.to_thread.run_sync(resolve, daemon, release, home, abandon_on_cancel=True)
    known = target.daemon
    if known.kind != "stream":
        why = {"datagram": "reads datagrams and never answers", "http": "speaks HTTP: use open_http"}
        raise ValueError(f"{known.name} {why.get(known.kind, 'knows no frames: use open_server')}; nothing to pool")
    connector = Connector(
        known,
        target.home,
        connect_timeout=connect_timeout,
        max_receive_bytes=max_receive_bytes,
        require_owner=require_owner,
        connect=connect,
    )
    async with BackgroundNursery() as nursery:
        pool = Pool(known, connector, size=size, idle_timeout=idle_timeout, nursery=nursery, text_errors=text_errors)
        nursery.start_soon(pool._expire)
        try:
            yield pool
        finally:
            await pool._close()
