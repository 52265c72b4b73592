"""An engine that answers, and takes nobody's body of events."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.engine.fake import fake_engine
from tests.engine.test_engine import pieces, settings
from wazuh_comms_trio.backends.engine import client, untaken
from wazuh_comms_trio.backends.engine.client import UnixEngine, open_engine_client
from wazuh_comms_trio.backends.engine.untaken import UntakenBodies
from wazuh_comms_trio.errors import BackendUnavailable, CommsError, EngineRefused, EngineRequestError, EngineTimeout
from wazuh_comms_trio.foundation.caches import refusal_cause

pytestmark = pytest.mark.real_clock

SIZES = [10, 100_000]


async def send(engine: UnixEngine, agent: str, size: int = 10, error: type[CommsError] | None = None) -> None:
    """``error``: what this raises."""
    with nullcontext() if error is None else pytest.raises(error):
        await engine.send_events(pieces(b"x" * size), agent_id=agent, length=size)


class TestUnanswered:
    """Every request for anything else is answered."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "_LONG", 0.0)

    @pytest.fixture
    def limit(self) -> float:
        return 0.5

    @pytest.mark.parametrize("given_up", [False, True], ids=["by the engine's limit", "by the request's"])
    @pytest.mark.parametrize("size", SIZES)
    async def test_it_is_not_ready_until_it_answers_one(
        self, tmp_path: Path, size: int, given_up: bool, limit: float
    ) -> None:
        limits = settings(tmp_path, timeout=100.0 if given_up else limit)
        async with fake_engine(tmp_path) as fake, open_engine_client(limits) as engine:

            async def hang(agent: str) -> None:
                with trio.move_on_after(limit if given_up else 100) as scope:
                    await send(engine, agent, size, EngineTimeout)
                assert not scope.cancelled_caught

            fake.stalls = is_post
            await hang("a")
            await hang("a")
            await engine.probe()  # it may be this agent's that the engine hangs at
            await hang("b")
            with pytest.raises(BackendUnavailable, match="events unanswered"):
                await engine.probe()
            await engine.scan(b"{}")
            with pytest.raises(BackendUnavailable, match="events unanswered"):
                await engine.probe()
            fake.stalls = None
            await send(engine, "a", size)
            await engine.probe()

    async def test_it_is_ready_when_nobody_has_tried_for_a_minute(
        self, tmp_path: Path, limit: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or a node that is sent nothing while it isn't ready never would be."""
        async with (
            fake_engine(tmp_path, stalls=is_post),
            open_engine_client(settings(tmp_path, timeout=limit)) as engine,
        ):
            for agent in ("a", "b"):
                await send(engine, agent, error=EngineTimeout)
            monkeypatch.setattr(untaken, "_HELD_FOR", 0.0)
            await engine.probe()
            await send(engine, "c", error=EngineTimeout)
            monkeypatch.undo()
            await engine.probe()  # those before are forgotten


class TestFailing:
    """Bodies of events are answered at once, and none is taken."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(untaken, "_LASTING", 0.0)

    @pytest.mark.parametrize(
        "ways", [{"status": status} for status in (302, 401, 404, 408, 429, 500, 503)] + [{"close_after": 1}], ids=str
    )
    @pytest.mark.parametrize("size", SIZES)
    async def test_it_is_not_ready_until_it_takes_one(self, tmp_path: Path, size: int, ways: dict[str, int]) -> None:
        async with fake_engine(tmp_path, **ways) as fake, open_engine_client(settings(tmp_path)) as engine:
            for _ in range(2):
                await send(engine, "a", size, EngineRequestError)
            await engine.probe()  # it may be this agent's that the engine fails at
            await send(engine, "b", size, EngineRequestError)
            with pytest.raises(BackendUnavailable, match="it takes no events"):
                await engine.probe()
            fake.status, fake.close_after = 204, None
            await send(engine, "c", size)
            await engine.probe()

    async def test_a_body_that_it_refuses_for_what_it_is_was_read(self, tmp_path: Path) -> None:
        async with fake_engine(tmp_path, status=500) as fake, open_engine_client(settings(tmp_path)) as engine:
            for agent in ("a", "b"):
                await send(engine, agent, error=EngineRequestError)
            fake.status = 400
            await send(engine, "a", error=EngineRefused)
            await engine.probe()


class TestUntakenBodies:
    async def test_a_start_is_no_failure(self, autojump_clock: MockClock) -> None:
        bodies = UntakenBodies()
        for agent in ("a", "b", "c"):
            bodies.failed(agent)
            await trio.sleep(2)
        assert bodies.reason() is None
        bodies.failed("d")
        assert bodies.reason() == "it takes no events"

    async def test_what_is_taken_in_between_counts(self, autojump_clock: MockClock) -> None:
        """One that has too much to do fails most, and takes some."""
        bodies = UntakenBodies()
        for number in range(100):
            bodies.failed(f"{number}")
            await trio.sleep(1)
            assert bodies.reason() is None
            if number % 4 == 0:
                bodies.taken()

    async def test_it_is_held_against_the_engine_for_a_minute(self, autojump_clock: MockClock) -> None:
        bodies = UntakenBodies()
        bodies.failed("a")
        await trio.sleep(30)
        bodies.failed("b")
        await trio.sleep(59)
        assert bodies.reason() is not None
        await trio.sleep(2)
        assert bodies.reason() is None
        bodies.failed("c")
        await trio.sleep(30)
        bodies.failed("c")
        assert bodies.reason() is None  # those before are forgotten


def is_post(target: bytes) -> bool:
    return target == b"/events/stateless"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 415, 431])
@pytest.mark.parametrize("size", SIZES)
async def test_a_refusal_of_all_refuses_none_for_good(tmp_path: Path, status: int, size: int) -> None:
    async with fake_engine(tmp_path, status=status), open_engine_client(settings(tmp_path)) as engine:
        for _ in range(3):
            for agent in ("a", "b"):
                await send(engine, agent, size, EngineRequestError)


async def test_a_second_refusal_of_all_refuses_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_cause, "_LATER", 0.0)
    async with fake_engine(tmp_path) as fake, open_engine_client(settings(tmp_path)) as engine:
        for _ in range(2):
            fake.status = 404
            for agent in ("a", "b"):
                await send(engine, agent, error=EngineRequestError)
            fake.status = 204
            for agent in ("a", "b"):
                await send(engine, agent)


async def test_one_whose_body_alone_is_refused_so_is_not_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_engine(tmp_path) as fake, open_engine_client(settings(tmp_path)) as engine:

        async def refuse(agent: str, error: type[CommsError]) -> None:
            fake.status = 403
            await send(engine, agent, error=error)
            fake.status = 204

        await send(engine, "b")
        await refuse("a", EngineRequestError)  # it may be that all are from now on
        await refuse("a", EngineRequestError)
        await send(engine, "b")
        await refuse("a", EngineRequestError)  # that one may have been on its way before
        monkeypatch.setattr(refusal_cause, "_LATER", 0.0)
        await refuse("a", EngineRefused)
        await refuse("a", EngineRequestError)  # its next body is another one
        await refuse("c", EngineRequestError)
