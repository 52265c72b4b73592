"""Datagram queues for trio programs: :class:`WazuhAsyncQueue`, :class:`WazuhAsyncAnalysisdQueue`.

As their twins in :mod:`.datagram`, checks included, but they wait for room in the queue (about 11 datagrams fit)
without blocking the program. A datagram goes out whole or not at all, so a cancelled send has sent nothing and the
queue stays usable. Several tasks may send; each datagram is one call, and those of one task keep their order.

A send is a checkpoint, except that for 200 µs after one of its queue's checkpoints it is none while there is room:
so long may other tasks have to wait, and so long may the sends of a task that is cancelled still go out.
"""

from __future__ import annotations

import os
import socket as _socket
from time import perf_counter
from typing import Final, Self

import trio

from wazuh_comms_trio.errors import WazuhError, WazuhException, WazuhInternalError
from wazuh_comms_trio.transport.blocking.datagram import BaseQueue, connect_queue, not_sent
from wazuh_comms_trio.transport.errors import (
    QueueBroken,
    QueueClosed,
    TransportBroken,
    TransportClosed,
    require_trio,
)
from wazuh_comms_trio.transport.translate import READER_GONE, queue_error, queue_reason
from wazuh_comms_trio.wire import agent_command
from wazuh_comms_trio.wire.agent_command import MAX_EXECQ_BYTES, agent_datagram
from wazuh_comms_trio.wire.event import encode_event

# Seconds for which datagrams, some 100, go out one after another before other tasks run. Real ones on any clock of
# trio's: they are the processor's.
_TURN: Final = 200e-6
_USUAL_SIZE: Final = BaseQueue.MAX_MSG_SIZE


class BaseAsyncQueue(trio.abc.AsyncResource):
    """A connection to a daemon's datagram socket. Arguments as for :class:`BaseQueue`.

    Made unconnected, for ``async with WazuhAsyncQueue() as queue: await queue.connect(path)``, or connected:
    ``async with await WazuhAsyncQueue.from_path(path) as queue``. 1010 for a path that is missing, refused or no
    datagram socket. A queue that we closed is :class:`trio.ClosedResourceError`, one whose reader is gone
    :class:`trio.BrokenResourceError`.
    """

    OS_MAXSTR: int = BaseQueue.OS_MAXSTR
    #: The least send buffer, in bytes. Where a subclass says otherwise, its longest message as well.
    MAX_MSG_SIZE: int = BaseQueue.MAX_MSG_SIZE

    def __init__(self, *, send_buffer: int | None = None, require_owner: int | str | None = None) -> None:
        self.path: str = ""
        self.send_buffer = send_buffer
        self.require_owner = require_owner
        self._line = trio.StrictFIFOLock()
        self._standing_in_line = 0  # tasks, the first one included
        self._turn_ends = 0.0  # by perf_counter
        #: The operating system's socket, non-blocking; None when not connected.
        self.socket: _socket.socket | None = None

    @classmethod
    async def from_path(
        cls, path: str | os.PathLike[str], *, send_buffer: int | None = None, require_owner: int | str | None = None
    ) -> Self:
        """A connected queue."""
        queue = cls(send_buffer=send_buffer, require_owner=require_owner)
        await queue.connect(path)
        return queue

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {'closed' if self.socket is None else 'connected'}>"

    async def connect(self, path: str | os.PathLike[str]) -> None:
        """Connect; a connection made before is closed. A checkpoint; cancelled, nothing has changed."""
        require_trio(type(self).__name__)
        await trio.lowlevel.checkpoint()
        least = max(self.MAX_MSG_SIZE, self.send_buffer or 0)
        sock = connect_queue(path, least, self.require_owner)
        sock.setblocking(False)
        self._close_now()
        self.socket, self.path = sock, os.fspath(path)

    async def aclose(self) -> None:
        """Close the queue. Doing it again does nothing. A checkpoint; closed even if cancelled."""
        require_trio(type(self).__name__)
        self._close_now()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        """The same as :meth:`aclose`."""
        await self.aclose()

    def _close_now(self) -> None:
        sock, self.socket = self.socket, None
        if sock is not None:
            trio.lowlevel.notify_closing(sock)
            sock.close()

    async def _send(self, msg: bytes) -> None:
        """Send one datagram as it is, waiting for room. A checkpoint; cancelled, nothing was sent.

        1105 for what isn't bytes, 1011 when it can't be sent.
        """
        if not isinstance(msg, bytes):
            raise WazuhException(1105)
        if self.socket is None:
            require_trio(type(self).__name__)
        await trio.lowlevel.checkpoint()
        self._turn_ends = perf_counter() + _TURN
        # A task that finds others waiting stands in line behind them.
        if self._standing_in_line or not self._send_nowait(msg):
            await self._send_in_line(msg)

    def _send_at_once(self, datagram: bytes) -> bool:
        """Send one datagram without a checkpoint, and return whether it was sent. Where it wasn't, since other tasks
        are to run first or wait for room, or the socket didn't take it, :meth:`_send` sends it, or tells why not."""
        if self._standing_in_line or (sock := self.socket) is None or perf_counter() > self._turn_ends:
            return False
        try:
            sock.send(datagram)
        except OSError:
            return False
        return True

    async def _send_in_line(self, msg: bytes) -> None:
        """Behind those who wait already. What waits for room is a checkpoint; standing in an empty line need not be."""
        self._standing_in_line += 1
        try:
            try:
                self._line.acquire_nowait()
            except trio.WouldBlock:
                await self._line.acquire()
            try:
                while not self._send_nowait(msg):
                    await self._wait_for_room()
            finally:
                self._line.release()
        finally:
            self._standing_in_line -= 1

    async def _send_checked(self, datagram: bytes) -> None:
        """As :meth:`_send`, with the error that the public methods raise: 1014, naming the path."""
        try:
            await self._send(datagram)
        except QueueClosed as exc:
            raise TransportClosed(1014, not_sent(exc, type(self).__name__)) from exc
        except QueueBroken as exc:
            raise TransportBroken(1014, not_sent(exc, type(self).__name__)) from exc
        except WazuhInternalError as exc:
            raise WazuhError(1014, not_sent(exc, type(self).__name__)) from exc

    def _send_nowait(self, msg: bytes) -> bool:
        """Send one datagram if there is room; returns whether there was. 1011 when it can't be sent."""
        sock = self.socket
        if sock is None:
            raise QueueClosed(1011, f"{self.path or 'a queue'}: not connected")
        try:
            sock.send(msg)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno in READER_GONE:
                raise QueueBroken(1011, queue_reason(exc, self.path)) from exc
            raise queue_error(exc, self.path) from exc
        return True

    async def _wait_for_room(self) -> None:
        """Waits until a send may succeed. A checkpoint."""
        sock = self.socket
        if sock is None:
            raise QueueClosed(1011, f"{self.path}: not connected")
        try:
            await trio.lowlevel.wait_writable(sock)
        except trio.ClosedResourceError:
            raise QueueClosed(1011, f"{self.path}: closed by another task") from None
        self._turn_ends = perf_counter() + _TURN


