"""Pauses that grow: each the double of the one before, up to the longest."""

from __future__ import annotations

from random import Random

import pytest

from wazuh_comms_trio.foundation.backoff import Backoff, pause_after


def test_each_pause_is_twice_the_last_until_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_pause() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_after_a_success_they_begin_again() -> None:
    backoff = Backoff(1.0, 10.0, factor=3.0)
    assert [backoff.next_pause() for _ in range(3)] == [1.0, 3.0, 9.0]
    backoff.reset()
    assert backoff.next_pause() == 1.0


def test_the_jitter_spreads_them_within_its_bounds() -> None:
    rng = Random(1)
    seen = [Backoff(2.0, 8.0, jitter=(0.75, 1.25), rng=rng).next_pause() for _ in range(200)]
    assert 1.5 <= min(seen) < 1.6
    assert 2.4 < max(seen) <= 2.5


@pytest.mark.parametrize("failures", [0, 3, 1023, 1024, 10_000, 10**30])
def test_no_number_of_failures_is_too_many(failures: int) -> None:
    assert pause_after(failures, first=0.5, longest=4.0) == (0.5 if failures == 0 else 4.0)
