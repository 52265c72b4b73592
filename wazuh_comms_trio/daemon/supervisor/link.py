"""The link between the supervisor and a worker: JSON messages in frames, over one stream, both ways.

What the messages are: ``messages.py``. Sending never blocks: what is sent waits in a queue and leaves in order, as
many messages in one write as wait. What the queue can hold: ``MAX_WAITING`` messages, of some hundred bytes as a rule;
a peer that lets as many wait has hung, and the link is given up.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from wazuh_comms_trio.daemon.supervisor.messages import Message, Unknown, from_json, to_json
from wazuh_comms_trio.errors import WazuhException
from wazuh_comms_trio.wire.framing import FrameDecoder, encode_frame

__all__ = ["Link", "LinkBroken"]

#: Bytes of a message: a post to the command socket goes through a link whole.
MAX_MESSAGE: Final = 256 * 1024 * 1024
MAX_WAITING: Final = 10_000
RECEIVE_BYTES: Final = 65536


class LinkBroken(Exception):
    """Raised where the other side is gone, has hung, or sends what isn't a message."""


class Link:
    """``run`` sends; one task may ``receive``. Closing it ends both."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._frames = FrameDecoder(MAX_MESSAGE)
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._broken = False

    @property
    def waiting(self) -> int:
        """How many messages haven't left yet."""
        return len(self._queue)

    def send_nowait(self, message: Message) -> None:
        """Queues one message; does nothing when the link is broken, which ``receive`` tells."""
        if self._broken:
            return
        if len(self._queue) >= MAX_WAITING:
            self._broken = True
        self._queue.append(encode_frame(to_json(message), limit=MAX_MESSAGE))
        self._wake.set()

    async def run(self) -> None:
        """Sends what is queued, until cancelled or the link is broken (``LinkBroken`` comes out of ``receive``)."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._broken:
                    return
                data = b"".join(self._queue)
                self._queue.clear()
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._broken = True

    async def flush(self) -> None:
        """Sends what is queued, without ``run``: for a worker's last message."""
        data = b"".join(self._queue)
        self._queue.clear()
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken = True

    async def receive(self) -> Message | Unknown:
        """The next message. Raises ``LinkBroken`` at the end. Cancelled: what came is kept."""
        while True:
            try:
                frame = self._frames.next_frame()
                if frame is not None:
                    return from_json(frame)
                self._frames.feed(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
            except (
                WazuhException,
                ValueError,
                RecursionError,
                trio.BrokenResourceError,
                trio.ClosedResourceError,
            ) as error:
                self._broken = True
                raise LinkBroken(str(error)) from None

    async def aclose(self) -> None:
        self._broken = True
        await trio.aclose_forcefully(self._stream)
