"""Sockets for trio programs: :class:`WazuhAsyncSocket` and, for JSON, :class:`WazuhAsyncSocketJSON`.

What holds under cancellation:

* ``connect``: nothing is left open, connecting again is possible;
* ``send`` before its first byte went out: nothing happened; after it: the connection is closed, since the daemon would
  take the next message for the missing part of this one;
* ``receive``: what came is kept for the next ``receive``;
* ``aclose``, ``close``: closed all the same.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Any, Final, Self, TypeVar, overload

import trio

from wazuh_comms_trio.errors import FrameError, PeerClosed, WazuhInternalError
from wazuh_comms_trio.transport.aio.connecting import CONNECT_TIMEOUT, connect_unix
from wazuh_comms_trio.transport.aio.stream_io import ByteIO, over_stream
from wazuh_comms_trio.transport.call_shapes import Shape, receive_shape
from wazuh_comms_trio.transport.conversation import Conversation, SchemaSource
from wazuh_comms_trio.transport.errors import TransportClosed, TransportError, as_broken, require_trio
from wazuh_comms_trio.transport.guards import Guard, guard_at
from wazuh_comms_trio.transport.paths import PeerCredentials
from wazuh_comms_trio.transport.switches import shapes_of
from wazuh_comms_trio.transport.translate import stream_error
from wazuh_comms_trio.wire.envelope import decode_json, encode_json, reply_data
from wazuh_comms_trio.wire.framing import (
    HEADER,
    HEADER_FORMAT,
    MAX_RECEIVE_BYTES,
    READ_BYTES,
    FrameDecoder,
    encode_payload,
    header_struct,
)

T = TypeVar("T")

# How many frames that are here already are handed out before other tasks get a turn.
_FRAMES_PER_TURN: Final = 16


class WazuhAsyncSocket(trio.abc.AsyncResource):
    """A connection to a daemon's stream socket, or over any trio stream. Payloads are bytes, framed with their length.

    One task may send beside one that receives; a second one is ``trio.BusyResourceError``. ``require_owner`` is a
    user's number or name, see :func:`check_path`; ``max_receive_bytes`` limits the payload of one frame; ``api`` is the
    version of the framework that the program is written for, see :func:`set_defaults`.

    Errors are 1014, and :class:`trio.ClosedResourceError` where we ended the connection (or never had one),
    :class:`trio.BrokenResourceError` where the peer did. Before connecting: 1013 for a path that is missing or refused,
    1121 when nobody listens. 1012 for a payload above ``MAX_SIZE`` bytes (refused before the first byte goes out), 1105
    for one that isn't bytes.
    """

    #: The most payload bytes that are sent.
    MAX_SIZE: int = 65536

    def __init__(
        self,
        *,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        require_owner: int | str | None = None,
        api: str | None = None,
    ) -> None:
        self._send_counts = shapes_of(api).send_counts
        self.path: str | None = None
        self.max_receive_bytes = max_receive_bytes
        self.require_owner = require_owner
        self._io: ByteIO | None = None
        self._decoder = FrameDecoder(max_receive_bytes)
        self._guard: Guard | None = None
        self._not_connected_because = "not connected"  # why there is no connection
        self._connecting = False
        self._sending = False
        self._receiving = False
        self._unyielding = 0

    @classmethod
    async def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        require_owner: int | str | None = None,
        api: str | None = None,
    ) -> Self:
        """A connected socket, for ``async with await WazuhAsyncSocket.from_path(path) as sock``."""
        sock = cls(max_receive_bytes=max_receive_bytes, require_owner=require_owner, api=api)
        await sock.connect(path)
        return sock

    @classmethod
    def from_stream(
        cls, stream: trio.abc.Stream, *, max_receive_bytes: int = MAX_RECEIVE_BYTES, api: str | None = None
    ) -> Self:
        """Over any trio stream, which from now on belongs to this object."""
        require_trio(cls.__name__)
        sock = cls(max_receive_bytes=max_receive_bytes, api=api)
        sock._io = over_stream(stream)
        return sock

    def __repr__(self) -> str:
        state = self._not_connected_because if self._io is None else "connected"
        return f"<{type(self).__name__} {self.path or ''}: {state}>"

    async def connect(self, path: str | os.PathLike[str], *, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        """Connect to a daemon's Unix socket. A checkpoint.

        Waits ``connect_timeout`` seconds for room in the daemon's queue of new connections, then :class:`BacklogFull`
        (1013). A connection that was lost is closed first; connecting twice otherwise is 1013.
        """
        require_trio(type(self).__name__)
        if self._connecting:
            raise trio.BusyResourceError("another task is connecting this socket")
        if self._io is not None:
            if not self.is_connection_lost():
                raise WazuhInternalError(1013, f"this socket is connected already, to {self.path or 'a stream'}")
            await self._give_up("closed, since its connection was lost")
        self._connecting = True
        try:
            io = await connect_unix(path, self.require_owner, connect_timeout)
        finally:
            connecting, self._connecting = self._connecting, False
        if not connecting:
            await io.abort()
            raise TransportClosed(1014, "this socket was closed by another task")
        self._io = io
        self.path = os.fspath(path)
        self._guard = guard_at(self.path)
        self._decoder = FrameDecoder(self.max_receive_bytes)

    def is_connection_lost(self) -> bool:
        """Whether there is no connection any more: closed by us, never made, or ended by the peer.

        Looks at the socket, so that the peer's end is seen without a read, even while an answer that came before it is
        still to be received. Over a stream without a socket (in memory) it is seen only once a receive has met it.
        """
        return self._io is None or self._decoder.at_eof or self._io.peer_ended()

    def peer_credentials(self) -> PeerCredentials:
        """Process, user and group that listen at the other end (``SO_PEERCRED``). 1014 for what isn't a Unix socket."""
        try:
            return self._connection().peer_credentials()
        except OSError as exc:
            raise stream_error(exc, "asking for the peer's credentials") from exc

    async def send(self, msg_bytes: bytes, header_format: str | None = HEADER_FORMAT) -> Any:
        """Send one frame; returns the bytes that went out, header and payload, or for programs written for 4.14.2 and
        later (``api=``) how many they were. A checkpoint.

        ``header_format`` None sends the bytes as they are, with no header and no upper limit.
        """
        sent = await self._send(self._encode(msg_bytes, header_format))
        return len(sent) if self._send_counts else sent

    @overload
    async def receive(self, header_size: int | None = 4, header_format: str | None = HEADER_FORMAT) -> bytes: ...

    @overload
    async def receive(self, header_format: str, header_size: int | None = 4, /) -> bytes: ...

    async def receive(self, *order: Any, **named: Any) -> bytes:
        """One frame's payload, as it came, in however many pieces. Cancelled, what came is kept for the next call.

        ``receive(header_size=4, header_format="<I")``, as published; the two may come in the order of 4.14.2 as well,
        told apart by the type of the first, and mixed up otherwise they are 1014. A checkpoint; of frames that came
        together with one before, only every 16th lets other tasks run.

        With one of the two None: what has arrived, at least one byte, as :meth:`receive_raw`. Named errors, all 1014
        and :class:`trio.BrokenResourceError`: :class:`PeerClosed`, :class:`TruncatedFrame`, :class:`EmptyFrame` and
        :class:`FrameTooLarge`.
        """
        if not order and not named:
            return await self._receive(HEADER)
        return await self._receive_shape(receive_shape(order, named))

    async def _receive_shape(self, shape: Shape) -> bytes:
        if shape.header_format is None or shape.header_size is None:
            return await self.receive_raw()
        return await self._receive(header_struct(shape.header_format, shape.header_size))

    async def request_raw(self, payload: bytes, header_format: str = HEADER_FORMAT) -> bytes:
        """Send one frame and return the payload of the one that answers it.

        Cancelled once the request has gone out: the connection is closed, so that the late answer reaches nobody.
        """
        header = header_struct(header_format)
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        await self._send(self._encode(payload, header_format))
        try:
            return await self._receive(header)
        except BaseException:
            if not self._decoder.at_eof and self._io is not None:
                await self._give_up("closed, since a request ended before its answer came")
            raise

    async def receive_raw(self) -> bytes:
        """Bytes that have arrived, at least one, without looking for frames. :class:`PeerClosed` at the end."""
        return await self._receive(None)

    async def aclose(self) -> None:
        """Close the connection. Doing it again does nothing. A checkpoint; closed even if cancelled.

        A task that is sending or receiving gets :class:`trio.ClosedResourceError`.
        """
        require_trio(type(self).__name__)
        io, self._io = self._io, None
        if io is not None or self._connecting:
            self._not_connected_because = "closed"
        self._connecting = False
        if io is not None:
            await io.aclose()
        else:
            await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        """The same as :meth:`aclose`."""
        await self.aclose()

    def _connection(self) -> ByteIO:
        if self._io is None:
            require_trio(type(self).__name__)
            raise TransportClosed(1014, f"this socket is {self._not_connected_because}")
        return self._io

    def _encode(self, payload: bytes, header_format: str | None) -> bytes:
        frame = encode_payload(payload, header_format, self.MAX_SIZE)
        if self._guard is not None:
            self._guard(payload)
        return frame

    async def _send(self, frame: bytes) -> bytes:
        io = self._connection()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True
        try:
            await io.send_all(frame)
        except TransportError:
            raise
        except BaseException:
            if io.sent_in_part and io is self._io:
                await self._give_up("closed, since a message went out only in part")
            raise
        finally:
            self._sending = False
        return frame

    async def _receive(self, header: Struct | None) -> bytes:
        io = self._connection()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        self._receiving = True
        decoder = self._decoder
        try:
            if decoder.buffered:
                await self._yield_sometimes()
            if header is None:
                if not decoder.buffered and not decoder.at_eof:
                    decoder.feed(await io.receive_some(READ_BYTES))
                if not decoder.buffered:
                    decoder.next_frame()  # raises for the end of the stream
                return decoder.take_raw()
            if decoder.after_long and io.unwaited_bytes > 0:
                await trio.lowlevel.checkpoint_if_cancelled()
                frame = io.long_frame_nowait(decoder, header)
                if frame is not None:
                    return frame
            while (frame := decoder.next_frame(header)) is None:
                decoder.feed(await io.receive_some(io.read_size(decoder, header)))
            return frame
        except (FrameError, PeerClosed) as exc:
            raise as_broken(exc) from None
        finally:
            self._receiving = False

    async def _yield_sometimes(self) -> None:
        """The checkpoint of a receive that needn't wait: always for cancellation, now and then to let others run."""
        self._unyielding = (self._unyielding + 1) % _FRAMES_PER_TURN
        if self._unyielding:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    async def _give_up(self, why: str) -> None:
        io, self._io = self._io, None
        self._not_connected_because = why
        if io is not None:
            await io.abort()


