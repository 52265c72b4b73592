"""Request and answer over one trio stream, for several tasks at once: :class:`WazuhAsyncProtocol`.

No task runs in the background. Of the tasks that wait for an answer, the one whose answer comes next reads for all of
them, hands out what came, and passes the reading on. So a hundred requests in flight cost as many reads as the kernel
needs to deliver their answers.

What holds under cancellation (and so when a deadline passes):

* ``connect``: nothing is left open, connecting again is possible;
* ``request`` and ``open_exchange`` before the first byte went out: nothing happened;
* ... after a part of the request went out: the connection is closed, whoever uses it gets ``trio.ClosedResourceError``;
* ... after the whole request went out: with ``pipelining`` the late answer is read and dropped by whoever comes next,
  without it the connection is closed;
* an exchange that is left before its last answer: the connection is closed;
* ``receive_request``: what came is kept; ``send_reply`` as a request's sending; ``aclose``: closed all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Self

import trio

from ..errors import FrameError, PeerClosed, WazuhInternalError
from ..wire.framing import (
    HEADER_FORMAT,
    MAX_RECEIVE_BYTES,
    MAX_SEND_BYTES,
    FrameDecoder,
    encode_frame,
    header_struct,
)
from .errors import TransportBroken, TransportClosed, TransportPeerClosed, as_broken, require_trio
from .paths import PeerCredentials
from .pipeline import Pipeline, PredicateFailed, Slot
from .stream_io import LONG_READ_BYTES, READ_BYTES, ByteIO, connect_unix, over_stream
from .translate import stream_error


class ConnectionState(Enum):
    """Where a connection stands."""

    #: not connected yet
    CONNECTING = "connecting"
    #: connected, nothing is under way
    READY = "ready"
    #: a request is under way, or the late answer of a cancelled one
    BUSY = "busy"
    #: ended by us
    CLOSED = "closed"
    #: ended by the peer, or failed
    BROKEN = "broken"


@dataclass(frozen=True)
class ProtocolStatistics:
    """What a connection has done. ``requests`` and ``replies`` count frames: sent and received as client, received
    and sent as server. ``dropped`` are the late answers among the replies. ``in_flight`` are requests without (all
    of) their answer, ``waiting`` the tasks that wait for their turn to send.
    """

    state: ConnectionState
    requests: int
    replies: int
    dropped: int
    in_flight: int
    waiting: int
    bytes_sent: int
    bytes_received: int


class WazuhAsyncProtocol(trio.abc.AsyncResource):
    """A conversation of framed requests and answers over one stream: a Unix socket, TCP, TLS, or one in memory.

    As client: :meth:`request` for one answer, :meth:`open_exchange` for several to one request. As server:
    :meth:`receive_request` and :meth:`send_reply`, or :meth:`serve`. A connection is one or the other, as the first
    call decides; the other side's calls are then :class:`WazuhInternalError` 1014.

    Several tasks may use it. With ``pipelining`` requests are sent without waiting for earlier answers, which the
    peer must give in order (wazuh-db does; the daemons that answer one request and close don't); without, each waits
    for its turn, first come first served. ``max_send_bytes`` and ``max_receive_bytes`` limit payloads.

    Errors as in :class:`WazuhAsyncSocket`. ``bytes_sent`` of a :class:`TransportBroken` is 0 when nothing of the
    request had gone out, so that it may be repeated on another connection.
    """

    def __init__(
        self,
        stream: trio.abc.Stream | None = None,
        *,
        pipelining: bool = False,
        max_send_bytes: int = MAX_SEND_BYTES,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        header_format: str = HEADER_FORMAT,
        require_owner: int | str | None = None,
    ) -> None:
        self.pipelining = pipelining
        self.max_send_bytes = max_send_bytes
        self.require_owner = require_owner
        self.path: str | None = None
        self._header_format = header_format
        self._header = header_struct(header_format)
        self._decoder = FrameDecoder(max_receive_bytes)
        self._pipeline = Pipeline()
        self._turn = trio.StrictFIFOLock()
        self._io: ByteIO | None = None
        self._end: TransportClosed | TransportBroken | None = None
        self._role: Literal["client", "server"] | None = None
        self._connecting = False
        self._reading = False
        self._exchanges: set[Slot] = set()
        self._owed = 0
        self._frames_sent = 0
        self._bytes_sent = 0
        self._bytes_received = 0
        if stream is not None:
            require_trio(type(self).__name__)
            self._io = over_stream(stream)

    @classmethod
    async def from_path(
        cls,
        path: str,
        *,
        pipelining: bool = False,
        max_send_bytes: int = MAX_SEND_BYTES,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        header_format: str = HEADER_FORMAT,
        require_owner: int | str | None = None,
    ) -> Self:
        """A client connected to a Unix socket: ``async with await WazuhAsyncProtocol.from_path(path) as daemon``."""
        protocol = cls(
            pipelining=pipelining,
            max_send_bytes=max_send_bytes,
            max_receive_bytes=max_receive_bytes,
            header_format=header_format,
            require_owner=require_owner,
        )
        await protocol.connect(path)
        return protocol

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path or ''}: {self.state.value}>"

    async def connect(self, path: str) -> None:
        """Connect to a daemon's Unix socket, once. Errors and waiting as in ``WazuhAsyncSocket.connect``."""
        require_trio(type(self).__name__)
        if self._connecting:
            raise trio.BusyResourceError("another task is connecting this protocol")
        if self._end is not None:
            raise self._ended()
        if self._io is not None:
            raise WazuhInternalError(1013, f"connected already, to {self.path or 'a stream'}")
        self._connecting = True
        try:
            self._io = await connect_unix(path, self.require_owner)
        finally:
            self._connecting = False
        self.path = path

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands, as far as this side has noticed."""
        if self._end is not None:
            return ConnectionState.CLOSED if isinstance(self._end, TransportClosed) else ConnectionState.BROKEN
        if self._io is None:
            return ConnectionState.CONNECTING
        return ConnectionState.BUSY if self._pipeline.slots or self._owed else ConnectionState.READY

    def statistics(self) -> ProtocolStatistics:
        """A snapshot."""
        server = self._role == "server"
        sent, received = self._frames_sent, self._pipeline.received
        return ProtocolStatistics(
            state=self.state,
            requests=received if server else sent,
            replies=sent if server else received,
            dropped=self._pipeline.dropped,
            in_flight=self._owed if server else len(self._pipeline.slots),
            waiting=self._turn.statistics().tasks_waiting,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
        )

    def is_connection_lost(self) -> bool:
        """Whether there is no connection. Looks at the socket, as ``WazuhAsyncSocket.is_connection_lost`` does."""
        return self._io is None or self._end is not None or self._decoder.at_eof or self._io.peer_ended()

    def peer_credentials(self) -> PeerCredentials:
        """Process, user and group at the other end (``SO_PEERCRED``). 1014 for what isn't a Unix socket."""
        try:
            return self._connection().peer_credentials()
        except OSError as exc:
            raise stream_error(exc, "asking for the peer's credentials") from exc

    async def aclose(self) -> None:
        """Close the connection. Doing it again does nothing. A checkpoint; closed even if cancelled.

        Tasks that wait for something here get :class:`trio.ClosedResourceError`.
        """
        require_trio(type(self).__name__)
        if self._end is not None or self._io is None:
            self._end = self._end or TransportClosed(1014, "this connection is closed")
            await trio.lowlevel.checkpoint()
            return
        self._end = TransportClosed(1014, "this connection is closed")
        self._wake_all()
        await self._io.aclose()

    # --- as client ---

    async def request(self, payload: bytes) -> bytes:
        """Send one request and return its answer's payload, as it came. A checkpoint."""
        frame = encode_frame(payload, self._header_format, self.max_send_bytes)
        slot = Slot()
        await self._take_turn()
        if self.pipelining:
            try:
                await self._send_request(frame, slot)
            finally:
                self._turn.release()
            return await self._only_reply(slot)
        try:
            await self._send_request(frame, slot)
            return await self._only_reply(slot)
        finally:
            self._turn.release()

    @asynccontextmanager
    async def open_exchange(self, payload: bytes, *, is_last: Callable[[bytes], bool]) -> AsyncIterator[Exchange]:
        """Send one request and iterate over its answers, until ``is_last`` is true for the payload of one.

        ``async with protocol.open_exchange(query, is_last=...) as answers: async for payload in answers: ...``
        Requests behind it on a pipelined connection wait until its answers were taken; asking for another one inside
        the block before that is ``trio.BusyResourceError``. Left before the last answer came, the connection is closed.
        """
        frame = encode_frame(payload, self._header_format, self.max_send_bytes)
        self._be("client")
        slot = Slot(is_last, trio.lowlevel.current_task())
        await self._take_turn()
        holding = True
        try:
            await self._send_request(frame, slot)
            if self.pipelining:
                self._turn.release()
                holding = False
            self._exchanges.add(slot)
            yield Exchange(self, slot)
        finally:
            self._exchanges.discard(slot)
            if not slot.complete:
                slot.abandoned = True
                await self._finish(TransportClosed(1014, "closed, since an exchange was left before its last answer"))
            self._pass_reading_on()
            if holding:
                self._turn.release()

    async def _take_turn(self) -> None:
        """Wait until this task may send. Misuse that would wait for ever is an error."""
        self._be("client")
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._exchanges:
            task = trio.lowlevel.current_task()
            if any(slot.owner is task and not slot.complete for slot in self._exchanges):
                raise trio.BusyResourceError(
                    "this task has not yet taken all answers of an exchange on this connection"
                )
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        except RuntimeError:
            raise trio.BusyResourceError("this task has an exchange open on this connection") from None

    async def _send_request(self, frame: bytes, slot: Slot) -> None:
        """Send it all, and put its slot in the queue. When nothing was sent, nothing has happened."""
        io = self._connection()
        slots = self._pipeline.slots
        if not slots:
            await self._check_silence(io)
        try:
            sent = io.send_nowait(frame)
            slots.append(slot)
            if sent < len(frame):
                await self._send_slowly(io, frame, sent, slot)
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            raise self._ended(exc.bytes_sent) from exc.__cause__
        except BaseException:
            slot.abandoned = True
            if io.torn:
                await self._finish(TransportClosed(1014, "closed, since a request went out only in part"))
            else:
                self._pipeline.withdraw(slot)
            raise
        slot.sent = len(frame)
        self._frames_sent += 1
        self._bytes_sent += slot.sent

    async def _send_slowly(self, io: ByteIO, frame: bytes, sent: int, slot: Slot) -> None:
        if self._pipeline.slots[0] is slot:
            await io.send_rest(frame, sent)  # the peer owes us nothing
            return
        # The peer may wait until we have taken earlier answers before it reads on. Mostly another task does that, but
        # all of them may be cancelled meanwhile.
        failure: TransportBroken | TransportClosed | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_until_reply, slot)
            try:
                await io.send_rest(frame, sent)
            except (TransportBroken, TransportClosed) as exc:
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _check_silence(self, io: ByteIO) -> None:
        """With no request under way nothing may have come: it would be taken for the next one's answer."""
        try:
            data = io.receive_nowait(READ_BYTES) if not self._decoder.at_eof else b""
            if data is not None:
                self._decoder.feed(data)
            if self._decoder.buffered:
                raise TransportBroken(1014, "the peer sent something that nobody had asked for")
            if self._decoder.at_eof:
                raise TransportPeerClosed(1014, "the peer closed the connection")
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            raise self._ended() from exc.__cause__

    async def _only_reply(self, slot: Slot) -> bytes:
        try:
            return await self._next_reply(slot)
        except BaseException:
            if not slot.complete and self._end is None:
                slot.abandoned = True
                if not self.pipelining:
                    await self._finish(TransportClosed(1014, "closed, since a request was cancelled before its answer"))
            raise
        finally:
            self._pass_reading_on()

    async def _next_reply(self, slot: Slot) -> bytes:
        if not slot.replies:
            await self._read_until_reply(slot)
            if slot.failure is not None:
                raise slot.failure
            if not slot.replies:
                raise self._ended(slot.sent)
        return slot.replies.popleft()

    async def _read_until_reply(self, slot: Slot) -> None:
        """Until there is an answer for ``slot``, or the connection has ended: read when it is its turn, else sleep."""
        while not slot.replies and self._end is None:
            if self._reading or self._pipeline.reader() is not slot:
                await _sleep(slot)
            else:
                await self._read_once()

    async def _read_once(self) -> None:
        io = self._connection()
        self._reading = True
        try:
            long = self._decoder.missing(self._header) > READ_BYTES
            data = await io.receive_some(LONG_READ_BYTES if long else READ_BYTES)
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            return
        finally:
            self._reading = False
        self._bytes_received += len(data)
        self._decoder.feed(data)
        try:
            self._pipeline.take(self._decoder, self._header, _wake)
        except (FrameError, PeerClosed) as exc:
            await self._finish(as_broken(exc))
        except PredicateFailed:
            await self._finish(TransportClosed(1014, "closed, since a program couldn't tell which answer is the last"))

    def _pass_reading_on(self) -> None:
        if not self._reading and self._pipeline.slots:
            slot = self._pipeline.reader()
            if slot is not None:
                _wake(slot)

    # --- as server ---

    async def receive_request(self) -> bytes:
        """The next request's payload. A checkpoint; cancelled, what came is kept.

        :class:`PeerClosed` when the client has ended its side between two requests; answers may still be sent then.
        """
        self._be("server")
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
        self._owed += 1
        self._pipeline.received += 1
        return payload

    async def send_reply(self, payload: bytes, *, last: bool = True) -> None:
        """Send an answer to the oldest request that has none yet; with ``last=False`` more answers to it will follow.

        A checkpoint. Cancelled after a part went out: the connection is closed. 1014 when no request waits.
        """
        frame = encode_frame(payload, self._header_format, self.max_send_bytes)
        self._be("server")
        async with self._turn:
            io = self._connection()
            if not self._owed:
                raise WazuhInternalError(1014, "no request waits for an answer on this connection")
            try:
                await io.send_all(frame)
            except (TransportBroken, TransportClosed) as exc:
                await self._finish(exc)
                raise self._ended(exc.bytes_sent) from exc.__cause__
            except BaseException:
                if io.torn:
                    await self._finish(TransportClosed(1014, "closed, since an answer went out only in part"))
                raise
            self._frames_sent += 1
            self._bytes_sent += len(frame)
            if last:
                self._owed -= 1

    async def requests(self) -> AsyncIterator[bytes]:
        """The requests as they come, until the client ends the conversation in an orderly way."""
        while True:
            try:
                payload = await self.receive_request()
            except PeerClosed:
                return
            yield payload

    async def serve(self, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer each request with what ``handler`` makes of it, one after another, until the client ends."""
        while True:
            try:
                payload = await self.receive_request()
            except PeerClosed:
                return
            await self.send_reply(await handler(payload))

    # --- both ---

    def _be(self, role: Literal["client", "server"]) -> None:
        if self._role is None:
            require_trio(type(self).__name__)
            self._role = role
        elif self._role != role:
            raise WazuhInternalError(1014, f"this connection is a {self._role}'s, it can't be used as {role}")

    def _connection(self) -> ByteIO:
        if self._end is not None:
            raise self._ended()
        if self._io is None:
            require_trio(type(self).__name__)
            raise TransportClosed(1014, "not connected")
        return self._io

    def _ended(self, bytes_sent: int = 0) -> TransportClosed | TransportBroken:
        """A new error of the kind that ended this connection, for one of the tasks that meet it."""
        end = self._end
        assert end is not None  # callers looked
        error = type(end)(1014)
        error.message, error.args, error.__cause__ = end.message, end.args, end.__cause__
        error.bytes_sent = bytes_sent
        return error

    async def _finish(self, end: TransportClosed | TransportBroken) -> None:
        """End the connection, for this reason unless there was one before, and tell everybody. Not cancelled."""
        if self._end is not None:
            return
        self._end = end
        self._wake_all()
        if self._io is not None:
            await self._io.abort()

    def _wake_all(self) -> None:
        for slot in self._pipeline.slots:
            _wake(slot)
        self._pipeline.slots.clear()
        self._owed = 0


class Exchange:
    """The answers to one request, as an async iterator over their payloads. Made by ``open_exchange``.

    A checkpoint whenever it has to read; for answers that are here already only cancellation is looked at.
    """

    def __init__(self, protocol: WazuhAsyncProtocol, slot: Slot) -> None:
        self._protocol = protocol
        self._slot = slot

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        slot = self._slot
        if slot.replies:
            await trio.lowlevel.checkpoint_if_cancelled()
        elif slot.complete:
            raise StopAsyncIteration
        return await self._protocol._next_reply(slot)


async def _sleep(slot: Slot) -> None:
    """Until :func:`_wake`. A checkpoint."""

    def abort(raise_cancel: object) -> trio.lowlevel.Abort:
        slot.sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    slot.sleeper = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(abort)


def _wake(slot: Slot) -> None:
    task, slot.sleeper = slot.sleeper, None
    if task is not None:
        trio.lowlevel.reschedule(task)