class WazuhAsyncQueue(BaseAsyncQueue):
    """Commands to agents through remoted's ``ar`` queue, or to this host through execd's."""

    HC_SK_RESTART: str = agent_command.HC_SK_RESTART
    HC_FORCE_RECONNECT: str = agent_command.HC_FORCE_RECONNECT
    RESTART_AGENTS: str = agent_command.RESTART_AGENTS
    RESTART_AGENTS_JSON: str = agent_command.RESTART_AGENTS_JSON
    AR_TYPE: str = agent_command.AR_TYPE

    async def send_msg_to_agent(self, msg: str = "", agent_id: str | None = "", msg_type: str | None = "") -> str:
        """As :meth:`WazuhQueue.send_msg_to_agent`, waiting for room. A checkpoint, if the queue's last one isn't of the
        last 200 µs; :class:`trio.Cancelled` means that nothing was sent."""
        # As own_limit and _send_at_once, whose calls are a fifth of what a datagram costs beside its send.
        if (limit := self.MAX_MSG_SIZE) == _USUAL_SIZE:
            limit = MAX_EXECQ_BYTES
        datagram, confirmation = agent_datagram(msg, agent_id, msg_type, limit)
        if not self._standing_in_line and (sock := self.socket) is not None and perf_counter() <= self._turn_ends:
            try:
                sock.send(datagram)
            except OSError:
                pass
            else:
                return confirmation
        await self._send_checked(datagram)
        return confirmation


class WazuhAsyncAnalysisdQueue(BaseAsyncQueue):
    """Events for analysisd."""

    #: The longest event in bytes, header included. A subclass may have a lower one; above 65535 analysisd would cut.
    MAX_MSG_SIZE: int = 65535

    async def send_msg(self, msg_header: str, msg: str) -> None:
        """As :meth:`WazuhAnalysisdQueue.send_msg`, waiting for room. A checkpoint, if the queue's last one isn't of the
        last 200 µs; :class:`trio.Cancelled` means that nothing was sent."""
        datagram = encode_event(msg_header, msg, self.MAX_MSG_SIZE)
        if not self._send_at_once(datagram):
            await self._send_checked(datagram)
