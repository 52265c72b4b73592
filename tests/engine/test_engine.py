"""The engine's client against an engine on a real Unix socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.engine.fake import fake_engine
from wazuh_comms_trio.backends.engine.client import UnixEngine, open_engine_client, reason_of, socket_path
from wazuh_comms_trio.config.backend_models import EngineClient
from wazuh_comms_trio.errors import (
    CommsError,
    EngineRefused,
    EngineRequestError,
    EngineSchemeError,
    EngineSocketError,
    EngineTimeout,
)
from wazuh_comms_trio.http.client.connection import HttpReply

pytestmark = pytest.mark.real_clock


def settings(folder: Path, **more: object) -> EngineClient:
    return EngineClient(folder / "engine.socket", **{"retries": 1, "timeout": 5.0, **more})  # type: ignore[arg-type]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


async def send(engine: UnixEngine, *parts: bytes, chunked: bool = False) -> None:
    length = None if chunked else sum(map(len, parts))
    await engine.send_events(pieces(*parts), agent_id="a", length=length)


async def test_a_body_arrives_unchanged(tmp_path: Path) -> None:
    small, large = b'{"agent":{}}\n{"a":1}\r\n\xff', b"x" * 100_000
    async with fake_engine(tmp_path) as fake, open_engine_client(settings(tmp_path)) as engine:
        await send(engine, small)
        await send(engine, small, chunked=True)
        await send(engine, large[:10], b"", large[10:])
        await send(engine, b"", chunked=True)
        assert [body for _, _, body in fake.requests] == [small, small, large, b""]
        targets = {target for target, _, _ in fake.requests}
        kinds = {headers[b"content-type"] for _, headers, _ in fake.requests}
        assert (targets, kinds) == ({b"/events/stateless"}, {b"application/x-ndjson"})
        assert fake.connections == 1


async def test_few_connections_are_kept(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, stall=0.02) as fake, open_engine_client(settings(tmp_path)) as engine:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(send, engine, b"body")
        assert len(fake.requests) == 60
        assert 30 <= fake.connections <= 60 - 8


async def test_a_large_body_streams_at_constant_memory(tmp_path: Path) -> None:
    piece = b"x" * 65536
    peaks: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for number in range(1600):
            if number % 50 == 0:
                peaks.append(resident_bytes())
            yield piece

    async with fake_engine(tmp_path, drop_above=0) as fake, open_engine_client(settings(tmp_path)) as engine:
        await engine.send_events(body(), agent_id="a", length=1600 * 65536)
        assert fake.received == 1600 * 65536
    assert max(peaks) - peaks[0] < 8 * 1024 * 1024


async def test_a_slow_engine_holds_the_body_back(tmp_path: Path) -> None:
    given = 0

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal given
        for _ in range(1000):
            given += 65536
            yield b"x" * 65536

    async with (
        fake_engine(tmp_path, read_pause=1000) as fake,
        open_engine_client(settings(tmp_path, timeout=0.3)) as engine,
        aclosing(body()) as pieces_of_body,
    ):
        with pytest.raises(EngineTimeout):
            await engine.send_events(pieces_of_body, agent_id="a", length=1000 * 65536)
        assert fake.received == 0
        assert given < 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, EngineRefused, 2710),
        (401, EngineRequestError, 2803),
        (403, EngineRequestError, 2803),
        (404, EngineRequestError, 2803),
        (413, EngineRefused, 2710),
        (408, EngineRequestError, 2803),
        (429, EngineRequestError, 2803),
        (500, EngineRequestError, 2803),
        (503, EngineRequestError, 2803),
        (302, EngineRequestError, 2803),
    ],
)
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_what_an_answer_means(tmp_path: Path, status: int, error: type[CommsError], code: int, size: int) -> None:
    async with (
        fake_engine(tmp_path, status=status, body=b'{"error":["bad","worse"],"code":7}'),
        open_engine_client(settings(tmp_path)) as engine,
    ):
        with pytest.raises(error) as caught:
            await send(engine, b"x" * size)
        assert caught.value.code == code
        if error is EngineRefused:
            assert caught.value.message == "bad; worse"


def test_the_engines_words() -> None:
    def reason(body: bytes) -> str:
        return reason_of(HttpReply(400, {}, body))

    assert reason(b'{"error":"no","code":1}') == "no"
    assert reason(b'{"error":["a",2]}') == "a; 2"
    assert reason(b"plain text\n") == "plain text"
    assert reason(b"") == reason(b"{}") == reason(b'{"error":[]}') == "The engine answered 400"
    assert reason(b"\xff\xfe") == "\ufffd\ufffd"
    assert len(reason(b"x" * 10_000)) == 500
    assert reason(b"[" * 100_000) == "[" * 500
    assert reason(b'{"error":%b}' % (b"[" * 100_000 + b"]" * 100_000)).startswith('{"error":[[')


async def test_no_answer_in_time(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, stall=1000), open_engine_client(settings(tmp_path, timeout=0.2)) as engine:
        for parts in ([b"x"], [b"x" * 100_000]):
            with pytest.raises(EngineTimeout) as caught:
                await send(engine, *parts)
            assert caught.value.code == 2800
        with pytest.raises(EngineTimeout):
            await engine.scan(b"{}")


async def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    async with open_engine_client(settings(tmp_path, retries=2)) as engine:
        started = trio.current_time()
        with pytest.raises(EngineSocketError) as caught:
            await send(engine, b"x")
        assert caught.value.code == 2802
        assert 0.2 < trio.current_time() - started < 2  # two pauses
        consumed: list[bytes] = []

        async def body() -> AsyncIterator[bytes]:
            consumed.append(b"x")
            yield b"x"

        with pytest.raises(EngineSocketError):
            await engine.send_events(body(), agent_id="a", length=None)
        assert consumed == []  # there was nothing to give it to
        async with fake_engine(tmp_path) as fake:
            await send(engine, b"x")
            assert len(fake.requests) == 1


async def test_an_engine_that_starts_meanwhile_is_reached(tmp_path: Path) -> None:
    done = trio.Event()

    async def send_one(engine: UnixEngine) -> None:
        await send(engine, b"x")
        done.set()

    async with open_engine_client(settings(tmp_path, retries=5)) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(send_one, engine)
        await trio.sleep(0.15)  # the first attempts find nothing
        async with fake_engine(tmp_path) as fake:
            with trio.fail_after(10):
                await done.wait()
            assert len(fake.requests) == 1


async def test_a_full_queue_is_no_connection(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(tmp_path / "engine.socket"))
        listening.listen(0)
        first.connect(str(tmp_path / "engine.socket"))
        async with open_engine_client(settings(tmp_path, retries=0)) as engine:
            with pytest.raises(EngineSocketError):
                await send(engine, b"x")


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_closing_in_the_middle_of_a_body(tmp_path: Path, size: int) -> None:
    async with (
        fake_engine(tmp_path, close_after=1) as fake,
        open_engine_client(settings(tmp_path)) as engine,
    ):
        with pytest.raises(EngineRequestError) as caught:
            await send(engine, *[b"x" * (size // 10)] * 10)
        assert caught.value.code == 2803
        assert fake.connections == 1  # some of it was consumed: not again
        fake.close_after = None
        await send(engine, b"again")
        assert [body for _, _, body in fake.requests] == [b"again"]


async def test_an_answer_before_the_end_of_the_body(tmp_path: Path) -> None:
    """What is left of the body can still be read by its owner."""
    given = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(100):
            await trio.sleep(0.001)
            given += 1
            yield b"x" * 10_000

    async with (
        fake_engine(tmp_path, answer_after=10_000, status=413, body=b'{"error":"too much"}') as fake,
        open_engine_client(settings(tmp_path)) as engine,
    ):
        stream = body()
        with pytest.raises(EngineRefused, match="too much"):
            await engine.send_events(stream, agent_id="a", length=None)
        assert given < 100
        rest = [piece async for piece in stream]
        assert given == 100
        assert rest
        fake.finished.set()


async def test_a_kept_connection_that_was_closed_is_no_error(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, close_idle=True) as fake, open_engine_client(settings(tmp_path)) as engine:
        for number in range(20):
            await send(engine, b"body %d" % number)
        for _ in range(5):
            await send(engine, b"x" * 100_000, chunked=True)
        assert len(fake.requests) == 25


async def test_what_takes_long_keeps_nothing_else_waiting(tmp_path: Path) -> None:
    """Neither scans, which are an engine's work of seconds, nor bodies whose agents are slow."""

    async def slow() -> AsyncIterator[bytes]:
        yield b"body"
        await trio.sleep_forever()

    async with fake_engine(tmp_path, stall=1000) as fake, open_engine_client(settings(tmp_path)) as engine:
        async with trio.open_nursery() as nursery:
            for number in range(150):
                nursery.start_soon(engine.scan, b"{}")
                nursery.start_soon(partial(engine.send_events, slow(), agent_id=str(number), length=None))
            while fake.connections < 16 + 64:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
            fake.stall = 0
            with trio.fail_after(4):
                await send(engine, b"event")
            nursery.cancel_scope.cancel()
        assert [body for _, _, body in fake.requests if body != b"{}"] == [b"event"]


