"""Fake datagram readers: the ar queue (remoted), the analysisd queue and execq (execd), as strict and as silent as the
real ones (DAEMONS.md, "The ar queue", "The analysisd queue", "execq").

They answer nothing and drop what is malformed; what a real reader would have understood is in ``messages``, what it
would have dropped or cut in ``dropped``, with the reason, so that a test sees what a server never tells. What an agent
does with a message isn't theirs to know: those of 4.2 and newer drop a restart that is text.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import trio
from attrs import field, frozen

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.testing.daemons.releases import place_of
from wazuh_comms_trio.testing.daemons.sockets import StrPath, bind_socket
from wazuh_comms_trio.transport.releases.release import release_of

#: What remoted reads at most, and the longest datagram that is known to have reached an agent.
AR_LIMIT: Final = 65534
AR_ARRIVES: Final = 65349
EVENT_LIMIT: Final = 65535
EXEC_LIMIT: Final = 65535
QUEUE_CHARS: Final = frozenset("1234589defpu")

_AR_FORM: Final = re.compile(
    rb"\((?P<location>[^)]*)\) \[(?P<ip>[^\]]*)\] (?P<flags>[AN][!RN][SN]) (?P<agent>\S+) (?P<message>.+)", re.DOTALL
)


class Malformed(ValueError):
    """Raised for what a real reader drops without a trace. The text says why."""


@frozen
class ArMessage:
    """A message as remoted understands it: whom it goes to, and the message verbatim. ``active_response`` is False for
    flag ``!``."""

    location: str
    flags: str
    agent_id: str
    message: str

    @property
    def to_all(self) -> bool:
        """Flag 1 is ``A``."""
        return self.flags[0] == "A"

    @property
    def active_response(self) -> bool:
        """Flag 2 isn't ``!``."""
        return self.flags[1] != "!"


@frozen
class EventMessage:
    """A message as analysisd understands it: the queue's char, the location unescaped, the message."""

    queue: str
    location: str
    message: str


@frozen
class ExecMessage:
    """A message as execd understands it: one version 1 message."""

    command: str
    parameters: Mapping[str, Any]
    message: Mapping[str, Any] = field(repr=False)


Message: TypeAlias = ArMessage | EventMessage | ExecMessage
QueueName: TypeAlias = Literal["ar", "analysisd", "execq"]


def read_ar(datagram: bytes) -> ArMessage:
    """One datagram of the ar queue. The message ends at a NUL; what is too long for an agent goes no further."""
    if len(datagram) > AR_LIMIT:
        raise Malformed(f"{len(datagram)} bytes, more than {AR_LIMIT}")
    if len(datagram) > AR_ARRIVES:
        raise Malformed(f"{len(datagram)} bytes: what is above {AR_ARRIVES} doesn't reach an agent")
    if (match := _AR_FORM.fullmatch(datagram.split(b"\0", 1)[0])) is None:
        raise Malformed("not '(location) [ip] FLAGS ID MESSAGE'")
    message = ArMessage(*(match[name].decode(errors="replace") for name in ("location", "flags", "agent", "message")))
    if message.flags[2] == "S" and not re.fullmatch(r"[0-9]{3,}", message.agent_id):
        raise Malformed(f"no agent has the id {message.agent_id!r}")
    return message


def read_event(datagram: bytes) -> EventMessage:
    """One datagram of the analysisd queue: ``<char>:<location>:<message>``, 65535 bytes at most, the rest is cut
    silently."""
    text = datagram[:EVENT_LIMIT].split(b"\0", 1)[0].decode(errors="replace")
    if len(text) < 4 or text[1] != ":" or text[0] not in QUEUE_CHARS:
        raise Malformed("not 'CHAR:LOCATION:MESSAGE'")
    location, position = "", 2
    while position < len(text) and text[position] != ":":
        if text[position] == "|" and text[position + 1 : position + 2] in ("|", ":"):
            position += 1
        location += text[position]
        position += 1
    if position >= len(text) or not location:
        raise Malformed("no location or no message")
    return EventMessage(text[0], location, text[position + 1 :])


