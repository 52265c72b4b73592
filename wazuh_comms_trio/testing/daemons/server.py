"""Fake stream daemons: framed requests in, answers by script or callback out, over a socket file or in memory.

    async with open_fake_daemon("wazuh-db", ["ok", "err nothing"], home=tmp_path) as daemon:
        ...                      # daemon.path is where the registry expects the real one's socket

Without ``home`` no file is made: ``await daemon.connect()`` returns a trio stream. Framing is written here a second
time, on purpose: a mistake in ``wire.framing`` must not hide behind itself.
"""

from __future__ import annotations

import errno
import inspect
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
import trio.testing
from attrs import evolve

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.testing.daemons.conduct import (
    CONDUCTS,
    HEADER,
    HEALTHY,
    Act,
    Answer,
    AnswerCallback,
    AnswerScript,
    Conduct,
    Frames,
    Oddities,
    Raw,
    answer_payloads,
    encode_answer,
)
from wazuh_comms_trio.testing.daemons.releases import conduct_of, place_of
from wazuh_comms_trio.testing.daemons.sockets import (
    STREAM_PATHS,
    StrPath,
    as_callback,
    bind_socket,
    close_now,
    receive_exactly,
)
from wazuh_comms_trio.transport.releases.release import release_of

# What the control socket reads.
_UNFRAMED_BYTES: Final = 46


