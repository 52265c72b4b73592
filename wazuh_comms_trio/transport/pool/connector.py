"""Making a pool's connections: at each place where the daemon may be, and again while its backlog is full."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import trio

from wazuh_comms_trio.errors import BacklogFull, WazuhInternalError
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket
from wazuh_comms_trio.transport.daemon import Daemon
from wazuh_comms_trio.transport.guards import guard_of
from wazuh_comms_trio.transport.paths import failure_of_all, nobody_there
from wazuh_comms_trio.transport.registry import other_places
from wazuh_comms_trio.transport.translate import connect_error

C = TypeVar("C", WazuhAsyncProtocol, WazuhAsyncSocket)

#: Makes a connection to the daemon, in place of its Unix socket: what a test's fake has as ``connect``.
Connect: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]

# A full backlog is asked again after 1, 2, 4 ... 128, 128 ... ms.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.128


class Connector:
    """Makes connections to one daemon. ``connects`` counts those made, ``backlog_waits`` the pauses for a full
    backlog."""

    def __init__(
        self,
        daemon: Daemon,
        home: str | os.PathLike[str],
        *,
        connect_timeout: float,
        max_receive_bytes: int,
        require_owner: int | str | None,
        connect: Connect | None,
    ) -> None:
        self.connects: int = 0
        self.backlog_waits: int = 0
        self._daemon = daemon
        self._places = daemon.places(home)
        self._connect_timeout = connect_timeout
        self._max_receive_bytes = max_receive_bytes
        self._require_owner = require_owner
        self._connect_stream = connect

    @property
    def makes_sockets(self) -> bool:
        """Whether its connections are Unix sockets of our own."""
        return self._connect_stream is None

    async def protocol(self) -> WazuhAsyncProtocol:
        """For requests. A checkpoint; cancelled, nothing stays open."""
        return await self._connect(self._new_protocol)

    async def socket(self) -> WazuhAsyncSocket:
        """For a conversation of one task's own. A checkpoint; cancelled, nothing stays open."""
        return await self._connect(self._new_socket)

    async def _connect(self, new: Callable[[trio.abc.Stream | None], C]) -> C:
        give_up = trio.current_time() + self._connect_timeout
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                connection = await self._connect_once(new)
            except BacklogFull:
                pause = backoff.next_pause()
                if trio.current_time() + pause > give_up:
                    raise
            else:
                self.connects += 1
                return connection
            self.backlog_waits += 1
            await trio.sleep(pause)

    async def _connect_once(self, new: Callable[[trio.abc.Stream | None], C]) -> C:
        if self._connect_stream is not None:
            try:
                stream = await self._connect_stream()
            except OSError as error:
                raise connect_error(error, self._daemon.name) from error
            return new(stream)
        errors: list[WazuhInternalError] = []
        tried: set[str] = set()  # connecting to one place tries those of other releases as well
        for place in self._places:
            if place in tried:
                continue
            connection = new(None)
            try:
                await connection.connect(place, connect_timeout=0)  # it is waited for here, on the pool's own terms
            except WazuhInternalError as error:
                if not nobody_there(error):
                    raise
                errors.append(error)
                tried.update(other_places(place))
            else:
                return connection
        raise failure_of_all(errors)  # a daemon has a place

    def _new_protocol(self, stream: trio.abc.Stream | None) -> WazuhAsyncProtocol:
        connection = WazuhAsyncProtocol(
            stream,
            max_receive_bytes=self._max_receive_bytes,
            header_format=self._daemon.header_format,
            require_owner=self._require_owner,
        )
        connection._guard = guard_of(self._daemon.name)  # also where it isn't connected by a path
        return connection

    def _new_socket(self, stream: trio.abc.Stream | None) -> WazuhAsyncSocket:
        if stream is not None:
            return WazuhAsyncSocket.from_stream(stream, max_receive_bytes=self._max_receive_bytes)
        return WazuhAsyncSocket(max_receive_bytes=self._max_receive_bytes, require_owner=self._require_owner)
