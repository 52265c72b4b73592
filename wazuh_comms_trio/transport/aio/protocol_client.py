"""The client's side of :class:`WazuhAsyncProtocol`: whoever waits for the next answer reads for everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import trio

from wazuh_comms_trio.errors import FrameError, PeerClosed
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.transport.aio.pipeline import PredicateFailed, Slot
from wazuh_comms_trio.transport.aio.protocol_connection import ProtocolConnection
from wazuh_comms_trio.transport.aio.shared_reads import SoleRequest
from wazuh_comms_trio.transport.aio.sleeping import sleep, wake
from wazuh_comms_trio.transport.aio.stream_io import ByteIO
from wazuh_comms_trio.transport.errors import TransportBroken, TransportClosed, TransportPeerClosed, as_broken
from wazuh_comms_trio.wire.framing import HEADER, READ_BYTES, encode_frame


class ProtocolClient(ProtocolConnection):
    """Requests and their answers. See :class:`WazuhAsyncProtocol`."""

    async def request(self, payload: bytes) -> bytes:
        """Send one request and return its answer's payload, as it came. A checkpoint."""
        frame = self._encode(payload)
        slot = Slot()
        await self._take_turn()
        if self.pipelining:
            try:
                await self._send_request(frame, slot)
            finally:
                self._turn.release()
            return await self._only_reply(slot)
        try:
            await self._send_request(frame, slot)
            return await self._only_reply(slot)
        finally:
            self._turn.release()

    @asynccontextmanager
    async def open_exchange(self, payload: bytes, *, is_last: Callable[[bytes], bool]) -> AsyncIterator[Exchange]:
        """Send one request and iterate over its answers, until ``is_last`` is true for the payload of one.

        ``async with protocol.open_exchange(query, is_last=...) as answers: async for payload in answers: ...``
        Requests behind it on a pipelined connection wait until its answers were taken; asking for another one inside
        the block before that is ``trio.BusyResourceError``. Left before the last answer came, the connection is closed.
        """
        frame = self._encode(payload)
        self._take_role("client")
        slot = Slot(is_last, trio.lowlevel.current_task())
        await self._take_turn()
        holding = True
        try:
            await self._send_request(frame, slot)
            if self.pipelining:
                self._turn.release()
                holding = False
            self._exchanges.add(slot)
            yield Exchange(self, slot)
        finally:
            self._exchanges.discard(slot)
            if not slot.complete:
                slot.abandoned = True
                await self._finish(TransportClosed(1014, "closed, since an exchange was left before its last answer"))
            self._pass_reading_on()
            if holding:
                self._turn.release()

    def _encode(self, payload: bytes) -> bytes:
        frame = encode_frame(payload, self._header_format, self.max_send_bytes)
        if self._guard is not None:
            self._guard(payload)
        return frame

    async def _take_turn(self) -> None:
        """Wait until this task may send. Misuse that would wait for ever is an error."""
        self._take_role("client")
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._exchanges:
            task = trio.lowlevel.current_task()
            if any(slot.owner is task and not slot.complete for slot in self._exchanges):
                raise trio.BusyResourceError(
                    "this task has not yet taken all answers of an exchange on this connection"
                )
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        except RuntimeError:
            raise trio.BusyResourceError("this task has an exchange open on this connection") from None

    async def _send_request(self, frame: bytes, slot: Slot) -> None:
        """Send it all, and put its slot in the queue. When nothing was sent, nothing has happened."""
        io = self._connection()
        slots = self._pipeline.slots
        if not slots and (self._decoder.buffered or not io.is_quiet()):
            await self._check_silence(io)
        try:
            sent = io.send_nowait(frame)
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            raise self._ended(exc.bytes_sent) from exc.__cause__
        slots.append(slot)
        if sent < len(frame):
            await self._send_rest(frame, sent, slot)
        self._count_sent(frame, slot)

    def _count_sent(self, frame: bytes, slot: Slot) -> None:
        slot.sent = len(frame)
        self._frames_sent += 1
        self._bytes_sent += slot.sent

    async def _send_rest(self, frame: bytes, sent: int, slot: Slot) -> None:
        io = self._connection()
        try:
            await self._send_slowly(io, frame, sent, slot)
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            raise self._ended(exc.bytes_sent) from exc.__cause__
        except BaseException:
            slot.abandoned = True
            if io.sent_in_part:
                await self._finish(TransportClosed(1014, "closed, since a request went out only in part"))
            else:
                self._pipeline.withdraw(slot)
            raise

    async def _send_slowly(self, io: ByteIO, frame: bytes, sent: int, slot: Slot) -> None:
        if self._pipeline.slots[0] is slot:
            await io.send_rest(frame, sent)  # the peer owes us nothing
            return
        # The peer may wait until we have taken earlier answers before it reads on. Mostly another task does that, but
        # all of them may be cancelled meanwhile.
        async with BackgroundNursery() as nursery:
            nursery.start_soon(self._read_until_reply, slot)
            await io.send_rest(frame, sent)

    async def _check_silence(self, io: ByteIO) -> None:
        """With no request under way nothing may have come: it would be taken for the next one's answer."""
        try:
            data = io.receive_nowait(READ_BYTES) if not self._decoder.at_eof else b""
            if data is not None:
                self._decoder.feed(data)
            if self._decoder.buffered:
                raise TransportBroken(1014, "the peer sent something that nobody had asked for")
            if self._decoder.at_eof:
                raise TransportPeerClosed(1014, "the peer closed the connection")
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            raise self._ended() from exc.__cause__

    async def _only_reply(self, slot: Slot) -> bytes:
        try:
            return await self._next_reply(slot)
        except BaseException:
            if not slot.complete and self._end is None:
                slot.abandoned = True
                if not self.pipelining:
                    await self._finish(TransportClosed(1014, "closed, since a request was cancelled before its answer"))
            raise
        finally:
            self._pass_reading_on()

    async def _next_reply(self, slot: Slot) -> bytes:
        if not slot.replies:
            await self._read_until_reply(slot)
            if slot.failure is not None:
                raise slot.failure
            if not slot.replies:
                raise self._ended(slot.sent)
        return slot.replies.popleft()

    async def _read_until_reply(self, slot: Slot) -> None:
        """Waits for an answer for ``slot``, or the connection's end: reads when it is its turn, else sleeps."""
        while not slot.replies and self._end is None:
            if self._reading or self._pipeline.reader() is not slot:
                await sleep(slot)
            else:
                await self._read_once()

    async def _read_once(self) -> None:
        io = self._connection()
        self._reading = True
        try:
            data = await io.receive_some(io.read_size(self._decoder, self._header))
        except (TransportBroken, TransportClosed) as exc:
            await self._finish(exc)
            return
        finally:
            self._reading = False
        await self._hand_out(data)

    async def _hand_out(self, data: bytes) -> None:
        self._decoder.feed(data)
        self._bytes_received += len(data)
        try:
            self._pipeline.take(self._decoder, self._header, wake)
        except (FrameError, PeerClosed) as exc:
            await self._finish(as_broken(exc))
        except PredicateFailed:
            await self._finish(TransportClosed(1014, "closed, since a program couldn't tell which answer is the last"))

    def _pass_reading_on(self) -> None:
        if not self._reading and self._pipeline.slots:
            slot = self._pipeline.reader()
            if slot is not None:
                wake(slot)

    # --- a request that has this connection to itself: nobody else sends, or reads, meanwhile -------------------------

    def _begin(self, request: SoleRequest) -> bool:
        """Send it as far as that is possible without waiting, and expect its answer; it is to be given to ``_answer``
        then. When False nothing has happened."""
        io, reads = self._shared_io, self._reads
        if io is None or reads is None or self._end is not None or self._decoder.buffered or io.poll(0):
            return False
        frame = request.frame
        try:
            sent = io.sock.send(frame)
        except OSError:
            return False  # the next attempt finds out the same
        if sent == len(frame):
            self._frames_sent += 1
            self._bytes_sent += sent
            reads.expect(request, io)
        elif not sent:
            return False
        request.sent = sent
        self._pipeline.slots.append(request)
        return True

    async def _answer(self, request: SoleRequest, alone: bool) -> bytes:
        """The answer to a request, which is sent now if it wasn't yet. ``alone``: no other request is under way on any
        connection of the pool. A checkpoint; cancelled, or failed, after it was sent: the connection is closed."""
        frame = request.frame
        try:
            if not request.sent:
                await trio.lowlevel.checkpoint_if_cancelled()
                if self._role is None:
                    self._take_role("client")
                if not self._begin(request):
                    await self._send_request(frame, request)
            if request.sent < len(frame):
                await self._send_rest(frame, request.sent, request)
                self._count_sent(frame, request)
            if request.expected and self._reads is not None:
                try:
                    data = await self._reads.receive(request, alone)
                except (TransportBroken, TransportClosed) as exc:
                    await self._finish(exc)
                else:
                    answer = self._answer_nowait(request)
                    if answer is not None:
                        return answer
                    await self._hand_out(data)
            while not request.replies and self._end is None:
                await self._read_once()
        except BaseException:
            if not request.complete and self._end is None:
                await self._give_up(request)
            raise
        if not request.replies:
            raise self._ended(request.sent)
        return request.replies.popleft()

    def _answer_nowait(self, request: SoleRequest) -> bytes | None:
        """The answer to a request that was begun, if it has come, and if what came first is that and nothing else."""
        data = request.data
        if data is None:
            return None
        size = len(data) - HEADER.size
        if not 0 < size <= self._decoder.limit or HEADER.unpack_from(data)[0] != size:
            return None
        self._bytes_received += len(data)
        self._pipeline.received += 1
        self._pipeline.slots.clear()
        return data[HEADER.size :]

    async def _give_up(self, request: SoleRequest) -> None:
        """Nobody waits for its answer any more, which must not reach the next one. Not cancelled."""
        request.abandoned = True
        await self._finish(TransportClosed(1014, "closed, since a request was cancelled before its answer"))
        if self._reads is not None:
            self._reads.dismiss(request)


class Exchange:
    """The answers to one request, as an async iterator over their payloads. Made by ``open_exchange``.

    A checkpoint whenever it has to read; for answers that are here already only cancellation is looked at.
    """

    def __init__(self, protocol: ProtocolClient, slot: Slot) -> None:
        self._protocol = protocol
        self._slot = slot

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        slot = self._slot
        if slot.replies:
            await trio.lowlevel.checkpoint_if_cancelled()
        elif slot.complete:
            raise StopAsyncIteration
        return await self._protocol._next_reply(slot)
