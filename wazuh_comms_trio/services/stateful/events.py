"""Stateful events: one request's packet in, one result per event out, in the order sent.

A packet of at most ``_SMALL_PACKET_BYTES`` is read in its request and handed to the batcher; a request that finds no
room there waits, and is answered 503 when its time is up. A bigger one waits for its turn, and its request then reads
it and hands it over in pieces of about ``_PIECE_BYTES``, so that neither memory nor other agents' waiting grows with
it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from random import Random
from typing import Final, TypeVar

import trio
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Backends, DocumentOperation
from wazuh_comms_trio.config import models
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import BackendUnavailable, BodyTooLarge, MalformedBody, Overloaded, StorageFull
from wazuh_comms_trio.foundation.bodies import Body
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.quarantine.interface import Quarantine, Rejected
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.deadlines import give_up_at
from wazuh_comms_trio.services.failing_calls import FailingCalls
from wazuh_comms_trio.services.stateful.batcher import MAX_WAITING, Batcher
from wazuh_comms_trio.services.stateful.bulk_writer import BulkWriter
from wazuh_comms_trio.services.stateful.lines import has_line_above
from wazuh_comms_trio.services.stateful.overtaken_entries import OvertakenEntries
from wazuh_comms_trio.services.stateful.packet_reader import Event, PacketReader, open_packet
from wazuh_comms_trio.services.stateful.reply_size import expected_reply
from wazuh_comms_trio.services.stateful.submission import (
    LOOK_AFTER,
    GivesWay,
    HasLeft,
    Packet,
    Part,
    Piece,
    keeps_its_place,
)
from wazuh_comms_trio.services.store_backoff import store_backoff

__all__ = ["Queued", "StatefulEvents", "StatefulStatistics"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
#: Made around a wait in which nothing of a request is begun.
Queued = Callable[[], AbstractContextManager[object]]

_SMALL_PACKET_BYTES: Final = 65536  # bytes; read without a pause, in less than a millisecond or two

_PIECE_BYTES: Final = 384 * 1024  # others wait for one, some milliseconds of the event loop
_PIECE_EVENTS: Final = 10_000
# Read between two checkpoints.
_STEP_BYTES: Final = 65536
_STEP_EVENTS: Final = 256

_NO_RESULTS: Final = b'{"results":[]}'


@frozen
class StatefulStatistics:
    """``waiting`` packets, in flight or not; ``room`` is for those that aren't; bulk calls in flight, of batches and of
    big packets' pieces; ``quarantine``: its alarm."""

    waiting: int
    room: int
    batches_in_flight: int
    pieces_in_flight: int
    quarantine: str | None = None


