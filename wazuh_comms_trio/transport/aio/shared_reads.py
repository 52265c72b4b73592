"""Waiting for the answers of many connections at once, for the tasks of one pool.

trio's wait for one socket costs more than a small query's other steps together, and every connection pays it by
itself. Here all connections of a pool are in one epoll object; of the tasks that wait, one (the leader) waits for that
object, reads what has come for everybody, wakes those it came for, and hands the leading on. No task runs in the
background.

Events are edge-triggered: what comes on a connection that nobody waits for is reported once and left alone. So a
request has to be expected in the same step in which it was sent.
"""

from __future__ import annotations

import select
from collections import deque
from time import perf_counter
from typing import Any, Final

import trio

from wazuh_comms_trio.transport.aio.pipeline import Slot
from wazuh_comms_trio.transport.aio.sleeping import sleep, wake
from wazuh_comms_trio.transport.aio.stream_io import SocketIO
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed
from wazuh_comms_trio.wire.framing import READ_BYTES

# So often the only request under way looks for its answer before it goes to sleep: 20 to 40 µs, which is what the
# sleep would cost the processor as well.
_LOOKS: Final = 100
# An answer that was seen within these seconds, sleep included, may have been there within those looks.
_QUICK: Final = 150e-6
# After looking in vain the next 1, 2, 4 ... 64 requests don't look.
_LONGEST_PAUSE: Final = 64
# How many answers in a row are taken without a turn for other tasks: about half a millisecond.
_ANSWERS_PER_TURN: Final = 16


class SoleRequest(Slot):
    """A request that has its connection to itself."""

    #: the connection on which another task has sent it, in this task's place
    connection: Any = None
    #: ``SharedReads`` was told to expect its answer; ``io`` is set until something has come
    expected: bool = False
    io: SocketIO | None = None
    #: what came, ``b""`` at the end of the stream
    data: bytes | None = None
    failure_to_read: TransportBroken | TransportClosed | None = None

    def __init__(self, frame: bytes) -> None:
        self.frame: bytes = frame
        self.replies: deque[bytes] = deque()


class SharedReads:
    """Reads for the connections that were added, each with one request under way at most. ``OSError`` when the system
    has no descriptor left."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._fileno = self._epoll.fileno()
        self._expected: dict[int, SoleRequest] = {}
        self._leader: SoleRequest | None = None
        self._until_turn = _ANSWERS_PER_TURN
        # Looking for an answer: whether it may pay, for how many requests not, and how many the next time.
        self._looks = False
        self._skip = 0
        self._pause = 1

    def add(self, io: SocketIO) -> None:
        """Adds a connection: from now on requests on it may be expected, until it is closed. ``OSError`` when the
        system has no room."""
        self._epoll.register(io.fileno, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        io.on_close = self._forget

    def close(self) -> None:
        """When all connections are closed."""
        self._epoll.close()

    def expect(self, request: SoleRequest, io: SocketIO) -> None:
        """The request was sent on ``io`` just now: what comes there is its own. Next it is given to ``receive``, or, if
        its task sleeps, to ``see_to_leader``."""
        request.io = io
        request.expected = True
        self._expected[io.fileno] = request

    def see_to_leader(self) -> None:
        """Some request is expected whose task sleeps. If nobody leads it is woken to do so."""
        if self._leader is None:
            self._appoint_leader()

    async def receive(self, request: SoleRequest, alone: bool) -> bytes:
        """The first bytes that come for a request that is expected, at least one; ``b""`` at the end of the stream.

        A checkpoint. ``alone``: no other request is under way, so that it may look for its answer before it sleeps;
        then only every 16th answer that it finds so lets other tasks run. ``TransportBroken``, ``TransportClosed``.
        """
        begin = None
        try:
            if alone and request.io is not None:
                if self._looks and self._look(request):
                    self._until_turn -= 1
                    if not self._until_turn:
                        self._until_turn = _ANSWERS_PER_TURN
                        await trio.lowlevel.cancel_shielded_checkpoint()
                begin = perf_counter()
            while request.data is None:
                if request.failure_to_read is not None:
                    raise request.failure_to_read
                if self._leader is None or self._leader is request:
                    await self._lead(request)
                else:
                    await sleep(request)
        finally:
            self.dismiss(request)
        if begin is not None:
            self._learn(perf_counter() - begin)
        return request.data

    def dismiss(self, request: SoleRequest) -> None:
        """Expect it no more, and have another one lead if it did. Doing it again does nothing."""
        if request.io is not None:
            del self._expected[request.io.fileno]
            request.io = None
        if self._leader is request:
            self._leader = None
            if self._expected:
                self._appoint_leader()

    # --- looking without sleeping: for the only request under way, where the daemon answers in a few microseconds -----

    def _look(self, request: SoleRequest) -> bool:
        """Whether something has come, a failure included."""
        assert request.io is not None  # it is expected
        poll = request.io.poll
        for _ in range(_LOOKS):
            if poll(0):
                self._pause = 1
                self._read(request, request.io)
                return True
        self._looks = False
        self._skip = self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return False

    def _learn(self, seconds: float) -> None:
        if self._skip:
            self._skip -= 1
        else:
            self._looks = seconds < _QUICK

    # --- sleeping, and reading for those who sleep --------------------------------------------------------------------

    async def _lead(self, request: SoleRequest) -> None:
        """Wait until something comes, and read it for everybody. A checkpoint; cancelled, nothing was read."""
        self._leader = request
        try:
            await trio.lowlevel.wait_readable(self._fileno)
        except trio.ClosedResourceError:
            return  # _forget woke us
        if self._epoll.closed:
            return  # and with it all connections
        for fileno, _ in self._epoll.poll(0):
            found = self._expected.get(fileno)
            if found is not None and found.io is not None:
                self._read(found, found.io)

    def _read(self, request: SoleRequest, io: SocketIO) -> None:
        """If something has come wake its task, and expect it no more."""
        try:
            request.data = io.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            request.failure_to_read = io.translate(exc, "receiving")
        del self._expected[io.fileno]
        request.io = None
        if request.sleeper is not None:
            trio.lowlevel.reschedule(request.sleeper)
            request.sleeper = None

    def _appoint_leader(self) -> None:
        """Some request is expected, all tasks of which sleep."""
        self._leader = next(iter(self._expected.values()))
        wake(self._leader)

    def _forget(self, io: SocketIO) -> None:
        """The connection is about to be closed."""
        self._epoll.unregister(io.fileno)
        request = self._expected.pop(io.fileno, None)
        if request is None:
            return
        request.io = None
        request.failure_to_read = TransportClosed(1014, "this socket was closed by another task")
        if request is self._leader:
            trio.lowlevel.notify_closing(self._fileno)
        else:
            wake(request)
