"""What the log says of an engine that fails: a line when that begins, and one when it is over."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.engine.fake import FakeEngine, fake_engine
from tests.engine.test_engine import send, settings
from wazuh_comms_trio.backends.engine import client
from wazuh_comms_trio.backends.engine.client import UnixEngine, open_engine_client
from wazuh_comms_trio.errors import EngineRefused, EngineRequestError, EngineTimeout

pytestmark = pytest.mark.real_clock

#: Has requests fail in its way; returns what is to be said of it.
Fail = Callable[[FakeEngine, UnixEngine], Awaitable[str]]

TRIES = 2


async def answer_with_errors(fake: FakeEngine, engine: UnixEngine) -> str:
    fake.status, fake.body = 500, b'{"error":["no room"]}'
    for size in (10, 100_000):
        with pytest.raises(EngineRequestError):
            await send(engine, b"x" * size)
    return "it answers 500: no room"


async def close_in_the_middle(fake: FakeEngine, engine: UnixEngine) -> str:
    fake.close_after = 1
    for _ in range(TRIES):
        with pytest.raises(EngineRequestError):
            await send(engine, b"x")
    return "the connection"


async def hang(fake: FakeEngine, engine: UnixEngine) -> str:
    fake.stall = 1000
    for _ in range(TRIES):
        with pytest.raises(EngineTimeout):
            await send(engine, b"x")
    return "there was no answer within 1 s"


async def hang_until_given_up(fake: FakeEngine, engine: UnixEngine) -> str:
    fake.stall = 1000
    for body in (b"x", b"x" * 100_000):
        with trio.move_on_after(0.5), pytest.raises(EngineTimeout):
            await send(engine, body)
    return "no answer for "


@pytest.mark.parametrize("fail", [answer_with_errors, close_in_the_middle, hang, hang_until_given_up])
async def test_one_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fail: Fail
) -> None:
    caplog.set_level(logging.INFO, client.__name__)
    monkeypatch.setattr(client, "QUIET", 0.0)
    monkeypatch.setattr(client, "_LONG", 0.05)
    async with fake_engine(tmp_path) as fake, open_engine_client(settings(tmp_path, timeout=1.0)) as engine:
        why = await fail(fake, engine)
        fake.status, fake.body, fake.stall, fake.close_after = 204, b"", 0.0, None
        for _ in range(TRIES):
            await send(engine, b"x")
    begun, over = [record for record in caplog.records if record.name == client.__name__]
    assert (begun.levelno, over.levelno) == (logging.WARNING, logging.INFO)
    assert begun.getMessage().startswith(f"the engine: {why}")
    assert over.getMessage().startswith("the engine: works again after ")


async def test_agents_that_leave_make_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan may take long. Nor do those that are slow to send their bodies."""
    caplog.set_level(logging.INFO, client.__name__)
    monkeypatch.setattr(client, "_LONG", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        time_for_all.deadline = trio.current_time() + 0.2
        await trio.sleep_forever()

    async def leave(ask: Callable[[], Awaitable[object]]) -> None:
        """After a while that is long, before its time is over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()

    limits = settings(tmp_path, timeout=100.0)
    async with fake_engine(tmp_path, stall=1000) as fake, open_engine_client(limits) as engine:
        for body in (b"x", b"x" * 100_000):
            await leave(partial(send, engine, body))
        await leave(partial(engine.scan, b"{}"))
        with trio.CancelScope() as time_for_all:
            await engine.send_events(slow(), agent_id="a", length=200_000)
        await engine.probe()
        assert fake.connections == 5  # the probe's asks for nothing
    assert [record for record in caplog.records if record.name == client.__name__] == []


async def test_what_it_refuses_for_good_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is in the quarantine, with the reason."""
    caplog.set_level(logging.INFO, client.__name__)
    async with fake_engine(tmp_path, status=400), open_engine_client(settings(tmp_path)) as engine:
        for _ in range(TRIES):
            with pytest.raises(EngineRefused):
                await send(engine, b"x")
    assert [record for record in caplog.records if record.name == client.__name__] == []
