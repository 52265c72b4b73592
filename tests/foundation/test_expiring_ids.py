"""Ids that are remembered for a time."""

from __future__ import annotations

from trio.testing import MockClock

from wazuh_comms_trio.foundation.caches.expiring_ids import ExpiringIds


async def test_each_until_its_seconds_have_passed(mock_clock: MockClock) -> None:
    ids = ExpiringIds(10)
    ids.add("short", 1)
    ids.add("long", 5)
    ids.add("past", -1)
    assert [name for name in ("short", "long", "past", "unknown") if name in ids] == ["short", "long"]
    mock_clock.jump(1)
    assert "short" not in ids
    assert "long" in ids
    ids.forget()
    assert len(ids) == 1


async def test_again_is_from_now_on(mock_clock: MockClock) -> None:
    ids = ExpiringIds(10)
    ids.add("a", 2)
    mock_clock.jump(1)
    ids.add("a", 2)
    mock_clock.jump(1.5)
    ids.forget()
    assert "a" in ids
    assert len(ids) == 1
    mock_clock.jump(1)
    assert "a" not in ids


async def test_of_too_many_the_nearest_to_their_end_go(mock_clock: MockClock) -> None:
    ids = ExpiringIds(3)
    for seconds in (50, 10, 40, 20, 30):
        ids.add(str(seconds), seconds)
    assert [name for name in ("10", "20", "30", "40", "50") if name in ids] == ["30", "40", "50"]
