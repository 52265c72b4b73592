"""When it is full an entry at random goes, so that no order of use is the worst."""

from __future__ import annotations

import random

import pytest

from wazuh_comms_trio.foundation.caches.bounded_cache import BoundedCache

SIZE = 500


def test_an_entry_is_what_was_put_last() -> None:
    cache: BoundedCache[str, int] = BoundedCache(3)
    assert cache.get("a") is None
    assert cache.put("a", 1) is None
    assert cache.put("b", 0) is None
    assert cache.put("a", 10) is None
    assert (cache.get("a"), cache.get("b"), len(cache)) == (10, 0, 2)
    assert "b" in cache
    cache.clear()
    assert (cache.get("a"), len(cache)) == (None, 0)


def test_what_had_to_go_is_told() -> None:
    cache: BoundedCache[int, str] = BoundedCache(SIZE)
    there = {number: str(number) for number in range(SIZE)}
    for number, text in there.items():
        assert cache.put(number, text) is None
    for number in range(SIZE, 4 * SIZE):
        gone = cache.put(number, str(number))
        assert gone is not None
        there[number] = str(number)
        assert there.pop(gone[0]) == gone[1]
        assert gone[0] not in cache
    assert len(cache) == SIZE
    assert {number: cache.get(number) for number in there} == there


def test_dropped_ones_make_room() -> None:
    """Any of them, in any order, as a dictionary would."""
    rng = random.Random(1)
    cache: BoundedCache[int, int] = BoundedCache(SIZE)
    there: dict[int, int] = {}
    for step in range(10_000):
        key = rng.randrange(2 * SIZE)
        if rng.random() < 0.5:
            cache.drop(key)
            there.pop(key, None)
        else:
            gone = cache.put(key, step)
            assert gone is None or len(there) == SIZE
            if gone is not None:
                del there[gone[0]]
            there[key] = step
        assert len(cache) == len(there)
    assert {key: cache.get(key) for key in there} == there


def missed(agents: int) -> float:
    """The share of looks that found nothing, when so many agents come round and round."""
    random.seed(1)
    cache: BoundedCache[int, bool] = BoundedCache(SIZE)
    misses = 0
    for turn in range(10):
        for agent in range(agents):
            if cache.get(agent) is None:
                cache.put(agent, True)
                misses += turn > 4
    return misses / (5 * agents)


def test_above_its_size_the_cost_grows_smoothly() -> None:
    shares = [missed(int(SIZE * ratio)) for ratio in (1, 1.02, 1.1, 1.25, 1.5, 2, 4)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    # One that forgets what wasn't used longest has 1.0 for all the others.
    assert shares[1:] == pytest.approx([0.03, 0.18, 0.37, 0.59, 0.80, 0.98], abs=0.05)
