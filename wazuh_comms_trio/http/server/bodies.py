"""Request bodies: streamed to handlers that take them in parts, collected within a memory budget for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from wazuh_comms_trio.errors import BackendUnavailable, BodyTooLarge, ClientDisconnected
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive

__all__ = ["SKIPPED_BYTES", "BodyBudget", "BodyChunks", "collect_body", "content_length", "skip_body"]

#: Bodies up to this size are collected without asking: with 5000 of them at once, far more than two cores can parse,
#: that is 320 MB, about what their connections take themselves. Most agents' batches are larger, but few of them
#: arrive in the same moment.
FREE_BYTES: Final = 64 * 1024
#: Nobody sends a body where none is taken; some clients do send a small one.
SKIPPED_BYTES: Final = 4096


class BodyBudget:
    """How much of collected bodies may be in memory at once.

    Bytes are counted as they arrive, not as they are declared: a client that announces 100 MB and sends nothing takes
    nothing.
    When the budget is used up, the bodies that grow wait, and with them their senders; one of them, the *senior*, may
    go on to its own limit all the same, so that they can't all wait for each other.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._senior: Share | None = None
        self._parking = trio.lowlevel.ParkingLot()

    async def take(self, share: Share, size: int) -> None:
        """Waits until there is room. Cancelled: nothing was taken."""
        while self.used_bytes + size > self.limit_bytes and self._senior not in (None, share):
            await self._parking.park()
        if self.used_bytes + size > self.limit_bytes:
            self._senior = share
        self.used_bytes += size
        share.held_bytes += size

    def give_back(self, share: Share) -> None:
        self.used_bytes -= share.held_bytes
        share.held_bytes = 0
        if self._senior is share:
            self._senior = None
        self._parking.unpark_all()


class Share:
    """One body's part of the budget."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0


@asynccontextmanager
async def collect_body(
    receive: Receive, *, limit: int, budget: BodyBudget, room_timeout: float, free_bytes: int = FREE_BYTES
) -> AsyncIterator[bytes | bytearray]:
    """The whole body, whose memory is accounted for until the block is left. ``room_timeout``: seconds to wait for room
    in all. What goes beyond ``free_bytes`` needs room.

    Raises what ``receive`` raises, ``BodyTooLarge`` above ``limit`` bytes, ``ClientDisconnected``,
    ``BackendUnavailable`` when there was no room in time.
    """
    message = await receive()
    first = body_part(message)
    if len(first) > limit:
        raise BodyTooLarge
    if not message["more_body"]:
        yield first  # nearly every body: one message, no copy
        return
    body = bytearray(first)
    share = Share()
    try:
        while True:
            message = await receive()
            part = body_part(message)
            if len(body) + len(part) > limit:
                raise BodyTooLarge
            if len(body) > free_bytes:
                began = trio.current_time()
                with trio.move_on_after(room_timeout) as scope:
                    await budget.take(share, len(part))
                if scope.cancelled_caught:
                    raise BackendUnavailable
                # Room that came while the task was late may have taken longer than all that was left.
                room_timeout = max(0.0, room_timeout - (trio.current_time() - began))
            body += part
            if not message["more_body"]:
                break
        yield body
    finally:
        budget.give_back(share)


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
    """None: not declared (chunks), 0: no body."""
    for name, value in scope.get("headers", ()):
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value)
    return 0
