"""One timer for everything that a process does again and again: its ticks are the multiples of an interval."""

from __future__ import annotations

from math import floor

import trio

__all__ = ["next_tick", "sleep_until_next_tick"]


def next_tick(interval: float) -> float:
    """The next multiple of ``interval`` seconds on trio's clock: see ``sleep_until_next_tick``."""
    now = trio.current_time()
    number = floor(now / interval) + 1
    due = number * interval
    return due if due > now else (number + 1) * interval  # a quotient that was rounded down: that tick is now


async def sleep_until_next_tick(interval: float) -> float:
    """Sleeps until trio's clock has the next multiple of ``interval`` seconds, and returns that. Whatever a process
    does every second it does at the same moment, for which it wakes up once: what an idle process costs is mostly its
    waking."""
    due = next_tick(interval)
    await trio.sleep_until(due)
    return due
