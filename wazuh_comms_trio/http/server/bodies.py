"""Request bodies: streamed to handlers that take them in parts, collected within a memory budget for the others."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, cast

import trio
from attrs import field, frozen

from wazuh_comms_trio.errors import BodyTooLarge, ClientDisconnected, Overloaded, StorageFull
from wazuh_comms_trio.foundation.bodies import Body
from wazuh_comms_trio.foundation.file_writes import write_all
from wazuh_comms_trio.http.server.body_budget import FAIR_SHARES, BodyBudget, Share
from wazuh_comms_trio.http.server.hypercorn_protocol import Message, Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.peer import PeerGone
from wazuh_comms_trio.http.server.streams.peer_progress import WAITING
from wazuh_comms_trio.metrics.refusal_log import RefusalLog

__all__ = [
    "FREE_BYTES",
    "SKIPPED_BYTES",
    "BodyBudget",
    "BodyChunks",
    "RequestRoom",
    "Spill",
    "check_length",
    "collect_body",
    "content_length",
    "skip_body",
]

logger = logging.getLogger(__name__)

#: Bodies up to this size are collected without asking: with 5000 of them at once, far more than two cores can parse,
#: that is 320 MB, about what their connections take themselves. Most agents' batches are larger, but few of them
#: arrive in the same moment.
FREE_BYTES: Final = 64 * 1024
#: Nobody sends a body where none is taken; some clients do send a small one.
SKIPPED_BYTES: Final = 4096
#: Bodies above this size are in a file, and read in pieces from there.
SPILLED_BYTES: Final = 8 * 1024 * 1024
#: What of such a body is written in one go.
WRITTEN_AT_ONCE: Final = 1024 * 1024
#: Threads that write bodies at a time: a disk isn't faster for more, and other threads' work and the event loop are
#: slower.
WRITERS: Final = 4


@frozen
class Spill:
    """Where large bodies go: files without a name in ``folder`` (None: the system's), their own ``budget``."""

    folder: Path | None
    budget: BodyBudget
    above: int = field(factory=lambda: SPILLED_BYTES)
    writers: trio.CapacityLimiter = field(init=False, factory=lambda: trio.CapacityLimiter(WRITERS))
    refusals: RefusalLog = field(init=False, factory=lambda: RefusalLog(logger))

    async def write(self, file: BinaryIO, data: bytes) -> None:
        """Raises ``OSError``."""
        await trio.to_thread.run_sync(write_all, file.fileno(), data, limiter=self.writers)


@asynccontextmanager
async def collect_body(
    receive: Receive,
    *,
    limit: int,
    budget: BodyBudget,
    room_timeout: float,
    free_bytes: int | None = None,
    owner: Hashable = None,
    spill: Spill | None = None,
    declared: int | None = None,
    share: Share | None = None,
) -> AsyncIterator[Body]:
    """The whole body, whose memory is accounted for until the block is left, or the caller gives back its ``share``.
    ``room_timeout``: seconds to wait for room in all. What goes beyond ``free_bytes`` (``FREE_BYTES``) needs room,
    which ``owner`` has a share of. With ``spill`` a large one is a mapped file, valid inside the block; one that is
    ``declared`` to be large isn't received at all while there is no room for files.

    Raises what ``receive`` raises, ``BodyTooLarge`` above ``limit`` bytes, ``ClientDisconnected``, ``Overloaded`` when
    there was no room in time, ``StorageFull``.
    """
    free_bytes = FREE_BYTES if free_bytes is None else free_bytes
    kept, wait_limit = share is not None, _WaitLimit(room_timeout)
    share = share or Share(owner)
    if spill is not None and (declared or 0) > spill.above:
        await wait_limit.wait_for_room(spill.budget, share, WRITTEN_AT_ONCE)
    message = await receive()
    first = body_part(message)
    if len(first) > limit:
        raise BodyTooLarge
    if not message["more_body"]:
        yield first  # nearly every body: one message, no copy
        return
    body = bytearray(first)
    share.sending = message.get(WAITING)
    share.held_until = inf if spill is None else spill.above
    try:
        more = True
        while more and (spill is None or len(body) <= spill.above):
            message = await receive()
            part = body_part(message)
            if len(body) + len(part) > limit:
                raise BodyTooLarge
            if len(body) > free_bytes:
                await wait_limit.take(budget, share, len(part))
            body += part
            more = message["more_body"]
        if not more or spill is None:
            share.sending = None  # whoever waits from here on, for the reply's room, say, has no slow peer
            yield body
            return
        async with _spilled(
            receive, body, share, limit=limit, budget=budget, wait_limit=wait_limit, spill=spill
        ) as mapped:
            yield mapped
    finally:
        if not kept:
            budget.give_back(share)


class RequestRoom:
    """What a request's body has of the budget, in memory, and its reply after that: one share for both, so that who has
    sent much already doesn't wait for what it holds itself."""

    def __init__(self, budget: BodyBudget, owner: Hashable, room_timeout: float) -> None:
        self.share = Share(owner)
        self._budget = budget
        self._room_timeout = room_timeout

    async def reserve(self, size: int) -> None:
        """Before the work whose reply has about so many bytes: where there is no room for those, nor enough of the
        body's, it isn't begun. Small replies go without asking, and none asks for more than an agent's share: ``size``
        is a guess. Raises ``Overloaded`` when there was no room in time, and at once where an agent's small bodies
        would have more than its share: while they wait for others none of them is ended."""
        more = min(size - self.share.held_bytes, self._budget.limit_bytes // FAIR_SHARES)
        if size > FREE_BYTES and more > 0:
            if not self.share.held_bytes and self._budget.is_greedy(self.share, more):
                self._budget.no_room()
                raise Overloaded
            await _WaitLimit(self._room_timeout).take(self._budget, self.share, more)

    async def add_reply(self, size: int) -> None:
        """A reply of so many bytes is there beside its body. Small ones go without asking. Raises ``Overloaded`` when
        there was no room in time."""
        if size > FREE_BYTES:
            await _WaitLimit(self._room_timeout).take(self._budget, self.share, size)

    def add_reply_now(self, size: int) -> bool:
        """As ``add_reply``, without waiting; returns whether there was room."""
        return size <= FREE_BYTES or self._budget.take_now(self.share, size)

    def hold_reply(self, size: int) -> None:
        """The reply is there, and the body gone. What was done is answered, also where more than was reserved comes of
        it."""
        self._budget.hold(self.share, size if size > FREE_BYTES else 0)

    @contextmanager
    def queued(self) -> Iterator[None]:
        """Around a whole body's wait for others, before anything is begun with it. Raises ``Overloaded`` when it was
        ended: its agent has more than its share of the budget, and others wait for that."""
        with trio.CancelScope() as scope:
            self.share.queued = scope
            try:
                yield
            finally:
                self.share.queued = None
        if scope.cancelled_caught:
            raise Overloaded

    def watched(self, send: Send) -> Send:
        """A ``send`` for the reply, which raises ``PeerGone`` when its peer reads it slowly and others wait for the
        room that it has."""

        async def watch(message: Message) -> None:
            if not self.share.held_bytes:
                await send(message)
                return
            with self._budget.for_reader(self.share, len(message.get("body", b""))) as scope:
                await send(message)
            if scope.cancelled_caught:
                raise PeerGone("it reads slowly, and others wait for room")

        return watch

    def give_back(self) -> None:
        self._budget.give_back(self.share)


class _WaitLimit:
    """How long one body may still wait for room, seconds."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    async def take(self, budget: BodyBudget, share: Share, size: int) -> None:
        """Takes room from the budget, and waits for it as long as is left. Raises ``Overloaded``."""
        await self._wait(budget, budget.take, share, size)

    async def wait_for_room(self, budget: BodyBudget, share: Share, size: int) -> None:
        """As ``take``, but takes nothing."""
        await self._wait(budget, budget.wait_for_room, share, size)

    async def _wait(
        self, budget: BodyBudget, wait: Callable[[Share, int], Awaitable[None]], share: Share, size: int
    ) -> None:
        began = trio.current_time()
        with trio.move_on_after(self._left) as scope:
            await wait(share, size)
        if scope.cancelled_caught:
            budget.no_room()
            raise Overloaded
        # Room that came while the task was late may have taken longer than all that was left.
        self._left = max(0.0, self._left - (trio.current_time() - began))


@asynccontextmanager
async def _spilled(
    receive: Receive,
    body: bytearray,
    share: Share,
    *,
    limit: int,
    budget: BodyBudget,
    wait_limit: _WaitLimit,
    spill: Spill,
) -> AsyncIterator[mmap]:
    """The rest of a body goes to a file, behind ``body``, whose memory is given back, and ``share`` with it."""
    on_disk, size, more = Share(share.owner, share.sending), 0, True
    try:
        with await trio.to_thread.run_sync(_open_file, spill.folder) as file:
            while more:
                await wait_limit.take(spill.budget, on_disk, len(body))
                await spill.write(file, bytes(body))
                size += len(body)
                body.clear()
                budget.give_back(share)
                while more and len(body) < WRITTEN_AT_ONCE:
                    message = await receive()
                    body += body_part(message)
                    more = message["more_body"]
                    if size + len(body) > limit:
                        raise BodyTooLarge
            await spill.write(file, bytes(body))
            size += len(body)
            body.clear()
            on_disk.sending = share.sending = None
            with mmap(file.fileno(), size, access=ACCESS_READ) as mapped:
                yield mapped
    except OSError as error:
        text, where = "a large body can't be kept in %s: %s", spill.folder or "the temporary folder"
        spill.refusals.refused("large bodies that can't be kept", text, where, error)
        raise StorageFull from error
    finally:
        spill.budget.give_back(on_disk)


def _open_file(folder: Path | None) -> BinaryIO:
    return cast(BinaryIO, TemporaryFile(dir=folder if folder is not None and folder.is_dir() else None, buffering=0))


async def skip_body(receive: Receive) -> None:
    """Reads and drops the body of a request whose endpoint takes none. Raises ``BodyTooLarge``."""
    left = SKIPPED_BYTES
    while True:
        message = await receive()
        left -= len(body_part(message))
        if left < 0:
            raise BodyTooLarge
        if not message["more_body"]:
            return


class BodyChunks:
    """The body in parts, as they come; ``at_end`` is called when the last one was taken. Raises
    ``ClientDisconnected`` and what ``receive`` raises. One iteration, by one task.
    """

    def __init__(self, receive: Receive, at_end: Callable[[], object]) -> None:
        self._receive = receive
        self._at_end = at_end
        self._more = True

    def __aiter__(self) -> BodyChunks:
        return self

    async def __anext__(self) -> bytes:
        while self._more:
            message = await self._receive()
            part = body_part(message)
            self._more = message["more_body"]
            if not self._more:
                self._at_end()
            if part:
                return bytes(part)
        raise StopAsyncIteration


def body_part(message: Scope) -> bytes | bytearray:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    part: bytes | bytearray = message["body"]
    return part


def content_length(scope: Scope) -> int | None:
    """The declared length of a request's body; None: not declared (chunks), 0: no body."""
    for name, value in scope.get("headers", ()):
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value)
    return 0


def check_length(scope: Scope, limit: int) -> None:
    """Raises ``BodyTooLarge`` for a declared length above ``limit``, before anything of the body is there."""
    if (content_length(scope) or 0) > limit:
        raise BodyTooLarge
