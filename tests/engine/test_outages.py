"""What the log says of an engine that fails: a line when that begins, and one when it is over."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
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
    for _ in range(TRIES):
        with trio.move_on_after(0.5):
            await send(engine, b"x")
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


async def test_what_it_refuses_for_good_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is in the quarantine, with the reason."""
    caplog.set_level(logging.INFO, client.__name__)
    async with fake_engine(tmp_path, status=400), open_engine_client(settings(tmp_path)) as engine:
        for _ in range(TRIES):
            with pytest.raises(EngineRefused):
                await send(engine, b"x")
    assert [record for record in caplog.records if record.name == client.__name__] == []
