"""Connections to one HTTP server that are kept for the next request."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from wazuh_comms_trio.http.client.connecting import describe_cause
from wazuh_comms_trio.http.client.connection import HttpConnection, HttpFailure, HttpReply

__all__ = ["HttpPool"]


class HttpPool:
    """``connect`` opens a stream (TLS included) and raises ``OSError`` or ``trio.BrokenResourceError``, which come out
    as ``HttpFailure``; what else it raises goes through. ``host`` is the Host header. A connection that was idle for
    ``keepalive`` seconds isn't used again, and at most ``most_idle`` are kept. ``connect_timeout`` is for opening one;
    the other limits are ``HttpConnection``'s. How many requests run at a time is the caller's business.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        *,
        host: str,
        keepalive: float,
        most_idle: int | None = None,
        connect_timeout: float = math.inf,
        write_timeout: float = math.inf,
        read_timeout: float = math.inf,
        largest_reply: int = 256 * 1024 * 1024,
    ) -> None:
        self._connect = connect
        self._host = host
        self._keepalive = keepalive
        self._most_idle = math.inf if most_idle is None else most_idle
        self._connect_timeout = connect_timeout
        self._write_timeout = write_timeout
        self._read_timeout = read_timeout
        self._largest_reply = largest_reply
        self._idle: deque[HttpConnection] = deque()  # the one used last is at the end

    def __repr__(self) -> str:
        return f"<HttpPool to {self._host}: {self.idle} idle>"

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return len(self._idle)

    async def aclose(self) -> None:
        """Closes the connections that are kept. The pool may be used again."""
        idle, self._idle = self._idle, deque()
        for connection in idle:
            await connection.aclose()

    async def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None = None,
        *,
        read_timeout: float | None = None,
        largest_reply: int | None = None,
        refusal_timeout: float = math.inf,
        was_unseen: Callable[[HttpFailure], bool] | None = None,
    ) -> HttpReply:
        """Sends one request and reads its whole answer, over a kept connection if there is one. A server closes what is
        idle, and may do so just as a request begins: where ``was_unseen`` says of the failure of a kept connection that
        the request may be sent again, it goes over a new one. ``read_timeout`` and ``largest_reply`` replace the
        pool's; ``refusal_timeout`` is ``HttpConnection``'s. Raises ``HttpFailure``. Cancelled: the request may have
        been acted on, and its connection is closed."""
        request = method, target, headers, body
        connection = self._take_idle()
        if connection is not None:
            try:
                return await self._exchange(connection, *request, read_timeout, largest_reply, refusal_timeout)
            except HttpFailure as failure:
                if was_unseen is None or not was_unseen(failure):
                    raise
        connection = await self._open()
        return await self._exchange(connection, *request, read_timeout, largest_reply, refusal_timeout)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[HttpConnection]:
        """A connection for one exchange of the caller's own, which is kept afterwards if it may be used again. Raises
        ``HttpFailure``."""
        connection = self._take_idle() or await self._open()
        connection.read_timeout = self._read_timeout
        connection.largest_reply = self._largest_reply
        connection.refusal_timeout = math.inf
        try:
            yield connection
        finally:
            await self._give_back(connection)

    async def _exchange(
        self,
        connection: HttpConnection,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None,
        read_timeout: float | None,
        largest_reply: int | None,
        refusal_timeout: float,
    ) -> HttpReply:
        connection.read_timeout = self._read_timeout if read_timeout is None else read_timeout
        connection.largest_reply = self._largest_reply if largest_reply is None else largest_reply
        connection.refusal_timeout = refusal_timeout
        try:
            reply = await connection.exchange(method, target, headers, body)
        except BaseException:
            await connection.aclose()
            raise
        await self._give_back(connection)
        return reply

    async def _give_back(self, connection: HttpConnection) -> None:
        if connection.reusable and self.idle < self._most_idle:
            self._idle.append(connection)
        else:
            await connection.aclose()

    def _take_idle(self) -> HttpConnection | None:
        """Takes the connection used last: those that aren't needed grow old. Closes the old ones and the closed
        ones."""
        idle = self._idle
        expired = trio.current_time() - self._keepalive
        while idle and (idle[0].idle_since < expired or idle[0].looks_closed()):
            idle.popleft().close_nowait()
        while idle:
            connection = idle.pop()
            if not connection.looks_closed():
                return connection
            connection.close_nowait()
        return None

    async def _open(self) -> HttpConnection:
        try:
            if self._connect_timeout == math.inf:
                stream = await self._connect()
            else:
                with trio.fail_after(self._connect_timeout):
                    stream = await self._connect()
        except trio.TooSlowError as exc:
            text = f"no connection within {self._connect_timeout:g} s"
            raise HttpFailure(text, sent=False, timed_out=True) from exc
        except (OSError, trio.BrokenResourceError) as exc:
            raise HttpFailure(f"no connection: {describe_cause(exc)}", sent=False) from exc
        return HttpConnection(
            stream,
            host=self._host,
            write_timeout=self._write_timeout,
            read_timeout=self._read_timeout,
            largest_reply=self._largest_reply,
        )
