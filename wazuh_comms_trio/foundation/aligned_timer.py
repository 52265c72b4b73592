"""One beat for everything that is done again and again."""

from __future__ import annotations

from math import floor

import trio

__all__ = ["beat_after", "next_beat"]


def beat_after(interval: float) -> float:
    """The next multiple of ``interval`` seconds on trio's clock: see ``next_beat``."""
    now = trio.current_time()
    number = floor(now / interval) + 1
    due = number * interval
    return due if due > now else (number + 1) * interval  # a quotient that was rounded down: that beat is now


async def next_beat(interval: float) -> float:
    """Sleeps until trio's clock has the next multiple of ``interval`` seconds, and returns that. Whatever a process
    does every second it does at the same moment, for which it wakes up once: what an idle process costs is mostly its
    waking."""
    due = beat_after(interval)
    await trio.sleep_until(due)
    return due
