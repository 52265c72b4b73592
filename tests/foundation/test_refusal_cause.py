"""What is refused for itself, and what since all are."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from wazuh_comms_trio.foundation.caches.refusal_cause import RefusalCause

LATER = 11.0


async def test_it_alone(autojump_clock: MockClock) -> None:
    cause = RefusalCause()
    assert not cause.is_its_own("a")
    await trio.sleep(LATER)
    assert not cause.is_its_own("a")  # nobody's was taken
    await trio.sleep(LATER)
    cause.taken(["b"])
    assert cause.is_its_own("a")
    assert not cause.is_its_own("a")  # its next one is another one


async def test_what_was_taken_in_the_end_begins_anew(autojump_clock: MockClock) -> None:
    """When all are refused for the second time, a day later, that says nothing of those that were refused before."""
    cause = RefusalCause()
    for _ in range(2):
        assert not any(cause.is_its_own(key) for key in "abc")
        await trio.sleep(86400)
        for key in "abc":
            cause.taken([key])
        await trio.sleep(1)


async def test_what_is_taken_now_and_then(autojump_clock: MockClock) -> None:
    """All are refused but for a while, too short for those to come again that were refused before it; nor are they
    found out by their number, or in which order they come."""
    cause = RefusalCause()
    assert not any(cause.is_its_own(key) for key in "abc")
    for keys in ("xbca", "yca"):
        await trio.sleep(LATER)
        cause.taken(["d"])
        await trio.sleep(1)
        assert not any(cause.is_its_own(key) for key in keys)
