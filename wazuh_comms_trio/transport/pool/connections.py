"""The connections of a pool: which are idle, which in use, and what becomes of them. Which request gets which is
decided synchronously, then acted upon."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import trio
from attrs import frozen

from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
from wazuh_comms_trio.transport.aio.shared_reads import SharedReads
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket
from wazuh_comms_trio.transport.daemon import Daemon
from wazuh_comms_trio.transport.errors import TransportClosed
from wazuh_comms_trio.transport.guards import guard_of
from wazuh_comms_trio.transport.pool.connector import Connector
from wazuh_comms_trio.transport.pool.turns import Turns
from wazuh_comms_trio.wire.envelope import TextErrors


@frozen(kw_only=True)
class PoolStatistics:
    """A snapshot. The first four are the present, the others count from the beginning.

    ``requests`` were sent or tried; ``connects`` are connections made; ``retries`` requests repeated on a fresh
    connection; ``expired`` connections closed because they were idle too long; ``given_up`` those closed for a
    cancelled, failed or unfinished request; ``backlog_waits`` pauses because the daemon's backlog was full.
    """

    size: int
    idle: int
    in_use: int
    tasks_waiting: int
    requests: int
    connects: int
    retries: int
    expired: int
    given_up: int
    backlog_waits: int


class PoolConnections:
    """The connections of a pool. See ``Pool``."""

    def __init__(
        self,
        daemon: Daemon,
        connector: Connector,
        *,
        size: int,
        idle_timeout: float,
        nursery: trio.Nursery,
        text_errors: TextErrors = "replace",
    ) -> None:
        self.daemon = daemon
        self.size = size
        #: what becomes of bytes of an answer that aren't UTF-8
        self.text_errors: TextErrors = text_errors
        self._connector = connector
        self._guard = guard_of(daemon.name)
        self._idle_timeout = idle_timeout
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._turns = Turns(size)
        # Connections and since when they are idle, the one used last at the right end.
        self._idle: deque[tuple[WazuhAsyncProtocol, float]] = deque()
        self._reads: SharedReads | None = None  # made for the first connection that can do with it
        self._in_use: set[WazuhAsyncProtocol | WazuhAsyncSocket] = set()
        self._idle_came = trio.Event()
        self._closed = False
        self._requests = self._retries = self._expired = self._given_up = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._idle)} idle, {len(self._in_use)} in use, of {self.size}"
        return f"<Pool {self.daemon.name}: {state}>"

    def statistics(self) -> PoolStatistics:
        """A snapshot."""
        return PoolStatistics(
            size=self.size,
            idle=len(self._idle),
            in_use=len(self._in_use),
            tasks_waiting=self._turns.waiting,
            requests=self._requests,
            connects=self._connector.connects,
            retries=self._retries,
            expired=self._expired,
            given_up=self._given_up,
            backlog_waits=self._connector.backlog_waits,
        )

    # --- deciding, synchronously --------------------------------------------------------------------------------------

    def _take_idle(self) -> WazuhAsyncProtocol | None:
        """The connection used last: the daemon has it in its caches, and is the least likely to have ended it."""
        self._require_open()
        return self._idle.pop()[0] if self._idle else None

    def _may_keep(self, connection: WazuhAsyncProtocol) -> bool:
        return self.daemon.reusable and not self._closed and connection._is_ready()

    def _leave_idle(self, connection: WazuhAsyncProtocol) -> None:
        """Leaves a connection idle for the next request."""
        self._idle.append((connection, trio.current_time()))
        if not self._idle_came.is_set():
            self._idle_came.set()

    def _require_open(self) -> None:
        if self._closed:
            raise TransportClosed(1014, "this pool is closed")

    # --- acting -------------------------------------------------------------------------------------------------------

    async def _connect(self) -> WazuhAsyncProtocol:
        """A new connection. Cancelled, nothing stays open."""
        await self._make_room()
        connection = await self._connector.protocol()
        await self._refuse_if_closed(connection)
        if self.daemon.reusable and self._connector.makes_sockets:
            self._share_reads(connection)
        return connection

    def _share_reads(self, connection: WazuhAsyncProtocol) -> None:
        try:
            self._reads = self._reads or SharedReads()
            connection._share_reads(self._reads)
        except OSError:
            pass  # no descriptor or memory is left for it: this connection is waited for by itself

    async def _refuse_if_closed(self, connection: trio.abc.AsyncResource) -> None:
        """The pool may have been closed while this was being connected."""
        if self._closed:
            await close_now(connection)
            self._require_open()

    # --- a connection that won't be used again: one task's own, with nothing shared on it ---

    async def _open_own(self) -> WazuhAsyncSocket:
        """A fresh connection in this task's turn, to be given to ``_close_own`` or ``_abandon_own``."""
        self._requests += 1
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._turns.take()
        try:
            await self._make_room()
            connection = await self._connector.socket()
            await self._refuse_if_closed(connection)
        except BaseException:
            self._turns.give_back()
            raise
        self._in_use.add(connection)
        return connection

    async def _close_own(self, connection: WazuhAsyncSocket, clean: bool = False) -> None:
        """Not cancelled. Doing it again does nothing."""
        if connection in self._in_use:
            self._given_up += not clean
            self._in_use.discard(connection)
            self._turns.give_back()
        await close_now(connection)

    def _abandon_own(self, connection: WazuhAsyncSocket) -> None:
        """The same from where nothing can be awaited, which may be another thread. Once the loop has ended, nothing is
        left to do."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._start_closing, connection)

    def _start_closing(self, connection: WazuhAsyncSocket) -> None:
        if not self._closed:
            self._nursery.start_soon(self._close_own, connection)

    async def _stop_using(self, connection: WazuhAsyncProtocol, clean: bool = False) -> None:
        """Close it without waiting. Not cancelled."""
        self._in_use.discard(connection)
        self._given_up += not clean
        await close_now(connection)

    async def _give_back(self, connection: WazuhAsyncProtocol, clean: bool) -> None:
        """Keep it, or close it without waiting. Not cancelled."""
        if clean and self._may_keep(connection):
            self._in_use.discard(connection)
            self._leave_idle(connection)
        else:
            await self._stop_using(connection, clean)

    async def _make_room(self) -> None:
        """Close idle connections in favour of a fresh one: no more than ``size`` are ever open."""
        while len(self._idle) > self._turns.free:  # every turn that is taken has a connection, or will
            await close_now(self._idle.popleft()[0])

    async def _expire(self) -> None:
        """Close what was idle for too long, while the pool is open."""
        while True:
            self._idle_came = trio.Event()
            while self._idle:
                connection, since = self._idle[0]
                if trio.current_time() < (deadline := since + self._idle_timeout):
                    await trio.sleep_until(deadline)
                    continue
                self._idle.popleft()
                self._expired += 1
                await close_now(connection)
            await self._idle_came.wait()

    async def _close(self) -> None:
        self._closed = True
        for connection in [*(connection for connection, _ in self._idle), *self._in_use]:
            await close_now(connection)
        self._idle.clear()
        if self._reads is not None:
            self._reads.close()


async def close_now(connection: trio.abc.AsyncResource) -> None:
    """Close without waiting for anything, cancelled or not; what led here isn't replaced by a Cancelled."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await connection.aclose()
