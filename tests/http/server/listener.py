"""An application alone: over in-memory or real streams, with fakes for the services behind it."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio
from attrs import define, field

from wazuh_comms_trio.api.agent_api.app import create_app
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, EngineReply, Target
from wazuh_comms_trio.config.models import CommunicationsApi, Limits, Ssl, Timeouts
from wazuh_comms_trio.errors import CommsError, FileMissing, InvalidKey, TokenInvalid
from wazuh_comms_trio.http.server.accept_loop import serve_listeners
from wazuh_comms_trio.http.server.listener_context import Application, ListenerContext
from wazuh_comms_trio.http.server.refusals import Describe
from wazuh_comms_trio.services import Services
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.stateful.events import Queued
from wazuh_comms_trio.testing.agent.http import Reply, ReplyDecoder
from wazuh_comms_trio.testing.streams import MemoryListener

AGENT = Agent(id="0194857f-39b5-7bfb-a7bc-c5c6835f03d1", name="a1", key_hash="")
CALLER = Caller(agent=AGENT, expires=1e12)
TOKEN = b"good"
LIMITS = Limits()
SHORT_LIMITS = Limits(
    handshake_timeout=3,
    head_timeout=5,
    body_timeout=10,
    body_rate=100,
    stall_timeout=7,
    send_timeout=4,
    body_bytes=100_000,
)
TIMEOUTS = Timeouts()
AUTHORIZED = b"Authorization: Bearer " + TOKEN


class FakeAuthenticator:
    async def authenticate(self, uuid: str, key: str, peer: str | None = None, *, wait_limit: float = 0) -> str:
        await trio.lowlevel.checkpoint()
        if key != "right":
            raise InvalidKey
        return "token-of-" + uuid

    async def verify(self, token: bytes | None) -> Caller:
        await trio.lowlevel.checkpoint()
        if token != TOKEN:
            raise TokenInvalid
        return CALLER

    def verify_at_once(self, token: bytes | None) -> Caller | None:
        return None

    def note_refused_token(self, error: CommsError, peer: str | None) -> None:
        """The real one counts it."""

    def note_refused_login(self, cause: str, uuid: str | None, peer: str | None) -> None:
        """The real one counts it."""


@define
class FakeStateful:
    bodies: list[bytes] = field(factory=list)
    waits: float = 0.0  # for its turn
    takes: float = 0.0
    error: Exception | None = None
    reply: bytes = b'{"results":[]}'
    expected: int = 0

    async def expected_reply(self, body: bytes | bytearray, enough: int = 0) -> int:
        return self.expected

    async def submit(
        self, caller: Caller, body: bytes | bytearray, *, queued: Queued = nullcontext, **_: object
    ) -> bytes:
        self.bodies.append(bytes(body))
        with queued():
            await trio.sleep(self.waits)
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.reply


@define
class FakeStateless:
    bodies: list[bytes] = field(factory=list)
    lengths: list[int | None] = field(factory=list)
    takes: float = 0.0
    error: Exception | None = None
    gate: trio.Event | None = None  # closed: nothing is read

    async def forward(self, caller: Caller, chunks: AsyncIterable[bytes], *, length: int | None, limit: float) -> None:
        self.lengths.append(length)
        if self.gate is not None:
            await self.gate.wait()
        pieces = [chunk async for chunk in chunks]
        assert all(pieces)
        self.bodies.append(b"".join(pieces))
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error


COMMAND = Command(document_id="c1", target=Target("agent", AGENT.id), action=Action("restart"))


@define
class FakeOffer:
    commands: Sequence[Command] = (COMMAND,)
    texts: Sequence[bytes] | None = None
    given_back: list[Command] = field(factory=list)
    fate: list[str] = field(factory=list)
    settled: trio.Event = field(factory=trio.Event)

    def keep(self, count: int) -> None:
        self.given_back += self.commands[count:]
        self.commands = self.commands[:count]

    def drop_contents(self) -> None: ...

    async def confirm(self) -> None:
        await self._settle("confirmed")

    async def release(self) -> None:
        await self._settle("released")

    async def _settle(self, verdict: str) -> None:
        self.fate.append(verdict)  # decided at the moment of the call, as the real ones
        self.settled.set()
        await trio.lowlevel.checkpoint()


@define
class FakeDispatcher:
    offers: list[FakeOffer] = field(factory=list)
    error: Exception | None = None
    parked: int = 0
    cancelled: int = 0
    limit: float = 300.0
    posted: list[Command] = field(factory=list)
    closing: trio.Event = field(factory=trio.Event)

    async def poll(self, caller: Caller, *, deadline: float) -> FakeOffer | None:
        self.parked += 1
        try:
            if self.error is not None:
                raise self.error
            if self.offers:
                await trio.lowlevel.checkpoint()
                return self.offers[0]
            with trio.move_on_at(deadline):
                await self.closing.wait()
            return None
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.parked -= 1

    def poll_limit(self) -> float:
        return self.limit

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]:
        await trio.lowlevel.checkpoint()
        self.posted += commands
        return commands


@define
class FakeFile:
    content: bytes
    pieces: int = 3

    @property
    def size(self) -> int:
        return len(self.content)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        step = max(1, -(-len(self.content) // self.pieces))
        for start in range(0, len(self.content), step):
            await trio.lowlevel.checkpoint()
            yield self.content[start : start + step]


@define
class FakeFiles:
    files: dict[bytes, bytes] = field(factory=lambda: {b"default.conf": b"<agent/>"})
    takes: float = 0.0
    error: Exception | None = None

    @asynccontextmanager
    async def open_file(self, caller: Caller, raw_name: bytes) -> AsyncIterator[FakeFile]:
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        if raw_name not in self.files:
            raise FileMissing
        yield FakeFile(self.files[raw_name])


@define
class FakeScans:
    bodies: list[bytes] = field(factory=list)
    reply: EngineReply = field(factory=lambda: EngineReply(200, b"[]"))
    takes: float = 0.0
    error: Exception | None = None

    async def scan(self, caller: Caller, body: bytes, *, deadline: float) -> EngineReply:
        self.bodies.append(body)
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.reply


@define
class Fakes:
    authentication: FakeAuthenticator = field(factory=FakeAuthenticator)
    stateful: FakeStateful = field(factory=FakeStateful)
    stateless: FakeStateless = field(factory=FakeStateless)
    commands: FakeDispatcher = field(factory=FakeDispatcher)
    files: FakeFiles = field(factory=FakeFiles)
    scans: FakeScans = field(factory=FakeScans)

    def services(self) -> Services:
        services: Services = cast(Any, Services)(
            authentication=self.authentication,
            stateful=self.stateful,
            stateless=self.stateless,
            commands=self.commands,
            files=self.files,
            scans=self.scans,
        )
        return services


# --- serving ----------------------------------------------------------------------------------------------------------


def app_of(fakes: Fakes, limits: Limits = LIMITS, timeouts: Timeouts = TIMEOUTS) -> Application:
    nowhere = Ssl(key=Path("key.pem"), cert=Path("cert.pem"))
    return create_app(fakes.services(), CommunicationsApi(ssl=nowhere, limits=limits, timeouts=timeouts))


@define
class Served:
    """An application that is served. ``connect`` is a plain connection to it."""

    fakes: Fakes

    async def connect(self) -> trio.abc.HalfCloseableStream:
        raise NotImplementedError

    async def ask(self, data: bytes) -> Reply:
        """Sends it all, as it is, and reads one reply."""
        stream = await self.connect()
        await stream.send_all(data)
        return await read_reply(stream, head_only=data.startswith(b"HEAD"))

    async def request(self, method: str, path: str, body: bytes | None = None, *, token: bytes | None = TOKEN) -> Reply:
        return await self.ask(request_bytes(method, path, body, token=token))


@define
class Server(Served):
    """... by our own connections, in memory."""

    context: ListenerContext
    listener: MemoryListener
    stop: trio.Event
    stopped: trio.Event

    async def connect(self) -> trio.abc.HalfCloseableStream:
        return await self.listener.connect()


@asynccontextmanager
async def serving(
    fakes: Fakes | None = None,
    *,
    limits: Limits = LIMITS,
    timeouts: Timeouts = TIMEOUTS,
    app: Application | None = None,
    ssl_context: ssl.SSLContext | None = None,
    grace: float = 10.0,
    buffer_bytes: int = 256 * 1024,
    describe: Describe = describe,
) -> AsyncIterator[Server]:
    fakes = fakes or Fakes()
    context = ListenerContext(app or app_of(fakes, limits, timeouts), limits, describe, ssl_context)
    listener = MemoryListener(buffer_bytes=buffer_bytes)
    stop, stopped = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await serve_listeners(context, [listener], stop=stop, grace=grace, task_status=task_status)
            stopped.set()

        await nursery.start(serve)
        yield Server(fakes, context, listener, stop, stopped)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving_tcp(
    fakes: Fakes, *, limits: Limits = LIMITS, ssl_context: ssl.SSLContext | None = None, **more: Any
) -> AsyncIterator[tuple[str, int]]:
    """The same on a TCP port of its own: its address."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    context = ListenerContext(app_of(fakes, limits), limits, describe, ssl_context, **more)
    async with listener, trio.open_nursery() as nursery:
        await nursery.start(partial(serve_listeners, context, [listener], stop=trio.Event(), grace=1))
        yield listener.socket.getsockname()
        nursery.cancel_scope.cancel()