class WazuhAsyncSocketJSON(WazuhAsyncSocket):
    """As :class:`WazuhAsyncSocket`, with messages as JSON. ``send`` and ``receive`` check nothing beyond JSON and
    size.
    """

    async def send(self, msg: Any, header_format: str | None = HEADER_FORMAT) -> Any:
        """Send anything that JSON can say; returns as ``WazuhAsyncSocket.send``. 1012 for what JSON can't say."""
        return await super().send(encode_json(msg), header_format)

    @overload
    async def receive(
        self, header_size: int | None = 4, header_format: str | None = HEADER_FORMAT, raw: bool = False
    ) -> Any: ...

    @overload
    async def receive(self, header_format: str, header_size: int | None = 4, raw: bool = False, /) -> Any: ...

    async def receive(self, *order: Any, **named: Any) -> Any:
        """The ``data`` of the answer, or the whole answer when ``raw``: ``receive(header_size=4, header_format="<I",
        raw=False)``, the first two in either order.

        A non-zero ``error`` in the answer raises ``WazuhException(error, message, cmd_error=True)``, unless ``raw``; a
        word there :class:`DaemonRefusal`. An answer of 5.0 with neither ``error`` nor ``data`` is returned whole. What
        isn't JSON, or no object, is :class:`AnswerInvalid` (1014).
        """
        shape = receive_shape(order, named)
        answer = decode_json(await self._receive_shape(shape))
        return answer if shape.raw else reply_data(answer)

    @overload
    async def request(
        self, msg: Any, *, type: type[T], schema: SchemaSource | None = None, daemon: str | None = None
    ) -> T: ...

    @overload
    async def request(
        self, msg: Any, *, type: None = None, schema: SchemaSource | None = None, daemon: str | None = None
    ) -> Any: ...

    async def request(
        self, msg: Any, *, type: Any = None, schema: SchemaSource | None = None, daemon: str | None = None
    ) -> Any:
        """Send ``msg``, receive its answer and return the answer's ``data``, decoded into ``type`` when given.

        Message and answer are validated by JSON Schema, per daemon and command, when the message carries ``version``
        or its daemon's messages have a known form, or by ``schema`` when given: see :mod:`.schema`. ``daemon`` is the
        registry's name; it is found by the path when not given.

        Cancelled once the message has gone out: the connection is closed, so that the late answer reaches nobody.
        """
        conversation = Conversation(msg, daemon=daemon, path=self.path, schema=schema)
        return conversation.result(await self.request_raw(conversation.payload), type)