class StatefulEvents:
    """The service of ``/events/stateful``: ``submit`` is a request's, ``run_batcher`` the worker's."""

    def __init__(
        self,
        backends: Backends,
        quarantine: Quarantine,
        *,
        events: Events,
        batcher: models.Batcher,
        rng: Random,
        metrics: Metrics | None = None,
        failing: FailingCalls | None = None,
        refused: Callable[[int], object] = lambda count: None,
        run_blocking: RunBlocking | None = None,
        largest_event: int = sys.maxsize,
    ) -> None:
        self._largest_event = largest_event
        self._large_events = trio.Lock()
        self._waiting_large = 0
        self._run_blocking = run_blocking or _run_inline
        self._metrics = metrics = metrics or Metrics()
        self._quarantine = quarantine
        self._settings = events
        self._rng = rng
        writer = BulkWriter(backends.events, backends.commands, rng, metrics, failing)
        self.refusals: RefusalLog = writer.refusals
        self._batcher = Batcher(writer, batcher, metrics, refused, rng=rng)
        self._outage = OutageLog(_log, "events can't be put in quarantine", clock=trio.current_time)
        self._overtaken = OvertakenEntries(quarantine, backends.events)
        self._submitted = 0

    async def run_batcher(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ends when ``close`` was called and everything is settled. Cancelled, it settles what waits with
        ``BackendUnavailable``."""
        await self._batcher.run(task_status=task_status)

    def close(self) -> None:
        """No more packets: a later ``submit`` raises ``BackendUnavailable``. What is there is finished."""
        self._batcher.close()

    def statistics(self) -> StatefulStatistics:
        batcher = self._batcher
        return StatefulStatistics(
            self._submitted,
            MAX_WAITING,
            batcher.batches_in_flight,
            batcher.pieces_in_flight,
            self._quarantine.alarm(),
        )

    async def expected_reply(self, body: Body, enough: int = 0) -> int:
        """About how many bytes ``submit`` would return; 0: few, or no more than ``enough``."""
        return await expected_reply(body, enough)

    async def submit(
        self,
        caller: Caller,
        body: Body,
        *,
        deadline: float,
        has_left: HasLeft | None = None,
        came: float | None = None,
        queued: Queued = nullcontext,
    ) -> bytes:
        """One request's body; returns the reply's JSON, ``{"results":[...]}``: every event that it calls a success is
        stored, every other one has been refused for good and is in quarantine.

        Raises ``MalformedBody``, ``BodyTooLarge``, ``BackendUnavailable``, before ``deadline`` (trio's clock).
        Cancelled: the packet may still be applied, in part or whole. ``has_left``: nothing is begun any more once it
        says so, but for what is begun within a second of when it ``came`` (on trio's clock; now). ``queued``: entered
        while a big packet waits for its turn, when nothing of it is begun; what it raises goes through.
        """
        try:
            return await self._submit(caller, body, deadline, has_left, came, queued)
        except MalformedBody:
            self._metrics.count(families.EVENTS, "stateful", "refused")
            raise

    async def _submit(
        self,
        caller: Caller,
        body: Body,
        deadline: float,
        has_left: HasLeft | None,
        came: float | None,
        queued: Queued,
    ) -> bytes:
        reader = open_packet(body, caller.agent.id, self._settings, self.refusals)
        if reader.exhausted:
            await trio.lowlevel.checkpoint()
            return _NO_RESULTS
        now = trio.current_time()
        packet = Packet(
            reader.agent_id,
            None,
            len(body),
            give_up_at(deadline, now),
            has_left=has_left,
            look_from=(now if came is None else came) + LOOK_AFTER,
        )
        self._submitted += 1
        try:
            with trio.CancelScope(deadline=packet.deadline):
                if len(body) <= _SMALL_PACKET_BYTES:
                    return await self._submit_small(reader, packet)
                return await self._submit_big(reader, packet, queued)
        finally:
            self._submitted -= 1
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
            await self._batcher.put(packet)
            try:
                await packet.news.wait()
            finally:
                packet.abandoned = not packet.settled
            if packet.failure is not None:
                raise _copy_of(packet.failure)
        return b'{"results":[%b]}' % await self._reply(part)

    async def _submit_big(self, reader: PacketReader, packet: Packet, queued: Queued) -> bytes:
        await self._check_lines(reader)
        try:
            with queued():
                await self._batcher.put(packet)
                await packet.news.wait()
            if packet.failure is not None:
                raise _copy_of(packet.failure)
            return await self._write_pieces(reader, packet)
        finally:
            self._batcher.finish(packet)

    async def _check_lines(self, reader: PacketReader) -> None:
        """Raises ``BodyTooLarge`` before anything is done where a line is larger than the memory has room for."""
        limit = self._largest_event
        if len(reader.body) > limit and await self._run_blocking(has_line_above, reader.body, limit):
            text = "agent %s sends events of more than %d bytes, for which there isn't enough memory: they are 413"
            self.refusals.refused("large events", text, reader.agent_id, limit)
            raise BodyTooLarge

    async def _write_pieces(self, reader: PacketReader, packet: Packet) -> bytes:
        if self._settings.invalid == "refuse":
            # Nothing of it is written when something in it is refused, as far as that can be seen beforehand.
            while not reader.exhausted:
                async with self._turn(reader):
                    self._refuse_unusable(await self._read_part(reader))
            reader.rewind()
        replies: list[bytes] = []
        while not reader.exhausted:
            async with self._turn(reader) as gives_way:
                replies.append(await self._write_part(reader, packet, gives_way))
        return b'{"results":[%b]}' % b",".join(replies)

    def _turn(self, reader: PacketReader) -> AbstractAsyncContextManager[GivesWay]:
        """Around the reading and writing of what comes next: an event that is in memory several times is so alone."""
        return self._large_turn() if reader.is_long_ahead(_STEP_BYTES) else nullcontext(keeps_its_place)

    @asynccontextmanager
    async def _large_turn(self) -> AsyncIterator[GivesWay]:
        """One whose index takes nothing gives its turn to those that wait."""
        self._waiting_large += 1
        try:
            self._batcher.make_way()
            await self._large_events.acquire()
        finally:
            self._waiting_large -= 1
        try:
            yield lambda: self._waiting_large > 0
        finally:
            self._large_events.release()

    async def _write_part(self, reader: PacketReader, packet: Packet, gives_way: GivesWay) -> bytes:
        part = await self._read_part(reader)
        if not part.complete:
            piece = Piece(packet, part, gives_way)
            await self._batcher.write_piece(piece)
            if piece.failure is not None:
                raise _copy_of(piece.failure)
        return await self._reply(part)

    async def _read_part(self, reader: PacketReader) -> Part:
        """The next events of a big packet, read with pauses; large ones in a thread."""
        events: list[Event] = []
        operations: list[DocumentOperation] = []
        size = 0
        while not reader.exhausted and size < _PIECE_BYTES and len(events) < _PIECE_EVENTS:
            if reader.is_long_ahead(_STEP_BYTES):
                if events:
                    break  # it has a part of its own, and waits for its turn before it is read
                read = await self._run_blocking(reader.read, _STEP_EVENTS, _STEP_BYTES, operations)
            else:
                read = reader.read(_STEP_EVENTS, _STEP_BYTES, operations)
                await trio.lowlevel.checkpoint()
            if read:
                size += read[-1].end - read[0].start
            events += read
        return Part(reader, events, operations)

    def _refuse_unusable(self, part: Part) -> None:
        if self._settings.invalid == "refuse" and part.unusable:
            raise MalformedBody(part.refusal() or "")

    async def _reply(self, part: Part) -> bytes:
        """The reply, once what can never be taken is in quarantine."""
        rejected = part.rejected()
        if rejected:
            refusal = part.refusal() if self._settings.invalid == "refuse" else None
            if refusal is not None:
                raise MalformedBody(refusal)
            await self._quarantine_rejected(rejected)
            self._metrics.count(families.EVENTS, "stateful", "quarantined", by=len(rejected))
        self._metrics.count(families.EVENTS, "stateful", "taken", by=len(part.events) - len(rejected))
        return part.reply()

    async def _quarantine_rejected(self, rejected: list[Rejected]) -> None:
        backoff = store_backoff(self._rng)
        while True:
            try:
                await self._quarantine.add(rejected)
            except StorageFull:
                if not await self._overtaken.find(rejected[0].agent_id):
                    raise
                continue
            except BackendUnavailable as exc:
                self._outage.failed(exc)
            else:
                self._outage.worked()
                return
            await trio.sleep(backoff.next_pause())


def _copy_of(failure: BackendUnavailable) -> BackendUnavailable:
    """A copy of an error: one failure is many requests', and each raises one of its own."""
    if isinstance(failure, Overloaded):
        return Overloaded(failure.retry_after)
    return type(failure)(failure.message, code=failure.code)


async def _run_inline(fn: Callable[..., T], *args: object) -> T:
    await trio.lowlevel.checkpoint()
    return fn(*args)
