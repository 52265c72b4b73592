"""Starts and stops of every kind; ``scripts/soak starts`` does a thousand."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest
import trio

from tests.e2e.processes import Files
from tests.supervisor.starts import KINDS, prepare, started

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
