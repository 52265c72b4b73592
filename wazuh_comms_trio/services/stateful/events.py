"""Stateful events: one request's packet in, one result per event out, in the order sent.

What the queue can hold: ``_MAX_WAITING`` packets of at most ``_SMALL_PACKET_BYTES`` each, 64 MiB, beside the requests'
own bodies; a request that finds no room waits, and is answered 503 when its time is up. Bigger packets are read and
applied in pieces of about ``_PIECE_BYTES`` by their own requests, so that neither memory nor other agents' waiting
grows with them.
"""

from __future__ import annotations

import logging
from random import Random
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Backends, DocumentOperation
from wazuh_comms_trio.config.models import Batcher, Events
from wazuh_comms_trio.errors import BackendUnavailable, MalformedBody, StorageFull
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.quarantine.interface import Quarantine, Rejected
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.deadlines import give_up_at
from wazuh_comms_trio.services.stateful.bulk_writer import BulkWriter
from wazuh_comms_trio.services.stateful.packet_reader import Event, PacketReader, open_packet
from wazuh_comms_trio.services.stateful.queue import Batch, Queue
from wazuh_comms_trio.services.stateful.submission import Packet, Part
from wazuh_comms_trio.services.store_backoff import store_backoff

__all__ = ["StatefulEvents", "StatefulStatistics"]

_log = logging.getLogger(__name__)

_MAX_WAITING: Final = 1024
_SMALL_PACKET_BYTES: Final = 65536  # bytes; read without a pause, in less than a millisecond or two

#: Bulk calls in flight at a time, of batches and of big packets' pieces. More don't make a store faster.
_MAX_BATCHES_IN_FLIGHT: Final = 8
_MAX_PIECES_IN_FLIGHT: Final = 4

_PIECE_BYTES: Final = 2 * 1024 * 1024
_PIECE_EVENTS: Final = 10_000
# Read between two checkpoints.
_STEP_BYTES: Final = 65536
_STEP_EVENTS: Final = 256

_NO_RESULTS: Final = b'{"results":[]}'


@frozen
class StatefulStatistics:
    """``waiting`` packets of ``room``; bulk calls in flight, of batches and of big packets' pieces."""

    waiting: int
    room: int
    batches_in_flight: int
    pieces_in_flight: int


