"""An engine of the tests: HTTP on a Unix socket, whose ways can be switched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import trio
from attrs import define, field


@define
class FakeEngine:
    """``status``, ``body``: what it answers. ``stall``: seconds before it does. ``stalls``: whether it never does, by
    the target. ``answer_after``: answers once it has so many bytes of the body, and reads no more until ``finished``.
    ``close_after``: closes then instead.
    ``read_pause``: seconds before each read. ``close_idle``: closes after each answer without having said so.
    ``judge``: a reason to refuse a body, or None; what it refuses isn't among ``requests``.
    ``requests``: target, headers and body of each whole one; of a body only ``drop_above`` bytes are kept."""

    path: Path
    status: int = 204
    body: bytes = b""
    stall: float = 0.0
    stalls: Callable[[bytes], bool] | None = None
    answer_after: int | None = None
    close_after: int | None = None
    read_pause: float = 0.0
    close_idle: bool = False
    judge: Callable[[bytes], str | None] = lambda body: None
    drop_above: int = 10_000_000
    connections: int = 0
    received: int = 0
    requests: list[tuple[bytes, dict[bytes, bytes], bytes]] = field(factory=list)
    finished: trio.Event = field(factory=trio.Event)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listening.bind(str(self.path))
        listening.listen(128)
        await trio.serve_listeners(self._handle, [trio.SocketListener(listening)], task_status=task_status)

    async def _handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self._request(stream, connection) and not self.close_idle:
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                pass

    async def _request(self, stream: trio.SocketStream, connection: h11.Connection) -> bool:
        """Returns whether another one may follow."""
        request: h11.Request | None = None
        body = bytearray()
        size = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                await trio.sleep(self.read_pause)
                connection.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                size += len(event.data)
                self.received += len(event.data)
                if size <= self.drop_above:
                    body += event.data
                if self.close_after is not None and size >= self.close_after:
                    return False
                if self.answer_after is not None and size >= self.answer_after:
                    await self._answer(stream, connection)
                    await self.finished.wait()
                    return False
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                reason = self.judge(bytes(body))
                if reason is None and self.status < 300:
                    self.requests.append((request.target, dict(request.headers), bytes(body)))
                await trio.sleep(self.stall)
                if self.stalls is not None and self.stalls(request.target):
                    await trio.sleep_forever()
                await self._answer(stream, connection, reason)
                return True
            else:
                return False

    async def _answer(self, stream: trio.SocketStream, connection: h11.Connection, reason: str | None = None) -> None:
        status, body = self.status, self.body
        if reason is not None:
            status, body = 400, json.dumps({"error": [reason], "code": 400}).encode()
        headers = [] if status == 204 else [("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", "application/json"))
        data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        data += connection.send(h11.Data(data=body)) or b""
        data += connection.send(h11.EndOfMessage()) or b""
        await stream.send_all(data)


@asynccontextmanager
async def fake_engine(folder: Path, **ways: object) -> AsyncIterator[FakeEngine]:
    path = folder / "engine.socket"
    path.unlink(missing_ok=True)
    engine = FakeEngine(path)
    for name, value in ways.items():
        setattr(engine, name, value)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.serve)
        try:
            yield engine
        finally:
            nursery.cancel_scope.cancel()
    path.unlink(missing_ok=True)
