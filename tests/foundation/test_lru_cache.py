"""What wasn't asked for longest goes first."""

from __future__ import annotations

from wazuh_comms_trio.foundation.caches.lru_cache import LruCache


def test_what_was_asked_for_stays() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert (cache.get("b"), len(cache)) == (None, 2)


def test_looking_whether_something_is_there_is_no_use_of_it() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert "a" in cache
    cache.put("c", 3)
    assert "a" not in cache


def test_what_is_put_again_counts_as_used() -> None:
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 10)
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b")) == (10, None)


def test_dropped_and_cleared() -> None:
    cache: LruCache[str, int] = LruCache(3)
    for key in "abc":
        cache.put(key, 1)
    cache.drop("b")
    cache.drop("b")
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0