async def test_slow_bodies_of_one_agent_keep_no_others_waiting(tmp_path: Path) -> None:
    async def body_of(*, ends: bool) -> AsyncIterator[bytes]:
        yield b"body"
        if not ends:
            await trio.sleep_forever()

    async with fake_engine(tmp_path) as fake, open_engine_client(settings(tmp_path)) as engine:
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(partial(engine.send_events, body_of(ends=False), agent_id="a", length=None))
            while fake.connections < 8:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
            with trio.fail_after(4):
                await engine.send_events(body_of(ends=True), agent_id="b", length=None)
            assert fake.connections == 8 + 1
            nursery.cancel_scope.cancel()
        with trio.fail_after(4):
            await engine.send_events(body_of(ends=True), agent_id="a", length=None)


async def test_what_the_body_raises_goes_through(tmp_path: Path) -> None:
    class Left(Exception):
        pass

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 10
        raise Left

    async with fake_engine(tmp_path) as fake, open_engine_client(settings(tmp_path)) as engine:
        for length in (20, 1_000_000, None):
            with pytest.raises(Left):
                await engine.send_events(body(), agent_id="a", length=length)
        await send(engine, b"after")
        assert [body for _, _, body in fake.requests] == [b"after"]


async def test_cancelled_while_it_waits(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, stall=0.1) as fake, open_engine_client(settings(tmp_path)) as engine:
        for size in (10, 1_000_000):
            with trio.move_on_after(0.05) as scope:
                await send(engine, b"x" * size)
            assert scope.cancelled_caught
        fake.stall = 0
        await send(engine, b"after")
        assert fake.requests[-1][2] == b"after"


