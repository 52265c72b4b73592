"""Blocking sockets for programs without an event loop: :class:`WazuhSocket` and, for JSON, :class:`WazuhSocketJSON`.

Imports neither trio nor anything outside the standard library. An object belongs to one thread at a time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from struct import Struct, pack
from time import monotonic
from typing import Any, TypeVar, overload

from wazuh_comms_trio.errors import SocketTimeout, WazuhError
from wazuh_comms_trio.transport.call_shapes import Shape, receive_shape
from wazuh_comms_trio.transport.closing import ClosedAtExit
from wazuh_comms_trio.transport.conversation import Conversation, SchemaSource
from wazuh_comms_trio.transport.guards import guard_at
from wazuh_comms_trio.transport.paths import (
    STREAM_REFUSAL,
    PeerCredentials,
    check_path,
    connect_to_either,
    peer_credentials,
)
from wazuh_comms_trio.transport.translate import connect_error, stream_error, timed_out
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
S = TypeVar("S", bound=socket.socket)


class WazuhSocket(ClosedAtExit):
    """A connection to a daemon's stream socket, made at once. Payloads are bytes, framed with their length.

    ``timeout`` in seconds limits the connect, each send and each receive as a whole; None waits as long as it takes.
    When it runs out: :class:`SocketTimeout` (1014, a ``TimeoutError`` too). What had come by then is kept, and the
    socket stays usable, unless a message was sent in part: then it is closed. An answer that comes late is what the
    next ``receive`` returns, whatever was sent meanwhile: close the socket, unless you go on waiting for it.
    ``require_owner`` is a user's number or name, see :func:`check_path`. ``max_receive_bytes`` limits the payload of
    one frame.

    Errors: 1013 for a path that is missing or refused, 1121 when nobody listens, 1014 for everything after connecting,
    1012 for a payload above ``MAX_SIZE`` bytes (refused before the first byte goes out), 1105 for one that isn't bytes.
    """

    #: The most payload bytes that are sent.
    MAX_SIZE: int = 65536

    path: str
    #: The operating system's socket.
    s: socket.socket

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float | None = None,
        require_owner: int | str | None = None,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
    ) -> None:
        self._timeout = timeout
        self._shortened = False
        self._decoder = FrameDecoder(max_receive_bytes)
        self.s = connect_to_either(path, lambda place: connect_stream(place, timeout, require_owner))
        self.path = os.fspath(path)
        # The number of the process that connected.
        self._made_by: int = os.getpid()
        self._guard = guard_at(self.path)

    @property
    def timeout(self) -> float | None:
        """Seconds for each call, None without a limit. May be set at any time."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        self.s.settimeout(timeout)
        self._timeout = timeout

    def __repr__(self) -> str:
        state = "closed" if self.s.fileno() == -1 else "connected"
        return f"<{type(self).__name__} {self.path}: {state}>"

    def close(self) -> None:
        """Close the connection. Doing it again does nothing."""
        self.s.close()

    def send(self, msg_bytes: bytes, header_format: str | None = HEADER_FORMAT) -> int:
        """Send one frame; returns the number of bytes that went out, header included.

        ``header_format`` None sends the bytes as they are, with no header and no upper limit.
        """
        frame = encode_payload(msg_bytes, header_format, self.MAX_SIZE)
        if self._guard is not None:
            self._guard(msg_bytes)
        deadline = None if self._timeout is None else monotonic() + self._timeout
        sent = 0
        try:
            sent = self.s.send(frame)  # almost always all of it
            while sent < len(frame):
                if not sent:
                    raise WazuhError(1014, f"sending to {self.path}: not a byte was taken")
                self._allow_until(deadline)
                if not (more := self.s.send(memoryview(frame)[sent:])):
                    raise WazuhError(1014, f"sending to {self.path}: only {sent} of {len(frame)} bytes were taken")
                sent += more
        except OSError as exc:
            raise stream_error(exc, f"sending to {self.path}") from exc
        finally:
            if 0 < sent < len(frame):
                # The daemon would take the next message for the missing part of this one.
                self.s.close()
            self._restore_timeout()
        return sent

    @overload
    def receive(self, header_format: str | None = HEADER_FORMAT, header_size: int | None = 4) -> bytes: ...

    @overload
    def receive(self, header_size: int | None, header_format: str | None = HEADER_FORMAT, /) -> bytes: ...

    def receive(self, *order: Any, **named: Any) -> bytes:
        """One frame's payload, as it came: ``receive(header_format="<I", header_size=4)``.

        The two may come in either order, told apart by the type of the first; mixed up otherwise they are 1014. With
        one of them None: what has arrived, at least one byte, as :meth:`receive_raw`. Besides 1014 for a failing socket
        there are :class:`PeerClosed`, :class:`TruncatedFrame`, :class:`EmptyFrame` and :class:`FrameTooLarge`, 1014 as
        well.
        """
        if not order and not named:
            return self._receive_frame(HEADER)
        return self._receive_shape(receive_shape(order, named))

    def _receive_shape(self, shape: Shape) -> bytes:
        if shape.header_format is None or shape.header_size is None:
            return self.receive_raw()
        return self._receive_frame(header_struct(shape.header_format, shape.header_size))

    def receive_raw(self) -> bytes:
        """Bytes that have arrived, at least one, without looking for frames. :class:`PeerClosed` at the end."""
        if not self._decoder.buffered and not self._decoder.at_eof:
            self._read(None)
        if not self._decoder.buffered:
            self._decoder.next_frame()  # raises for the end of the stream
        return self._decoder.take_raw()

    def peer_credentials(self) -> PeerCredentials:
        """Process, user and group that listen at the other end (``SO_PEERCRED``). 1014 on a closed socket."""
        try:
            return peer_credentials(self.s)
        except OSError as exc:
            raise stream_error(exc, f"asking for the credentials behind {self.path}") from exc

    def _receive_frame(self, header: Struct) -> bytes:
        decoder = self._decoder
        frame = decoder.next_frame(header)
        if frame is not None:
            return frame
        deadline = None if self._timeout is None else monotonic() + self._timeout
        self._read(None, decoder.read_size(header))
        while (frame := decoder.next_frame(header)) is None:
            self._read(deadline, decoder.read_size(header))
        return frame

    def _read(self, deadline: float | None, size: int = READ_BYTES) -> None:
        try:
            if deadline is None:
                data = self.s.recv(size)
            else:
                self._allow_until(deadline)
                try:
                    data = self.s.recv(size)
                finally:
                    self._restore_timeout()
        except OSError as exc:
            raise stream_error(exc, f"receiving from {self.path}") from exc
        self._decoder.feed(data)

    def _allow_until(self, deadline: float | None) -> None:
        """Give the next call what is left, so that a peer that drips can't stretch the time given."""
        if deadline is not None:
            left = deadline - monotonic()
            if left <= 0 and self._timeout:
                raise timed_out()
            self.s.settimeout(max(left, 0.0))
            self._shortened = True

    def _restore_timeout(self) -> None:
        if self._shortened and self.s.fileno() != -1:
            self.s.settimeout(self._timeout)
        self._shortened = False


