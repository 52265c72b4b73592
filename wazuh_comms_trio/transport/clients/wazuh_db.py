"""wazuh-db for trio programs: ``open_wazuh_db``, with one answer, pages, or streamed rows.

    async with open_wazuh_db() as db:
        agents = await db.query("global get-all-agents")
        async for page in db.pages("global get-all-agents"):
            ...
        async for row in db.rows("agent 001 package get"):
            ...

``err`` answers are ``WazuhError`` with the daemon's text. A row leaves out its NULL columns. An answer that wazuh-db
cut at 65536 bytes is ``AnswerCut``. What holds under cancellation: the connection in use is given up, the database
stays usable. A query that was cancelled may have been carried out all the same.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar, overload

import trio

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket
from wazuh_comms_trio.transport.conversation import Conversation, decode_as
from wazuh_comms_trio.transport.pool.connections import PoolStatistics
from wazuh_comms_trio.transport.pool.connector import Connect
from wazuh_comms_trio.transport.pool.pool import DEFAULT_SIZE, Pool, open_pool
from wazuh_comms_trio.transport.switches import ReleaseName
from wazuh_comms_trio.wire.envelope import TextErrors
from wazuh_comms_trio.wire.framing import HEADER_FORMAT, MAX_RECEIVE_BYTES
from wazuh_comms_trio.wire.wdb import DUE, NOT_QUICK, WdbReply, parse_reply, quick_data
from wazuh_comms_trio.wire.wdb_paging import (
    Due,
    Paging,
    check_query,
    due_meaning,
    joined,
    last_id_of,
    prepare,
    rows_of,
    single,
)

T = TypeVar("T")

#: A query's text, and whether a ``due`` answer to it is a page -> its first answer.
Ask: TypeAlias = Callable[[str, bool], Awaitable[WdbReply]]

DAEMON: Final = "wazuh-db"


class WazuhDB:
    """Made by ``open_wazuh_db``; may be used by any number of tasks."""

    def __init__(self, pool: Pool) -> None:
        if pool.daemon.header_format != HEADER_FORMAT:
            raise ValueError(f"wazuh-db's frames have the header {HEADER_FORMAT!r}, not {pool.daemon.header_format!r}")
        self.pool = pool

    def __repr__(self) -> str:
        return f"<WazuhDB {self.pool!r}>"

    def statistics(self) -> PoolStatistics:
        """The pool's."""
        return self.pool.statistics()

    @overload
    async def query(self, query: str | Mapping[str, Any], *, type: type[T]) -> T: ...

    @overload
    async def query(self, query: str | Mapping[str, Any], *, type: None = None) -> Any: ...

    async def query(self, query: str | Mapping[str, Any], *, type: Any = None) -> Any:
        """One query's whole answer: decoded JSON, or text when it is none; None for a bare ``ok``. A checkpoint as
        ``Pool.request`` is.

        Where the answer comes in pages or streamed rows all of them are collected into one list. A mapping is sent as
        JSON, and validated as in ``WazuhAsyncSocketJSON.request``. ``type`` is what the answer is decoded into, such as
        ``list[Agent]``.

        ``WazuhError`` 1014 with the daemon's text for ``err``, ``NotSynchronized`` (1014) where ``rows`` raises it,
        1012 for a query above 65536 bytes, ``AnswerCut`` and ``AnswerInvalid`` (1014) for what can't be understood, and
        the connection's errors. Cancelled: the connection is given up; the query may have been carried out all the
        same.
        """
        if not isinstance(query, str) and isinstance(query, Mapping):
            return await self.pool.request(query, type=type)
        frame, meaning = prepare(query)
        if meaning is None:
            answer = await self.pool._exchange_frame(frame)
            data = quick_data(answer)
            if data is NOT_QUICK:
                data = single(parse_reply(answer, self.pool.text_errors), query).data()
        elif meaning is Due.PAGES:
            data = joined([page async for page in self.pages(query)])
        else:
            data = [row async for row in self.rows(query)]
        return data if type is None else decode_as(data, type)

    async def _ask(self, text: str, paged: bool) -> WdbReply:
        payload = await self.pool._exchange_one(text.encode(), paged=paged)
        reply = parse_reply(payload, self.pool.text_errors)
        return reply if paged else single(reply, text)

    def pages(self, query: str, *, last_id: Callable[[Any], int | str] = last_id_of) -> PageStream:
        """Iterate over an answer that comes in pages: the query is asked again with the last id until ``ok``.

        The id's place is found in the commands that are known, or is where ``{last_id}`` stands. ``last_id`` takes a
        page, returns the id to go on from. Pages are asked for when they are needed; between them no connection is
        held, so leaving early is free. Errors as ``query``; 1012 for a query without a place for the id.
        """
        return PageStream(self._ask, check_query(query), last_id)

    def rows(self, query: str) -> RowStream:
        """Iterate over streamed rows: one query, an answer frame for each row. The connection isn't used again.

        ``async for row in db.rows(query)``; a program that may leave early puts it in an ``async with`` first. An agent
        that never sent its inventory has no rows but ``NotSynchronized`` (1014). Errors as ``query``.
        """
        return RowStream(self.pool, check_query(query))

    @asynccontextmanager
    async def session(self) -> AsyncIterator[WazuhDBSession]:
        """One connection for the length of the block, whose queries are carried out in order."""
        async with self.pool.lease() as connection:
            yield WazuhDBSession(connection, self.pool.text_errors)