@define
class UnixServer(Served):
    """... by our own connections, on a Unix socket. Its streams are closed at the end."""

    path: Path
    streams: AsyncExitStack

    async def connect(self) -> trio.abc.HalfCloseableStream:
        return await self.streams.enter_async_context(await trio.open_unix_socket(self.path))


@asynccontextmanager
async def serving_unix(app: Application, path: Path) -> AsyncIterator[UnixServer]:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    context = ListenerContext(app, LIMITS, describe)
    async with trio.SocketListener(sock) as listener, trio.open_nursery() as nursery:
        await nursery.start(partial(serve_listeners, context, [listener], stop=trio.Event(), grace=1))
        async with AsyncExitStack() as streams:
            yield UnixServer(Fakes(), path, streams)
        nursery.cancel_scope.cancel()


def request_bytes(
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    token: bytes | None = TOKEN,
    headers: Sequence[bytes] = (),
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}".encode("latin-1"), b"Host: localhost", *headers]
    if token is not None:
        lines.append(b"Authorization: Bearer " + token)
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


async def read_reply(stream: trio.abc.ReceiveStream, *, head_only: bool = False) -> Reply:
    decoder = ReplyDecoder(head_only=head_only)
    while decoder.reply is None:
        decoder.feed(await stream.receive_some(65536))
    return decoder.reply


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """All there is until the peer closes in order."""
    data = b""
    while piece := await stream.receive_some(65536):
        data += piece
    return data


def problem(reply: Reply) -> tuple[int, int]:
    """(status, code) of a reply in the one shape."""
    assert reply.header("content-type") == "application/json"
    assert reply.header("connection") == "close"
    document = json.loads(reply.body)
    assert set(document) == {"message", "code"}
    assert isinstance(document["message"], str)
    assert document["message"]
    return reply.status, document["code"]


async def until(condition: Callable[[], object]) -> None:
    """Waits for the kernel, which wakes nobody up for these."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)
