"""When tokens end: agents that logged in at one moment do so again at many."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from uuid import UUID

import pytest

from tests.services.bench import EPOCH
from wazuh_comms_trio.services.authentication.token_ages import EARLY, ROUND, SHORTEST, TokenAges, life_at
from wazuh_comms_trio.services.authentication.tokens import LIFETIME

NOW = int(EPOCH)
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
        ages, now, ends = TokenAges(), NOW, list[int]()
        for _ in range(5):
            ends.append(now + ages.next_life(agent, now))
            now = ends[-1] - before_its_end
        assert [later - sooner for sooner, later in pairwise(ends[1:])] == [ROUND] * 3  # the first may be half of one


@pytest.mark.parametrize("ahead", [60, 250, 299, 600, 890])
def test_a_clock_that_is_far_ahead_logs_in_no_more_than_it_would(ahead: int) -> None:
    for agent in AGENTS[:100]:
        ages, now, log_ins = TokenAges(), NOW, 0
        while now < NOW + 10 * LIFETIME:
            log_ins += 1
            now = max(now + 1, now + ages.next_life(agent, now) - 2 - ahead)
        assert log_ins <= 10 * LIFETIME / (LIFETIME - 2 - ahead) + 2