class WazuhDBSession:
    """Several queries in order on one connection. Made by ``WazuhDB.session``; for one task.

    A query that is cancelled closes the connection: the next one is ``trio.ClosedResourceError``.
    """

    def __init__(self, connection: WazuhAsyncProtocol, text_errors: TextErrors = "replace") -> None:
        self._connection = connection
        self._text_errors: TextErrors = text_errors

    @overload
    async def query(self, query: str | Mapping[str, Any], *, type: type[T]) -> T: ...

    @overload
    async def query(self, query: str | Mapping[str, Any], *, type: None = None) -> Any: ...

    async def query(self, query: str | Mapping[str, Any], *, type: Any = None) -> Any:
        """As ``WazuhDB.query``, for queries that have one answer frame or pages; streamed rows would end the session:
        1012."""
        if isinstance(query, Mapping):
            conversation = Conversation(query, daemon=DAEMON)
            payload = await self._connection.request(conversation.payload)
            return conversation.result(payload, type, self._text_errors)
        text = check_query(query)
        if due_meaning(text) is Due.ROWS:
            raise MessageInvalid(1012, "streamed rows take a connection of their own: use WazuhDB.rows")
        data = await _collect(self._ask, text)
        return data if type is None else decode_as(data, type)

    async def _ask(self, text: str, paged: bool) -> WdbReply:
        reply = parse_reply(await self._connection.request(text.encode()), self._text_errors)
        if reply.status == DUE and not paged:
            await self._connection.aclose()  # rows are being streamed: they must not become the next query's answer
        return reply if paged else single(reply, text)


class PageStream:
    """The pages of one query, as an async iterator over decoded payloads. Made by ``WazuhDB.pages``; for one task,
    once.

    Cancelled, the same page is asked for again by the next iteration.
    """

    def __init__(self, ask: Ask, query: str, last_id: Callable[[Any], int | str] = last_id_of) -> None:
        self._paging = Paging(query, last_id)
        self._ask = ask

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next page. A checkpoint."""
        query = self._paging.next_query
        if query is None:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        return self._paging.take(await self._ask(query, True))


class RowStream:
    """The rows that one query streams, as an async iterator. Made by ``WazuhDB.rows``; for one task, once.

    A row is what stands behind ``due``, decoded; a list there counts as its items. Used up, failed or cancelled, its
    connection is closed at once; left early, at the end of its ``async with``, or when the iterator is forgotten.
    """

    def __init__(self, pool: Pool, query: str) -> None:
        self._pool = pool
        self._query = query
        self._connection: WazuhAsyncSocket | None = None
        self._rows: list[Any] = []  # the next one is the last
        self._done = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._connection is not None:
            self._pool._abandon_own(self._connection)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next row. A checkpoint whenever it has to read."""
        try:
            while not self._rows:
                if self._done:
                    raise StopAsyncIteration
                reply = parse_reply(await self._next_frame(), self._pool.text_errors)
                self._done = reply.status != DUE
                self._rows = rows_of(reply)[::-1]
            return self._rows.pop()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection, unless that was done. Doing it again does nothing. Not cancelled."""
        clean = self._done and not self._rows  # its last frame came
        self._done = True
        self._rows.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool._close_own(connection, clean)

    async def _next_frame(self) -> bytes:
        # After a streamed answer wazuh-db gives that connection a send timeout of 1 s, for ever: so this is one of its
        # own, which isn't used again.
        if self._connection is None:
            self._connection = await self._pool._open_own()
            await self._connection.send(self._query.encode())
        return await self._connection.receive()


async def _collect(ask: Ask, text: str) -> Any:
    """A query's data; where it has pages, the items of all of them."""
    if due_meaning(text) is not Due.PAGES:
        return (await ask(text, False)).data()
    return joined([page async for page in PageStream(ask, text)])


@asynccontextmanager
async def open_wazuh_db(
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
) -> AsyncIterator[WazuhDB]:
    """wazuh-db for the length of the block, over a pool of connections. The arguments are ``open_pool``'s."""
    async with open_pool(
        DAEMON,
        home=home,
        release=release,
        size=size,
        idle_timeout=idle_timeout,
        connect_timeout=connect_timeout,
        max_receive_bytes=max_receive_bytes,
        require_owner=require_owner,
        connect=connect,
        text_errors=text_errors,
    ) as pool:
        yield WazuhDB(pool)
