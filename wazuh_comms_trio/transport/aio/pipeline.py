"""The pipeline: which answer belongs to which request of a connection whose frames carry no numbers.

Answers come in the order of the requests, so a queue of :class:`Slot` is enough. A request that was given up stays in
it, so that its late answer is recognised and dropped. Pure: no I/O, no waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any

from wazuh_comms_trio.wire.framing import FrameDecoder


class PredicateFailed(Exception):
    """The caller's ``is_last`` raised; its slot has the error. Where the next answer belongs is unknown."""


class Slot:
    """One request that was sent, and its answers as they come."""

    #: tells the last answer of several; None when there is exactly one
    is_last: Callable[[bytes], bool] | None = None
    #: the task that takes the answers of an exchange
    owner: Any = None
    #: what ``is_last`` raised
    failure: Exception | None = None
    #: bytes of the request that went out
    sent: int = 0
    complete: bool = False
    abandoned: bool = False
    #: the task that waits for an answer while another one reads
    sleeper: Any = None

    def __init__(self, is_last: Callable[[bytes], bool] | None = None, owner: Any = None) -> None:
        self.is_last = is_last
        self.owner = owner
        self.replies: deque[bytes] = deque()


class Pipeline:
    """The requests in flight, oldest first."""

    def __init__(self) -> None:
        self.slots: deque[Slot] = deque()
        self.received: int = 0
        self.dropped: int = 0

    def reader(self) -> Slot | None:
        """Whose turn it is to read: the oldest request that is still waited for."""
        for slot in self.slots:
            if not slot.abandoned:
                return slot
        return None

    def withdraw(self, slot: Slot) -> None:
        """Forget a request of which nothing was sent."""
        self.slots.remove(slot)

    def take(self, decoder: FrameDecoder, header: Struct, wake: Callable[[Slot], None]) -> None:
        """Hand out every whole frame, and ``wake`` each slot that got one.

        Frames that nobody asked for are left in the decoder. Raises what the decoder raises, and
        :class:`PredicateFailed`.
        """
        while self.slots:
            frame = decoder.next_frame(header)
            if frame is None:
                break
            slot = self.slots[0]
            self.received += 1
            if slot.abandoned:
                self.dropped += 1
            else:
                slot.replies.append(frame)
                wake(slot)
            try:
                last = slot.is_last is None or slot.is_last(frame)
            except Exception as exc:
                slot.failure = exc
                raise PredicateFailed from exc
            if last:
                slot.complete = True
                self.slots.popleft()