class FakeDaemon:
    """A running fake. Made by ``open_fake_daemon``.

    ``requests`` is every request's payload in order of arrival, a trailing NUL included; ``answers`` counts those
    answered, ``connections`` those accepted so far, ``open_connections`` those open now; ``lost_threads`` the threads
    that oversized requests took out of service; ``crashed`` says that the daemon is gone. ``oddities`` and ``answer``
    may be set at any time and hold for the next answer.
    """

    def __init__(self, name: str, answer: AnswerCallback | AnswerScript, conduct: Conduct, oddities: Oddities) -> None:
        self.name: str = name
        self.conduct: Conduct = conduct
        self.oddities: Oddities = oddities
        self.path: Path | None = None
        self.requests: list[bytes] = []
        self.answers: int = 0
        self.connections: int = 0
        self.lost_threads: int = 0
        self.crashed: bool = False
        self._answer = as_callback(answer)
        self._threads = trio.Semaphore(conduct.threads)
        self._streams: set[trio.abc.Stream] = set()
        self._backlog: list[trio.abc.Stream] = []
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._listener: trio.socket.SocketType | None = None
        self._accepting = trio.CancelScope()

    def __repr__(self) -> str:
        counts = f"{self.connections} connections, {len(self.requests)} requests"
        return f"<FakeDaemon {self.name} {self.path or 'in memory'}: {counts}>"

    @property
    def open_connections(self) -> int:
        """Connections accepted and not yet closed by either side."""
        return len(self._streams)

    def set_answer(self, answer: AnswerCallback | AnswerScript) -> None:
        """Answer the next requests by another script or callback."""
        self._answer = as_callback(answer)

    def set_oddities(self, **switches: Any) -> None:
        """Change some of the oddities, by the names of ``Oddities``; the next answer, or accept, heeds them."""
        self.oddities = evolve(self.oddities, **switches)
        self._accepting.cancel()
        self._wake()

    async def connect(self) -> trio.abc.Stream:
        """A new connection in memory, or over the socket file if there is one. Raises what a real connect would:
        ``BlockingIOError`` when the backlog is full, ``ConnectionRefusedError`` after a crash. Cancelled: nothing stays
        open."""
        if self.path is not None:
            return await trio.open_unix_socket(self.path)
        await trio.lowlevel.checkpoint()
        if self.crashed or self._nursery is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if len(self._backlog) > self.oddities.backlog:  # as Linux counts: one more than the number given to listen()
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        ours, theirs = trio.testing.memory_stream_pair()
        self._backlog.append(theirs)
        self._wake()
        return ours

    async def wait_requests(self, count: int) -> None:
        """Return once ``count`` requests have come."""
        await self._wait(lambda: len(self.requests) >= count)

    async def wait_answers(self, count: int) -> None:
        """Return once ``count`` requests have been answered, as far as they were."""
        await self._wait(lambda: self.answers >= count)

    async def wait_connections(self, count: int) -> None:
        """Return once ``count`` connections were accepted."""
        await self._wait(lambda: self.connections >= count)

    async def wait_closed(self) -> None:
        """Return once no connection is open."""
        await self._wait(lambda: not self._streams)

    async def close_connections(self) -> None:
        """Close every open connection, as a daemon that restarts does; new ones are accepted."""
        for stream in list(self._streams):
            await close_now(stream)

    async def crash(self) -> None:
        """Close everything and refuse new connections. The socket file stays, as a killed daemon leaves it."""
        self.crashed = True
        if self._listener is not None:
            self._listener.close()
        await self.close_connections()
        self._wake()

    def _wake(self) -> None:
        event, self._changed = self._changed, trio.Event()
        event.set()

    async def _wait(self, done: Callable[[], bool]) -> None:
        while not done():
            await self._changed.wait()

    # --- accepting ----------------------------------------------------------------------------------------------------

    async def _accept_memory(self) -> None:
        while not self.crashed:
            if self._backlog and self.oddities.accepting:
                self._start(self._backlog.pop(0))
            else:
                await self._changed.wait()
        for stream in self._backlog:
            await close_now(stream)

    async def _accept_sockets(self, listener: trio.socket.SocketType) -> None:
        while True:
            await self._wait(lambda: self.oddities.accepting or self.crashed)
            with trio.CancelScope() as self._accepting:
                try:
                    accepted, _ = await listener.accept()
                except (OSError, trio.ClosedResourceError):
                    return
                if self._nursery is None:  # the fake was ended at the same moment
                    accepted.close()
                    return
                self._start(trio.SocketStream(accepted))

    def _start(self, stream: trio.abc.Stream) -> None:
        assert self._nursery is not None
        self.connections += 1
        self._streams.add(stream)
        self._nursery.start_soon(self._serve, stream)
        self._wake()

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            # What a peer's end looks like depends on the moment: none of it is the fake's trouble.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                if self.conduct.thread_per_connection:
                    async with self._threads:
                        await self._converse(stream)
                else:
                    await self._converse(stream)
        finally:
            self._streams.discard(stream)
            await close_now(stream)
            self._wake()

    async def _converse(self, stream: trio.abc.Stream) -> None:
        answered = 0
        streamed = False
        while True:
            if self.oddities.deaf:
                await trio.sleep_forever()
            if (request := await self._receive(stream)) is None:
                return
            self.requests.append(request)
            self._wake()
            answer = await self._think(request)
            streamed = streamed or (isinstance(answer, Frames) and answer.streamed)
            if answer is Act.SILENCE:
                continue
            if not await self._send(stream, answer, streamed):
                return
            answered += 1
            self.answers += 1
            self._wake()
            if self.conduct.one_shot or answered == self.oddities.close_after:
                return

    async def _receive(self, stream: trio.abc.Stream) -> bytes | None:
        """One request's payload, or None where the daemon closes."""
        with trio.move_on_after(self.conduct.receive_timeout or float("inf")):
            if len(header := await receive_exactly(stream, HEADER.size)) < HEADER.size:
                return None
            (length,) = HEADER.unpack(header)
            if length > self.conduct.request_limit:
                if self.conduct.oversized_wedges:
                    await self._wedge()
                return None
            payload = await receive_exactly(stream, length)
            # A length of 0 is taken for a disconnect.
            return payload if length and len(payload) == length else None
        return None

    async def _wedge(self) -> None:
        """The thread that met an oversized request serves nobody ever after; nor is the connection closed."""
        await self._threads.acquire()
        self.lost_threads += 1
        self._wake()
        await trio.sleep_forever()

    async def _think(self, request: bytes) -> Answer:
        if self.oddities.silent:
            return Act.SILENCE
        if self.conduct.thread_per_connection:
            return await self._call(request)
        async with self._threads:
            return await self._call(request)

    async def _call(self, request: bytes) -> Answer:
        answer = self._answer(request.removesuffix(b"\0"))
        if inspect.isawaitable(answer):
            answer = await answer
        if self.oddities.answer_delay:
            await trio.sleep(self.oddities.answer_delay)
        return Act.CLOSE if self.oddities.close_without_answer else answer

    async def _send(self, stream: trio.abc.Stream, answer: Answer, streamed: bool) -> bool:
        """False where the daemon closes afterwards."""
        if answer is Act.CRASH:
            await self.crash()
            return False
        if answer is Act.CLOSE:
            return False
        frames = [encode_answer(payload, self.conduct, self.oddities) for payload in answer_payloads(answer)]
        if isinstance(answer, Raw):
            frames = [answer.data]
        timeout = self.conduct.streamed_send_timeout if streamed else None
        for frame in frames:
            # Cut by the timeout, the frame stays as far as it got: the next one starts inside the announced length.
            with trio.move_on_after(timeout or float("inf")):
                await self._send_pieces(stream, frame)
        return self.oddities.cut_after is None or not self.oddities.cut_closes

    async def _send_pieces(self, stream: trio.abc.Stream, frame: bytes) -> None:
        size = self.oddities.piece_bytes or max(len(frame), 1)
        for start in range(0, len(frame), size):
            await stream.send_all(frame[start : start + size])


