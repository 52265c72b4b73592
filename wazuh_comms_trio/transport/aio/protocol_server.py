"""The server's side of :class:`WazuhAsyncProtocol`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

import trio

from wazuh_comms_trio.errors import FrameError, PeerClosed, WazuhInternalError
from wazuh_comms_trio.transport.aio.protocol_connection import ProtocolConnection
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed, as_broken
from wazuh_comms_trio.wire.framing import READ_BYTES, encode_frame


class ProtocolServer(ProtocolConnection):
    """Requests that come, and answers to them in order. See :class:`WazuhAsyncProtocol`."""

    async def receive_request(self) -> bytes:
        """The next request's payload. A checkpoint; cancelled, what came is kept.

        :class:`PeerClosed` when the client has ended its side between two requests; answers may still be sent then.
        """
        self._take_role("server")
        io = self._connection()
        if self._reading:
            raise trio.BusyResourceError("another task is receiving requests on this connection")
        self._reading = True
        try:
            if self._decoder.buffered:
                await trio.lowlevel.checkpoint()
            while (payload := self._decoder.next_frame(self._header)) is None:
                data = await io.receive_some(READ_BYTES)
                self._bytes_received += len(data)
                self._decoder.feed(data)
        except PeerClosed as exc:
            raise as_broken(exc) from None
        except FrameError as exc:
            await self._finish(as_broken(exc))
            raise self._ended() from None
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            raise self._ended() from exc.__cause__
        finally:
            self._reading = False
        self._unanswered += 1
        self._pipeline.received += 1
        return payload

    async def send_reply(self, payload: bytes, *, last: bool = True) -> None:
        """Send an answer to the oldest request that has none yet; with ``last=False`` more answers to it will follow.

        A checkpoint. Cancelled after a part went out: the connection is closed. 1014 when no request waits.
        """
        frame = encode_frame(payload, self._header_format, self.max_send_bytes)
        self._take_role("server")
        async with self._turn:
            io = self._connection()
            if not self._unanswered:
                raise WazuhInternalError(1014, "no request waits for an answer on this connection")
            try:
                await io.send_all(frame)
            except (TransportBroken, TransportClosed) as exc:
                await self._finish(exc)
                raise self._ended(exc.bytes_sent) from exc.__cause__
            except BaseException:
                if io.sent_in_part:
                    await self._finish(TransportClosed(1014, "closed, since an answer went out only in part"))
                raise
            self._frames_sent += 1
            self._bytes_sent += len(frame)
            if last:
                self._unanswered -= 1

    def requests(self) -> Requests:
        """The requests as they come, for ``async for``, until the client ends the conversation in an orderly way."""
        return Requests(self)

    async def serve(self, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer each request with what ``handler`` makes of it, one after another, until the client ends."""
        async for payload in self.requests():
            await self.send_reply(await handler(payload))


class Requests:
    """The requests of one connection, as an async iterator over their payloads. It holds nothing: it may be left."""

    def __init__(self, server: ProtocolServer) -> None:
        self._server = server

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._server.receive_request()
        except PeerClosed:
            raise StopAsyncIteration from None
