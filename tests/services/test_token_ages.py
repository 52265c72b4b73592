"""When tokens end: agents that logged in at one moment do so again at many."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf, nan
from uuid import UUID

import pytest

from tests.services.bench import EPOCH
from wazuh_comms_trio.services.authentication.token_ages import EARLY, ROUND, SHORTEST, life_at, next_life
from wazuh_comms_trio.services.authentication.tokens import LIFETIME

NOW = int(EPOCH)
DAY = 86_400
AGENTS = [str(UUID(int=number)) for number in range(1000)]


def test_a_fleet_of_one_moment_is_spread_by_its_second_tokens() -> None:
    ends = Counter[int]()
    for agent in AGENTS:
        first = life_at(agent, NOW)
        assert SHORTEST <= first <= LIFETIME
        second = NOW + first - 2 + life_at(agent, NOW + first - 2)
        ends[second % ROUND * 10 // ROUND] += 1
    assert len(ends) == 10
    assert max(ends.values()) < 1.3 * len(AGENTS) / 10


@pytest.mark.parametrize("before_its_end", [0, 2, EARLY - 1, EARLY])
def test_who_renews_its_token_has_it_for_a_round(before_its_end: int) -> None:
    """Agents renew it 2 s before the end, by clocks that aren't quite right."""
    for agent in AGENTS:
        last, now, ends = None, NOW, list[int]()
        for _ in range(5):
            ends.append(now + next_life(agent, now, last))
            last, now = now, ends[-1] - before_its_end
        assert [later - sooner for sooner, later in pairwise(ends[1:])] == [ROUND] * 3  # the first may be half of one


@pytest.mark.parametrize("late", [1, 10, 600, 10_000])
def test_who_comes_late_ends_in_its_phase_again(late: int) -> None:
    for agent in AGENTS:
        last = NOW + life_at(agent, NOW)  # in its phase, or half a round from it
        now = last + next_life(agent, last, NOW) + late
        assert next_life(agent, now, last) == life_at(agent, now)


def test_a_fleet_that_comes_back_early_is_no_wave_again() -> None:
    """All agents log in within 5 s, whatever is left of their tokens: after a new key for these, or an outage. A
    quarter of an hour later they come spread over seven minutes, and from then on all the time."""
    windows, minute = Counter[int](), 60
    for number, agent in enumerate(AGENTS):
        last, now = NOW - ROUND * number // len(AGENTS), NOW + number % 5
        while now < NOW + 2 * 3600:
            windows[(now - NOW) // minute] += 1
            last, now = now, now + next_life(agent, now, last) - 2
    mean = len(AGENTS) * minute / ROUND
    assert windows.pop(0) == len(AGENTS)
    assert max(windows[each] for each in range(1, 60)) < 2.5 * mean
    assert max(windows[each] for each in range(60, 120)) < 1.6 * mean


def log_ins_a_day(agent: str, ahead: int) -> float:
    """In times of those with tokens of 900 s. An agent renews its token 2 s before the end."""
    last, now, log_ins = None, NOW, 0
    while now < NOW + DAY:
        log_ins += 1
        last, now = now, max(now + 1, now + next_life(agent, now, last) - 2 - ahead)
    return (log_ins - 2) * (LIFETIME - 2 - ahead) / DAY


@pytest.mark.parametrize("ahead", [29, 31, 60, 133, 250, 299, 350, 434, 450, 600, 800])
def test_a_clock_that_is_far_ahead_logs_in_twice_as_often_as_it_must(ahead: int) -> None:
    """At most."""
    assert max(log_ins_a_day(agent, ahead) for agent in AGENTS[:100]) <= 2.1


def test_a_clock_that_is_far_ahead_logs_in_three_times_as_often_as_it_must() -> None:
    """At most, whichever it is: about 485 s are the worst."""
    assert 2.5 < max(log_ins_a_day(AGENTS[ahead], ahead) for ahead in range(LIFETIME - 10)) <= 3


def test_a_log_in_that_is_yet_to_come_says_nothing() -> None:
    """A clock was put back."""
    for agent in AGENTS:
        for last in (NOW + 1, NOW + 10_000, inf, nan):
            assert next_life(agent, NOW, last) == life_at(agent, NOW)