D = TypeVar("D", bound=FakeDaemon)


class FakeUnframed(FakeDaemon):
    """A daemon whose requests and answers are text without frames, which end with the stream (``control``)."""

    async def _receive(self, stream: trio.abc.Stream) -> bytes | None:
        return bytes(await stream.receive_some(_UNFRAMED_BYTES)) or None

    async def _send(self, stream: trio.abc.Stream, answer: Answer, streamed: bool) -> bool:
        if not isinstance(answer, Act | Raw):
            answer = Raw(b"".join(answer_payloads(answer)))
        return await super()._send(stream, answer, streamed)


@asynccontextmanager
async def open_fake_daemon(
    name: str,
    answer: AnswerCallback | AnswerScript = (),
    *,
    home: StrPath | None = None,
    path: StrPath | None = None,
    release: str | None = None,
    other_release: bool = False,
    conduct: Conduct | None = None,
    oddities: Oddities = HEALTHY,
) -> AsyncIterator[FakeDaemon]:
    """Run a fake daemon for the length of the block.

    ``answer`` is a callback or a script. With ``home`` the socket is made where a 4.x server has ``name``'s
    (``other_release``: the other place, where releases differ; ``release``: where that one has it, ``LookupError``
    where it has none), with ``path`` exactly there, with neither the daemon is in memory. ``conduct`` is the named
    daemon's unless given; an unknown name behaves like a plain framed server. What a callback raises comes out of the
    block, in a group.
    """
    group = None if release is None else release_of(release).group
    if conduct is None:
        conduct = CONDUCTS.get(name, Conduct()) if group is None else conduct_of(name, group)
    kind = FakeUnframed if name == "control" else FakeDaemon
    daemon = kind(name, answer, conduct, oddities)
    if path is not None:
        daemon.path = Path(path)
    elif home is not None and group is not None:
        daemon.path = Path(home) / place_of(name, group)
    elif home is not None:
        places: Sequence[str] = STREAM_PATHS.get(name, (f"queue/sockets/{name}",))
        daemon.path = Path(home) / places[-1 if other_release else 0]
    async with run_fake(daemon) as running:
        yield running


@asynccontextmanager
async def run_fake(daemon: D) -> AsyncIterator[D]:
    """Accept connections for the length of the block, at ``daemon.path`` or in memory."""
    async with BackgroundNursery() as nursery:
        daemon._nursery = nursery
        try:
            if daemon.path is None:
                nursery.start_soon(daemon._accept_memory)
            else:
                bound = bind_socket(daemon.path, socket.SOCK_STREAM)
                listener = daemon._listener = trio.socket.from_stdlib_socket(bound)
                listener.listen(daemon.oddities.backlog)
                nursery.start_soon(daemon._accept_sockets, listener)
            yield daemon
        finally:
            nursery.cancel_scope.cancel()
            daemon._nursery = None
            if daemon._listener is not None:
                daemon._listener.close()
            for stream in daemon._backlog:
                await close_now(stream)
            if daemon.path is not None:
                daemon.path.unlink(missing_ok=True)
