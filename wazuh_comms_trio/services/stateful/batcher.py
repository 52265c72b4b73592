"""The batcher: packets come in through a memory channel, batches go out in bulk calls.

    request -> channel -> collect, one writer at a time -> one bulk call -> each packet is settled

Eight writers share the channel. The one whose turn it is collects a batch (the others wait for the collecting lock),
lets the next one collect, and writes what it has; so many bulk calls are in flight as writers write. Behind the channel
``AgentOrder`` keeps the order within an agent. Big packets have their turn there, too, and then go in pieces, through a
channel without a buffer and by writers of their own.

A packet of which a store that answers takes something later, and one for an index of which nothing was taken lately, is
tried *apart*: it holds its agent, and nobody else's packets wait for it. There are two such rows, one for
packets of indices that are in trouble: a call for these may take as long as the indexer waits for a shard.

What can wait: ``_MAX_QUEUED`` packets in the channel and ``_MAX_BEHIND`` that were taken from it, for a batch
(``WaitingPackets``) or behind their agents' holders, each of at most 64 KiB, 64 MiB together; a request that finds no
room waits for it, and those that have waited longest are shed; so are, once half of the room is used, the newest
behind what is tried apart or is big, of the agent of which most are there. More is in flight: eight batches of about
``batcher.max_size`` bytes, and four pieces of 2 MiB; and ``_MAX_APART`` agents' packets in each row apart, of more of
which the newest is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.config import models
from wazuh_comms_trio.errors import BackendUnavailable, Overloaded
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.services.stateful.agent_order import AgentOrder, Batch
from wazuh_comms_trio.services.stateful.bulk_writer import BulkWriter
from wazuh_comms_trio.services.stateful.submission import Packet, Piece
from wazuh_comms_trio.services.stateful.waiting_packets import WaitingPackets
from wazuh_comms_trio.services.store_backoff import store_backoff

__all__ = ["MAX_WAITING", "Batcher"]

_MAX_QUEUED: Final = 256
_MAX_BEHIND: Final = 768
MAX_WAITING: Final = _MAX_QUEUED + _MAX_BEHIND
#: With more waiting, none do behind what is tried apart, or a big packet: that may take long, and others need the room.
_MAX_BEHIND_LONG: Final = _MAX_BEHIND // 2

#: Bulk calls in flight at a time, of batches and of big packets' pieces. More don't make a store faster.
_BATCH_WRITERS: Final = 8
_PIECE_WRITERS: Final = 4

#: Agents' packets in a row apart, and what one call takes of them.
_MAX_APART: Final = 256
_APART_EVENTS: Final = 1000
_APART_BYTES: Final = 1024 * 1024


class Batcher:
    """``run`` owns the writers. What is in flight is theirs and not the requests': when a client leaves, its agent's
    next packet still has to wait for what is under way."""

    def __init__(
        self,
        writer: BulkWriter,
        limits: models.Batcher,
        metrics: Metrics | None = None,
        refused: Callable[[int], object] = lambda count: None,
        *,
        rng: Random,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._refused = refused  # told how many packets were shed
        self._writer = writer
        self._limits = limits
        self._packets_in, self._packets = trio.open_memory_channel[Packet](_MAX_QUEUED)
        self._pieces_in, self._pieces = trio.open_memory_channel[Piece](0)
        self._waiting = WaitingPackets()
        self._order = AgentOrder()
        self._again = _Apart(writer, rng)
        self._troubled = _Apart(writer, rng)
        self._collecting = trio.Lock()
        self._batch = Batch()  # the one that is being collected
        self._pause = trio.CancelScope()  # around the wait for the next packet
        self._ended = False  # the channel is closed and empty
        self.batches_in_flight = 0
        self.pieces_in_flight = 0

    # --- the requests' side ---

    async def put(self, packet: Packet) -> None:
        """Hands ``packet`` over; ``packet.news`` tells what becomes of it. Waits for room. An agent's packets are
        written in the order of these calls. Raises ``BackendUnavailable`` after ``close``. Cancelled: it isn't taken.
        """
        try:
            try:
                self._packets_in.send_nowait(packet)  # no checkpoint: it would cost every request a turn of the loop
            except trio.WouldBlock:
                await self._packets_in.send(packet)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise BackendUnavailable from None

    async def write_piece(self, piece: Piece) -> None:
        """Writes a piece; returns when it is settled. Raises ``BackendUnavailable`` when nobody writes any more.
        Cancelled: the piece may be in flight, and its agent is held until it isn't."""
        try:
            await self._pieces_in.send(piece)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise BackendUnavailable from None
        try:
            await piece.news.wait()
        finally:
            piece.abandoned = True

    def make_way(self) -> None:
        """Ends what is tried apart and gives way, unless it is in a call at this moment."""
        for row in (self._again, self._troubled):
            row.make_way()

    def finish(self, packet: Packet) -> None:
        """Releases the agent of a big packet, whose request is done with it, at its end or before."""
        packet.abandoned = True
        if packet.news.is_set() and not packet.busy:
            self._release(packet)

    def close(self) -> None:
        """No more packets are taken; those that were are finished."""
        self._packets_in.close()

    # --- the writers' side ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ends when ``close`` was called and everything is settled. Cancelled: what waits is settled with
        ``BackendUnavailable``."""
        try:
            async with trio.open_nursery() as apart:
                for row in (self._again, self._troubled):
                    apart.start_soon(row.run)
                async with trio.open_nursery() as piece_writers:
                    for _ in range(_PIECE_WRITERS):
                        piece_writers.start_soon(self._write_pieces)
                    async with trio.open_nursery() as batch_writers:
                        for _ in range(_BATCH_WRITERS):
                            batch_writers.start_soon(self._write_batches)
                        task_status.started()
                    self._pieces_in.close()
                apart.cancel_scope.cancel()  # nothing is in flight any more
        finally:
            self._fail_what_waits()

    async def _write_batches(self) -> None:
        while (batch := await self._collect()) is not None:
            self.batches_in_flight += 1
            self._metrics.observe(families.BATCH_WAIT, trio.current_time() - batch.opened)
            left: Sequence[Packet] = ()
            try:
                left = await self._writer.write(batch.packets)
            finally:
                apart = set(left)
                _settle([packet for packet in batch.packets if packet not in apart])
                for own in self._order.hand_over(batch, left):
                    self._set_apart(own.packets, partial(self._release, own))
                self._shed_behind()
                self.batches_in_flight -= 1
                self._release(batch)

    def _set_apart(self, packets: list[Packet], release: Callable[[], object]) -> None:
        """``release`` is called when all of them are settled."""
        is_troubled = any(packet.part is not None and self._writer.is_troubled(packet.part) for packet in packets)
        (self._troubled if is_troubled else self._again).add(_Held(packets, release))

    async def _collect(self) -> Batch | None:
        """The next batch; None when there won't be one."""
        async with self._collecting:
            batch = self._batch = Batch()
            while True:
                self._take_queued(batch)
                if self._is_due(batch):
                    return batch
                if self._ended and self._order.idle and not self._waiting:
                    return None
                due = batch.opened + self._limits.wait_time if batch.packets else inf
                with trio.CancelScope(deadline=due) as self._pause:
                    await self._receive()

    def _is_due(self, batch: Batch) -> bool:
        """Nagle's rule, when ``eager``: with nothing in flight a batch goes at once. Otherwise it goes when it is full
        or its first packet has waited long enough."""
        return bool(batch.packets) and (
            (self._limits.eager and not self.batches_in_flight)
            or batch.is_full(self._limits)
            or self._ended
            or trio.current_time() >= batch.opened + self._limits.wait_time
        )

    def _take_queued(self, batch: Batch) -> None:
        """Takes packets that are there without waiting, until ``batch`` is full."""
        now = trio.current_time()
        while self._order.ready and not batch.is_full(self._limits):
            self._place(self._order.take_ready(), batch, now)
        try:
            while self._has_room():
                self._waiting.add(self._packets.receive_nowait(), now)
            while self._packets.statistics().current_buffer_used and (late := self._waiting.shed(now)):
                self._refuse(late)
                while self._has_room():
                    self._waiting.add(self._packets.receive_nowait(), now)
        except trio.WouldBlock:
            pass
        except trio.EndOfChannel:
            self._ended = True
        while not batch.is_full(self._limits) and self._order.waiting < _MAX_BEHIND:
            following = self._waiting.next(now)
            if following is None:
                return
            self._place(following, batch, now)

    def _place(self, packet: Packet, batch: Batch, now: float) -> None:
        if packet.part is None or not self._writer.is_troubled(packet.part):
            self._order.place(packet, batch, now)
        else:
            own = Batch(apart=True)
            self._order.place(packet, own, now)
            if own.packets:
                self._set_apart(own.packets, partial(self._release, own))
        self._shed_behind()

    def _shed_behind(self) -> None:
        if self._order.waiting > _MAX_BEHIND_LONG and (shed := self._order.shed_behind(_MAX_BEHIND_LONG)):
            self._refuse(shed)
            self._pause.cancel()  # there is room again

    def _refuse(self, packets: Sequence[Packet]) -> None:
        if packets:
            self._refused(len(packets))
        for packet in packets:
            packet.settle(Overloaded())

    def _has_room(self) -> bool:
        return len(self._waiting) + self._order.waiting < _MAX_BEHIND

    async def _receive(self) -> None:
        """Waits for the next packet, or until ``_pause`` is over. It isn't placed at once: its agent's holder may have
        been released in the same turn of the event loop, and what is ready since then goes before it."""
        if self._ended or not self._has_room():
            await trio.sleep_forever()
        try:
            packet = await self._packets.receive()
        except trio.EndOfChannel:
            self._ended = True
        else:
            self._waiting.add(packet, trio.current_time())

    async def _write_pieces(self) -> None:
        async for piece in self._pieces:
            packet = piece.packet
            packet.busy = True
            self.pieces_in_flight += 1
            left: Sequence[Packet] = ()
            try:
                is_troubled = piece.part is not None and self._writer.is_troubled(piece.part)
                left = [piece] if is_troubled else await self._writer.write([piece])
            finally:
                self.pieces_in_flight -= 1
                if left:
                    self._set_apart([piece], partial(self._end_piece, packet))
                else:
                    _settle([piece])
                    self._end_piece(packet)

    def _end_piece(self, packet: Packet) -> None:
        packet.busy = False
        if packet.abandoned:
            self._release(packet)

    def _release(self, holder: Batch | Packet) -> None:
        """Releases the holder's agents. The writer that collects goes on when that makes a difference to it."""
        self._order.release(holder)
        if self._batch.packets or self._order.ready or self._ended:
            self._pause.cancel()

    def _fail_what_waits(self) -> None:
        _settle(self._batch.packets)
        for row in (self._again, self._troubled):
            row.end()
        _settle(self._order.take_all())
        _settle(self._waiting.take_all())
        try:
            while True:
                _settle([self._packets.receive_nowait()])
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        self._packets.close()  # those who wait for room are told by it
        self._pieces.close()


