"""What both sides of :class:`WazuhAsyncProtocol` stand on: one connection, its state, its end and its numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import trio

from wazuh_comms_trio.errors import WazuhInternalError
from wazuh_comms_trio.transport.aio.connecting import CONNECT_TIMEOUT, connect_unix
from wazuh_comms_trio.transport.aio.pipeline import Pipeline, Slot
from wazuh_comms_trio.transport.aio.shared_reads import SharedReads
from wazuh_comms_trio.transport.aio.sleeping import wake
from wazuh_comms_trio.transport.aio.stream_io import ByteIO, SocketIO, over_stream
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed, require_trio
from wazuh_comms_trio.transport.guards import Guard, guard_at
from wazuh_comms_trio.transport.paths import PeerCredentials
from wazuh_comms_trio.transport.translate import stream_error
from wazuh_comms_trio.wire.framing import (
    HEADER_FORMAT,
    MAX_RECEIVE_BYTES,
    MAX_SEND_BYTES,
    FrameDecoder,
    header_struct,
)


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


class ProtocolConnection(trio.abc.AsyncResource):
    """One connection, whichever side it is. See :class:`WazuhAsyncProtocol`."""

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
        self._guard: Guard | None = None
        self._pipeline = Pipeline()
        self._turn = trio.StrictFIFOLock()
        self._io: ByteIO | None = None
        #: what waits for this connection's answers in place of itself
        self._reads: SharedReads | None = None
        self._shared_io: SocketIO | None = None
        self._end: TransportClosed | TransportBroken | None = None
        self._role: Literal["client", "server"] | None = None
        self._connecting = False
        self._reading = False
        self._exchanges: set[Slot] = set()
        self._unanswered = 0
        self._frames_sent = 0
        self._bytes_sent = 0
        self._bytes_received = 0
        if stream is not None:
            require_trio(type(self).__name__)
            self._io = over_stream(stream)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path or ''}: {self.state.value}>"

    async def connect(self, path: str | os.PathLike[str], *, connect_timeout: float = CONNECT_TIMEOUT) -> None:
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
            io = await connect_unix(path, self.require_owner, connect_timeout)
        finally:
            self._connecting = False
        if self.state is not ConnectionState.CONNECTING:  # closed by another task meanwhile
            await io.abort()
            raise self._ended()
        self._io = io
        self.path = os.fspath(path)
        self._guard = guard_at(self.path)

    def _share_reads(self, reads: SharedReads) -> None:
        """Have its answers waited for together with other connections', where it is a socket of our own."""
        if type(self._io) is SocketIO and self._header_format == HEADER_FORMAT:
            reads.add(self._io)
            self._reads, self._shared_io = reads, self._io

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands, as far as this side has noticed."""
        if self._end is not None:
            return ConnectionState.CLOSED if isinstance(self._end, TransportClosed) else ConnectionState.BROKEN
        if self._io is None:
            return ConnectionState.CONNECTING
        return ConnectionState.BUSY if self._pipeline.slots or self._unanswered else ConnectionState.READY

    def _is_ready(self) -> bool:
        """``state`` is READY, more cheaply."""
        return self._end is None and self._io is not None and not self._pipeline.slots and not self._unanswered

    def statistics(self) -> ProtocolStatistics:
        """A snapshot."""
        server = self._role == "server"
        sent, received = self._frames_sent, self._pipeline.received
        return ProtocolStatistics(
            state=self.state,
            requests=received if server else sent,
            replies=sent if server else received,
            dropped=self._pipeline.dropped,
            in_flight=self._unanswered if server else len(self._pipeline.slots),
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

    def _take_role(self, role: Literal["client", "server"]) -> None:
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
        error.__dict__.update(end.__dict__)
        error.args, error.__cause__ = end.args, end.__cause__
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
            wake(slot)
        self._pipeline.slots.clear()
        self._unanswered = 0