class WazuhSocketJSON(WazuhSocket):
    """As :class:`WazuhSocket`, with messages as JSON. ``send`` and ``receive`` check nothing beyond JSON and size."""

    def send(self, msg: Any, header_format: str | None = HEADER_FORMAT) -> int:
        """Send anything that JSON can say. 1012 for what it can't."""
        return super().send(encode_json(msg), header_format)

    @overload
    def receive(
        self, header_format: str | None = HEADER_FORMAT, header_size: int | None = 4, raw: bool = False
    ) -> Any: ...

    @overload
    def receive(
        self, header_size: int | None, header_format: str | None = HEADER_FORMAT, raw: bool = False, /
    ) -> Any: ...

    def receive(self, *order: Any, **named: Any) -> Any:
        """The ``data`` of the answer, or the whole answer when ``raw``: ``receive(header_format="<I", header_size=4,
        raw=False)``, the first two in either order.

        A non-zero ``error`` in the answer raises ``WazuhException(error, message, cmd_error=True)``, unless ``raw``; a
        word there :class:`DaemonRefusal`. An answer of 5.0 with neither ``error`` nor ``data`` is returned whole. What
        isn't JSON, or no object, is :class:`AnswerInvalid` (1014).
        """
        shape = receive_shape(order, named)
        answer = decode_json(self._receive_shape(shape))
        return answer if shape.raw else reply_data(answer)

    @overload
    def request(
        self, msg: Any, *, type: type[T], schema: SchemaSource | None = None, daemon: str | None = None
    ) -> T: ...

    @overload
    def request(
        self, msg: Any, *, type: None = None, schema: SchemaSource | None = None, daemon: str | None = None
    ) -> Any: ...

    def request(
        self, msg: Any, *, type: Any = None, schema: SchemaSource | None = None, daemon: str | None = None
    ) -> Any:
        """Send ``msg``, receive its answer and return the answer's ``data``, decoded into ``type`` when given.

        Message and answer are validated by JSON Schema, per daemon and command, when the message carries ``version``
        or its daemon's messages have a known form, or by ``schema`` when given: see :mod:`.schema`. ``daemon`` is the
        registry's name; it is found by the path when not given.

        When the time runs out, or anything else ends the wait for the answer, the socket is closed: the late answer
        reaches nobody.
        """
        conversation = Conversation(msg, daemon=daemon, path=self.path, schema=schema)
        WazuhSocket.send(self, conversation.payload)
        try:
            payload = WazuhSocket.receive(self)
        except BaseException:  # KeyboardInterrupt, too
            self.close()
            raise
        return conversation.result(payload, type)


def connect_stream(
    path: str | os.PathLike[str], timeout: float | None = None, require_owner: int | str | None = None
) -> socket.socket:
    """A connected blocking socket. Waits for room in the daemon's queue of new connections, at most ``timeout``."""
    return connect_socket(socket.socket, path, timeout, require_owner)


def connect_socket(
    make: Callable[[int, int], S],
    path: str | os.PathLike[str],
    timeout: float | None,
    require_owner: int | str | None,
) -> S:
    """As ``connect_stream``, a socket of a class of its own."""
    place = check_path(path, STREAM_REFUSAL, require_owner)
    if timeout is not None and timeout < 0:
        raise ValueError(f"a timeout can't be negative: {timeout}")
    sock = make(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if timeout is not None:
            # A non-blocking connect would fail at once; this way the kernel waits for room, as long as it is told to.
            _limit_connect(sock, max(timeout, 1e-6))
        sock.connect(place)
        if timeout is not None:
            _limit_connect(sock, 0)  # else a later ``timeout = None`` would leave sends limited
            sock.settimeout(timeout)
    except OSError as exc:
        sock.close()
        if timeout is not None and isinstance(exc, BlockingIOError):
            raise SocketTimeout(1014, f"{place}: no room for another connection within {timeout} s") from exc
        raise connect_error(exc, place) from exc
    except BaseException:
        sock.close()
        raise
    return sock


def _limit_connect(sock: socket.socket, timeout: float) -> None:
    """``timeout`` in seconds limits connecting; 0 stands for no limit."""
    microseconds = round(timeout * 1e6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, pack("@ll", *divmod(microseconds, 1_000_000)))
