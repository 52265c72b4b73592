"""Starts and stops of every kind; ``scripts/soak starts`` does a thousand."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import suppress

import apsw
import pytest
import trio

from tests.e2e.processes import Files
from tests.supervisor.nodes import status
from tests.supervisor.soak.starts import KINDS, prepare, started
from wazuh_comms_trio.testing import ExchangeFailed, stateful_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]


@pytest.mark.parametrize("workers", [1, 2])
async def test_every_kind_of_start_and_stop(workers: int, make_files: Callable[..., Files]) -> None:
    place = await prepare(make_files())
    rng = random.Random(workers)
    for name in KINDS:
        await place.start_and_stop(name, workers, rng)


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_stop_before_anything_serves(workers: int, make_files: Callable[..., Files]) -> None:
    """With four, two wait for the first one to serve."""
    place = await prepare(make_files(workers=workers))
    async with started(place.files, workers) as daemon:
        if workers > 1:
            await daemon.children(1)
        daemon.term()
        assert await daemon.ended() in (0, -signal.SIGTERM)


@pytest.mark.parametrize("workers", [1, 2])
async def test_signals_that_come_while_it_leaves_change_nothing(workers: int, make_files: Callable[..., Files]) -> None:
    place = await prepare(make_files(workers=workers))
    async with started(place.files, workers) as daemon:
        await daemon.up()
        number = signal.SIGTERM
        while daemon.process.returncode is None:  # until it is gone
            daemon.process.send_signal(number)
            number = signal.SIGTERM if number == signal.SIGINT else signal.SIGINT
            await trio.sleep(0.003)
        assert await daemon.ended() == 0
        assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_doesnt_wait_for_a_locked_database(
    workers: int, make_files: Callable[..., Files]
) -> None:
    place = await prepare(make_files(workers=workers))
    async with started(place.files, workers) as daemon:
        await daemon.up()
        agent = place.agent
        agent.token = place.mint()
        event = stateful_event("a", "fim", "create", {"n": 1})
        assert (await agent.post_stateful([event])).status == 200
        locked = apsw.Connection(str(place.files.state / "state.db"))
        locked.execute("BEGIN EXCLUSIVE")

        async def send() -> None:
            with suppress(ExchangeFailed):
                assert (await agent.post_stateful([event])).status == 503

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while sum(worker["connections"] for worker in (await status(place.files))["workers"]) < 1:  # noqa: ASYNC110
                await trio.sleep(0.02)
            daemon.term()
            began = trio.current_time()
            await trio.sleep(0.1)
            daemon.term()
            assert await daemon.ended() == 0
        assert trio.current_time() - began < 3.5
        locked.close()
