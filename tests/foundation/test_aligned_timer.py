"""The aligned timer: everything regular happens at multiples of its interval, and time goes on from one to the next."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.foundation.aligned_timer import next_tick, sleep_until_next_tick


@pytest.mark.parametrize("interval", [0.5, 1.0, 10.0, 0.1, 10 / 3, 20 / 3, 17.549866783038865])
async def test_each_beat_is_one_interval_after_the_last(autojump_clock: MockClock, interval: float) -> None:
    """Also where a multiple divided by the interval is a little less than the number it was made of."""
    last = await sleep_until_next_tick(interval)
    for _ in range(3000):
        tick = await sleep_until_next_tick(interval)
        assert tick - last == pytest.approx(interval)
        assert trio.current_time() == pytest.approx(tick)
        last = tick


async def test_who_comes_in_between_waits_for_the_next_one(autojump_clock: MockClock) -> None:
    await sleep_until_next_tick(2.0)
    began = trio.current_time()
    await trio.sleep(0.5)
    assert next_tick(2.0) == began + 2.0
    assert await sleep_until_next_tick(2.0) == trio.current_time() == began + 2.0