class StatefulEvents:
    def __init__(
        self, backends: Backends, quarantine: Quarantine, *, events: Events, batcher: Batcher, rng: Random
    ) -> None:
        self._quarantine = quarantine
        self._settings = events
        self._limits = batcher
        self._rng = rng
        self._bulk_writer = BulkWriter(backends.events, backends.commands, rng)
        self._outage = OutageLog(_log, "events can't be put in quarantine", clock=trio.current_time)
        self._queue = Queue()
        self._room = trio.Semaphore(_MAX_WAITING)
        self._pieces = trio.Semaphore(_MAX_PIECES_IN_FLIGHT)
        self._batches = trio.Semaphore(_MAX_BATCHES_IN_FLIGHT)
        self._in_flight = 0
        self._closed = False
        self._changed = trio.Event()
        self._batch = Batch()  # the one that is being collected
        self._nursery: trio.Nursery | None = None

    def statistics(self) -> StatefulStatistics:
        pieces = _MAX_PIECES_IN_FLIGHT - self._pieces.value
        return StatefulStatistics(_MAX_WAITING - self._room.value, _MAX_WAITING, self._in_flight, pieces)

    # --- the request's side ---

    async def submit(self, caller: Caller, body: bytes | bytearray, *, deadline: float) -> bytes:
        """One request's body; returns the reply's JSON, ``{"results":[...]}``: every event that it calls a success is
        stored, every other one has been refused for good and is in quarantine.

        Raises ``MalformedBody``, ``BackendUnavailable``, before ``deadline`` (trio's clock). Cancelled: the packet may
        still be applied, in part or whole.
        """
        reader = open_packet(body, caller.agent.id, self._settings)
        if reader.exhausted:
            await trio.lowlevel.checkpoint()
            return _NO_RESULTS
        packet = Packet(reader.agent_id, None, len(body), give_up_at(deadline, trio.current_time()))
        with trio.CancelScope(deadline=packet.deadline):
            if len(body) <= _SMALL_PACKET_BYTES:
                return await self._submit_small(reader, packet)
            return await self._submit_big(reader, packet)
        raise _copy_of(packet.failure) if packet.failure is not None else BackendUnavailable()

    async def _submit_small(self, reader: PacketReader, packet: Packet) -> bytes:
        operations: list[DocumentOperation] = []
        part = Part(reader, reader.read(_SMALL_PACKET_BYTES, _SMALL_PACKET_BYTES, operations), operations)
        while not reader.exhausted:  # it was cut short where lines are unusable
            await trio.lowlevel.checkpoint()
            part = Part(reader, part.events + reader.read(_SMALL_PACKET_BYTES, _SMALL_PACKET_BYTES))
        self._refuse_unusable(part)
        if not part.complete:
            packet.part = part
            await self._find_room()
            try:
                self._enqueue(packet)
                await packet.news.wait()
            finally:
                packet.abandoned = not packet.settled
                self._room.release()
            if packet.failure is not None:
                raise _copy_of(packet.failure)
        return b'{"results":[%b]}' % await self._reply(part)

    def _enqueue(self, packet: Packet) -> None:
        nursery = self._nursery
        if (
            nursery is not None
            and self._limits.eager
            and not self._in_flight
            and not self._queue
            and not self._batch.packets
        ):
            # Nagle's rule: nothing in flight, nobody waiting. The collector's next batch needn't wait for this one.
            batch = Batch()
            self._queue.append(packet)
            self._queue.fill(batch, self._limits, trio.current_time())
            if batch.packets:
                self._in_flight += 1
                nursery.start_soon(self._run_batch, batch)
        else:
            self._queue.append(packet)
            self._wake()

    async def _submit_big(self, reader: PacketReader, packet: Packet) -> bytes:
        await self._find_room()
        try:
            self._queue.append(packet)
            self._wake()
            await packet.news.wait()
            if packet.failure is not None:
                raise _copy_of(packet.failure)
            return await self._write_pieces(reader, packet)
        finally:
            packet.abandoned = True
            self._room.release()
            if packet.news.is_set() and not packet.busy:
                self._release(packet)

    async def _write_pieces(self, reader: PacketReader, packet: Packet) -> bytes:
        if self._settings.invalid == "refuse":
            # Nothing of it is applied when something in it is refused, as far as that can be seen beforehand.
            while not reader.exhausted:
                self._refuse_unusable(await _read_piece(reader))
            reader.rewind()
        replies: list[bytes] = []
        while not reader.exhausted:
            part = await _read_piece(reader)
            if not part.complete:
                await self._write_piece(packet, part)
            replies.append(await self._reply(part))
        return b'{"results":[%b]}' % b",".join(replies)

    async def _write_piece(self, packet: Packet, part: Part) -> None:
        if self._nursery is None:
            raise BackendUnavailable
        piece = Packet(packet.agent_id, part, 0, packet.deadline)
        async with self._pieces:
            packet.busy = True
            self._nursery.start_soon(self._run_piece, piece, packet)
            try:
                await piece.news.wait()
            finally:
                piece.abandoned = True
        if piece.failure is not None:
            raise _copy_of(piece.failure)

    async def _find_room(self) -> None:
        """Room among the packets on their way: the caller gives it back."""
        self._check_open()
        if self._room.value:
            self._room.acquire_nowait()  # no checkpoint: packets keep the order they came in
            return
        await self._room.acquire()
        try:
            self._check_open()
        except BackendUnavailable:
            self._room.release()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise BackendUnavailable

    def _refuse_unusable(self, part: Part) -> None:
        if self._settings.invalid == "refuse" and part.unusable:
            raise MalformedBody(part.rejected()[0].reason)

    async def _reply(self, part: Part) -> bytes:
        """Once what can never be taken is in quarantine."""
        rejected = part.rejected()
        if rejected:
            if self._settings.invalid == "refuse":
                raise MalformedBody(rejected[0].reason)
            await self._quarantine_rejected(rejected)
        return part.reply()

    async def _quarantine_rejected(self, rejected: list[Rejected]) -> None:
        backoff = store_backoff(self._rng)
        while True:
            try:
                await self._quarantine.add(rejected)
            except StorageFull:
                raise
            except BackendUnavailable as exc:
                self._outage.failed(exc)
            else:
                self._outage.worked()
                return
            await trio.sleep(backoff.next_pause())

    # --- the batcher's side ---

    async def run_batcher(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ends when ``close`` was called and everything is settled. Cancelled, it settles what waits with
        ``BackendUnavailable``."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    await self._batches.acquire()
                    batch = await self._collect()
                    if batch is None:
                        break
                    self._in_flight += 1
                    nursery.start_soon(self._run_batch, batch, self._batches)
        finally:
            self._closed = True
            self._nursery = None
            for packet in self._queue.take_all():
                packet.settle(BackendUnavailable())

    async def _collect(self) -> Batch | None:
        """The next batch; None when there won't be one."""
        batch = self._batch = Batch()
        while True:
            changed = self._changed
            self._queue.fill(batch, self._limits, trio.current_time())
            if batch.packets:
                if self._closed or batch.is_full(self._limits) or (self._limits.eager and not self._in_flight):
                    break
                with trio.move_on_at(batch.opened + self._limits.wait_time) as scope:
                    await changed.wait()
                if scope.cancelled_caught:
                    break
            elif self._closed and self._queue.idle:
                return None
            else:
                await changed.wait()
        self._batch = Batch()
        return batch

    # What is in flight belongs to the batcher and not to its requests: when a client leaves, its agent's next packet
    # still has to wait for what is under way.

    async def _run_batch(self, batch: Batch, place: trio.Semaphore | None = None) -> None:
        try:
            await self._bulk_writer.write(batch.packets)
        finally:
            for packet in batch.packets:
                if not packet.settled:
                    packet.settle(BackendUnavailable())
            self._in_flight -= 1
            if place is not None:
                place.release()
            self._release(batch)

    async def _run_piece(self, piece: Packet, packet: Packet) -> None:
        try:
            await self._bulk_writer.write([piece])
        finally:
            if not piece.settled:
                piece.settle(BackendUnavailable())
            packet.busy = False
            if packet.abandoned:
                self._release(packet)

    def _release(self, holder: Batch | Packet) -> None:
        self._queue.release(holder)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def close(self) -> None:
        """No more packets: a later ``submit`` raises ``BackendUnavailable``. What is there is finished."""
        self._closed = True
        self._wake()


def _copy_of(failure: BackendUnavailable) -> BackendUnavailable:
    """One failure is many requests': each raises one of its own."""
    return type(failure)(failure.message, code=failure.code)


async def _read_piece(reader: PacketReader) -> Part:
    """The next events of a big packet, read with pauses."""
    events: list[Event] = []
    operations: list[DocumentOperation] = []
    size = 0
    while not reader.exhausted and size < _PIECE_BYTES and len(events) < _PIECE_EVENTS:
        read = reader.read(_STEP_EVENTS, _STEP_BYTES, operations)
        size += read[-1].end - read[0].start
        events += read
        await trio.lowlevel.checkpoint()
    return Part(reader, events, operations)