@frozen(eq=False)
class _Held:
    """Packets of one agent, in order; ``release`` is called once all are settled."""

    packets: list[Packet]
    release: Callable[[], object]

    @property
    def settled(self) -> bool:
        return all(packet.settled for packet in self.packets)

    @property
    def gives_way(self) -> bool:
        return any(packet.gives_way() for packet in self.packets)


class _Apart:
    """A row of packets that are tried again and again, in one call at a time, until each is settled."""

    def __init__(self, writer: BulkWriter, rng: Random) -> None:
        self._writer = writer
        self._rng = rng
        self._row: deque[_Held] = deque()
        self._news = trio.Event()

    def add(self, held: _Held) -> None:
        self._row.append(held)
        self._news.set()
        self.make_way()
        if len(self._row) > _MAX_APART:
            self._end(self._row.pop())

    async def run(self) -> None:
        while True:
            self._news = trio.Event()
            if not self._row:
                await self._news.wait()
            backoff = store_backoff(self._rng)
            while self._row:
                await trio.sleep(backoff.next_pause())
                while await self._try_some():
                    backoff = store_backoff(self._rng)

    async def _try_some(self) -> bool:
        """Tries those that waited longest. Returns whether there are more, and this was of use."""
        self._drop_abandoned()
        tried, batch = [], Batch()
        while self._row and batch.events < _APART_EVENTS and batch.size < _APART_BYTES:
            tried.append(self._row.popleft())
            for packet in tried[-1].packets:
                batch.add(packet)
        try:
            await self._writer.try_once(batch.packets)
        finally:
            self._row.extend(held for held in tried if not held.settled)
            done = [held for held in tried if held.settled]
            for held in done:
                held.release()
            self.make_way()
        return bool(done and self._row)

    def make_way(self) -> None:
        for held in [held for held in self._row if held.gives_way]:
            self._row.remove(held)
            self._end(held)

    def _drop_abandoned(self) -> None:
        """Their agents' next packets wait for them."""
        now = trio.current_time()
        for _ in range(len(self._row)):
            held = self._row.popleft()
            if any(packet.is_open(now) for packet in held.packets):
                self._row.append(held)
            else:
                self._end(held)

    def end(self) -> None:
        """Settles everything, when nothing will be written any more."""
        while self._row:
            self._end(self._row.popleft())

    def _end(self, held: _Held) -> None:
        _settle(held.packets)
        held.release()


def _settle(packets: list[Packet] | list[Piece]) -> None:
    """Settles those packets that aren't yet."""
    for packet in packets:
        if not packet.settled:
            packet.settle(packet.failure or BackendUnavailable())
