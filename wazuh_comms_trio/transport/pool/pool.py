"""Connections to one daemon for many tasks: ``open_pool``.

    async with open_pool("wazuh-db") as pool:
        answer = await pool.request("global get-agent-info 1")

A request has its connection to itself: an idle one where the daemon allows it (wazuh-db), the one used last, otherwise
a new one. Tasks are served in the order in which they came: whoever has its answer sends the request of the task that
waited longest, on its own connection, so that this task wakes up once, for its answer.

What holds under cancellation: while waiting for a connection nothing happened; afterwards the request's connection is
given up, since its late answer must not reach the next one. Leaving the block closes every connection, also those in
use, whose tasks then get ``trio.ClosedResourceError``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, overload

import trio

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.shared_reads import SoleRequest
from wazuh_comms_trio.transport.aio.sleeping import wake
from wazuh_comms_trio.transport.conversation import Conversation
from wazuh_comms_trio.transport.daemon import Daemon
from wazuh_comms_trio.transport.errors import TransportBroken, require_trio
from wazuh_comms_trio.transport.pool.connections import PoolConnections, close_now
from wazuh_comms_trio.transport.pool.connector import Connect, Connector
from wazuh_comms_trio.transport.switches import ReleaseName, is_known_at_once, resolve
from wazuh_comms_trio.wire.envelope import TextErrors, decode_text, encode_text
from wazuh_comms_trio.wire.framing import MAX_RECEIVE_BYTES, encode_frame
from wazuh_comms_trio.wire.wdb_paging import Due, due_meaning

T = TypeVar("T")

#: wazuh-db has 8 worker threads: more connections wait there, not here.
DEFAULT_SIZE: Final = 8

# How answers begin after which the connection may have to go.
_NOT_WHOLE: Final = (b"due", b'ok {"status"')


class Pool(PoolConnections):
    """Made by ``open_pool``; may be used by any number of tasks."""

    @overload
    async def request(self, message: bytes) -> bytes: ...

    @overload
    async def request(self, message: str) -> str: ...

    @overload
    async def request(self, message: Mapping[str, Any], *, type: type[T], schema: Any = None) -> T: ...

    @overload
    async def request(self, message: Mapping[str, Any], *, type: None = None, schema: Any = None) -> Any: ...

    async def request(self, message: Any, *, type: Any = None, schema: Any = None) -> Any:
        """Send one request, return its answer. A checkpoint; of a daemon's answers that come within microseconds only
        every 16th lets other tasks run, but a cancellation arrives with each request.

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
                await close_now(connection)
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
        # What is refused is refused before a connection is made for it.
        return await self._exchange_frame(encode_frame(payload, self.daemon.header_format), paged)

    async def _exchange_frame(self, frame: bytes, paged: bool = False) -> bytes:
        if self._guard is not None:
            self._guard(frame[self.daemon.header_size :])
        self._requests += 1
        request = SoleRequest(frame)
        if self._turns.free:
            self._turns.free -= 1
        else:
            try:
                await self._turns.wait(request)
            except BaseException:
                await self._give_up(request)
                raise
        connection: WazuhAsyncProtocol | None = request.connection
        clean = False
        try:
            if connection is None:
                connection = self._take_idle() or await self._connect()
                self._in_use.add(connection)
            try:
                answer = connection._answer_nowait(request)
                if answer is None:
                    answer = await connection._answer(request, self._turns.free == self.size - 1)
            except TransportBroken as error:
                if error.bytes_sent or self._closed:
                    raise
                broken, connection = connection, None
                await self._stop_using(broken)
                self._retries += 1
                connection = await self._connect()
                self._in_use.add(connection)
                answer = await connection._answer(SoleRequest(frame), False)
            clean = paged or not answer.startswith(_NOT_WHOLE) or _is_whole(frame, self.daemon.header_size, answer)
            return answer
        finally:
            if clean and connection is not None and self._may_keep(connection):
                self._pass_on(connection)
            else:
                if connection is not None:
                    await self._stop_using(connection, clean)
                self._turns.give_back()

    async def _give_up(self, request: SoleRequest) -> None:
        """A request was cancelled while its task waited for a turn: without one nothing has happened. Not cancelled."""
        connection: WazuhAsyncProtocol | None = request.connection
        if connection is not None:
            await connection._give_up(request)
            await self._stop_using(connection)
            self._turns.give_back()

    def _pass_on(self, connection: WazuhAsyncProtocol) -> None:
        """Passes a connection on to the request that waited longest, which is sent at once, so that its task sleeps
        until the answer is here; or leaves the connection idle, and gives the turn back."""
        request = self._turns.next_request()
        if request is not None and connection._begin(request):
            request.connection = connection
            if self._reads is None or not request.expected:
                wake(request)  # a part of it went out, the task does the rest
            else:
                self._reads.see_to_leader()
            return
        self._in_use.discard(connection)
        self._leave_idle(connection)
        if request is not None:
            wake(request)  # it has the turn, and sees for itself
        else:
            self._turns.give_back()


def _is_whole(frame: bytes, header_size: int, answer: bytes) -> bool:
    """Whether the connection is as good as before after an answer like _NOT_WHOLE: wazuh-db streams rows after some
    queries, which must not become others' answers, and gives that connection a send timeout, also where there are no
    rows."""
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