async def test_scans(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, status=200, body=b'{"found":[]}') as fake:
        async with open_engine_client(settings(tmp_path)) as engine:
            reply = await engine.scan(b'{"type":"packagelist"}')
            assert (reply.status, reply.body, reply.content_type) == (200, b'{"found":[]}', "application/json")
            fake.status, fake.body = 422, b""
            reply = await engine.scan(b"{}")
            assert (reply.status, reply.body) == (422, b"")
        assert [(target, body) for target, _, body in fake.requests] == [
            (b"/vulnerability/scan", b'{"type":"packagelist"}')
        ]


def test_addresses() -> None:
    assert socket_path(Path("/run/engine.socket")) == "/run/engine.socket"
    assert socket_path(Path("unix:///run/engine.socket")) == "/run/engine.socket"
    assert socket_path(Path("relative/engine.socket")) == "relative/engine.socket"
    with pytest.raises(EngineSchemeError) as caught:
        socket_path(Path("http://127.0.0.1:9000"))
    assert caught.value.code == 2801


async def test_a_probe_asks_nothing_of_an_engine_that_answers(tmp_path: Path) -> None:
    async with open_engine_client(settings(tmp_path)) as engine:
        with pytest.raises(EngineSocketError):  # there is no socket
            await engine.probe()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "engine.socket"))
        with pytest.raises(EngineSocketError):  # nobody listens on it
            await engine.probe()
        async with fake_engine(tmp_path) as fake:
            for _ in range(3):
                await engine.probe()
            assert not fake.requests
            fake.status = 500
            with pytest.raises(EngineRequestError):
                await send(engine, b"x")
            await engine.probe()
            assert not fake.received - 1


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_probe_wants_an_answer_of_one_that_fell_silent(tmp_path: Path, given_up: bool) -> None:
    """The engine's queue takes connections for a process that hangs, too."""
    limits = settings(tmp_path, timeout=30.0 if given_up else 0.3)
    async with fake_engine(tmp_path, stall=1000) as fake, open_engine_client(limits) as engine:
        await engine.probe()
        if given_up:  # by an agent's request, whose limit is shorter than ours
            with trio.move_on_after(2.2), pytest.raises(EngineTimeout):
                await send(engine, b"x")
        else:
            with pytest.raises(EngineTimeout):
                await send(engine, b"x")
        with trio.fail_after(2), pytest.raises(EngineTimeout):  # within what a probe may take
            await engine.probe()
        fake.stall = 0
        fake.status = 404  # any answer is a sign of life
        await engine.probe()
        fake.status, fake.stall = 204, 1000
        await engine.probe()  # it isn't asked any more