def read_exec(datagram: bytes) -> ExecMessage:
    """One datagram of execq: a version 1 message with a command and its parameters."""
    if len(datagram) > EXEC_LIMIT:
        raise Malformed(f"{len(datagram)} bytes, more than {EXEC_LIMIT}")
    try:
        message = json.loads(datagram.split(b"\0", 1)[0])
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from error
    if not isinstance(message, dict) or message.get("version") != 1:
        raise Malformed("not a version 1 message")
    if not isinstance(message.get("command"), str) or not isinstance(message.get("parameters"), dict):
        raise Malformed("no command or no parameters")
    return ExecMessage(message["command"], message["parameters"], message)


_READERS: Final[Mapping[str, Callable[[bytes], Message]]] = {"ar": read_ar, "analysisd": read_event, "execq": read_exec}


class FakeQueue:
    """A running datagram reader. Made by ``open_fake_queue``.

    ``datagrams`` is what came, as it came; ``messages`` what the real reader understands; ``dropped`` pairs of datagram
    and reason.
    """

    def __init__(self, name: QueueName) -> None:
        self.name: QueueName = name
        self.path: Path | None = None
        self.datagrams: list[bytes] = []
        self.messages: list[Message] = []
        self.dropped: list[tuple[bytes, str]] = []
        self._sockets: list[socket.socket] = []
        self._reading = trio.Event()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        counts = f"{len(self.messages)} messages, {len(self.dropped)} dropped"
        return f"<FakeQueue {self.name} {self.path or 'in memory'}: {counts}>"

    def deliver(self, datagram: bytes) -> None:
        """One datagram, as if it had come over the socket."""
        self.datagrams.append(datagram)
        try:
            self.messages.append(_READERS[self.name](datagram))
        except Malformed as error:
            self.dropped.append((datagram, str(error)))
        else:
            if self.name == "analysisd" and len(datagram) > EVENT_LIMIT:
                self.dropped.append((datagram, f"cut: {len(datagram)} bytes, more than {EVENT_LIMIT}"))
        event, self._changed = self._changed, trio.Event()
        event.set()

    def connect(self) -> socket.socket:
        """A connected datagram socket to this reader, without a file; the caller closes it."""
        assert self._nursery is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._start(theirs)
        return ours

    def pause(self) -> None:
        """Read nothing until ``resume``: after about 11 datagrams the queue is full."""
        self._reading = trio.Event()

    def resume(self) -> None:
        """Read again."""
        self._reading.set()

    async def wait_datagrams(self, count: int) -> None:
        """Return once ``count`` datagrams have come."""
        while len(self.datagrams) < count:
            await self._changed.wait()

    def close(self) -> None:
        """Stop reading and close the sockets, as a daemon that ended: senders get ECONNREFUSED. The file stays."""
        for bound in self._sockets:
            trio.lowlevel.notify_closing(bound)
            bound.close()
        self._sockets.clear()

    def _start(self, bound: socket.socket) -> None:
        assert self._nursery is not None
        bound.setblocking(False)
        self._sockets.append(bound)
        self._nursery.start_soon(self._read, bound)

    async def _read(self, bound: socket.socket) -> None:
        with suppress(trio.ClosedResourceError, OSError):
            while True:
                await self._reading.wait()
                await trio.lowlevel.wait_readable(bound)
                while self._reading.is_set():
                    try:
                        self.deliver(bound.recv(1 << 20))
                    except BlockingIOError:
                        break
                    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_fake_queue(
    name: QueueName,
    *,
    home: StrPath | None = None,
    path: StrPath | None = None,
    release: str = "4.14.2",
    reading: bool = True,
) -> AsyncIterator[FakeQueue]:
    """Run a fake datagram reader for the length of the block: under ``home``, where ``release`` has it, at ``path``, or
    without a file (``connect``). ``reading=False`` starts it paused. ``ValueError`` for a name that no queue has,
    ``LookupError`` for one that this release hasn't."""
    if name not in _READERS:
        raise ValueError(f"no queue is called {name!r}; known are {', '.join(_READERS)}")
    queue = FakeQueue(name)
    if path is not None:
        queue.path = Path(path)
    elif home is not None:
        queue.path = Path(home) / place_of(name, release_of(release).group)
    async with BackgroundNursery() as nursery:
        queue._nursery = nursery
        try:
            if reading:
                queue.resume()
            if queue.path is not None:
                queue._start(bind_socket(queue.path, socket.SOCK_DGRAM))
            yield queue
        finally:
            nursery.cancel_scope.cancel()
            queue.close()
            if queue.path is not None:
                queue.path.unlink(missing_ok=True)
