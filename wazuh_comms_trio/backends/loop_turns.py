"""Turns of the event loop that go by so that tasks get on which are about to ask for the same.

What is done in a thread, or on a disk, costs the processor hardly more for many than for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["MOST_TURNS", "PATIENCE", "SHORT_TURN", "SHORT_TURNS", "pass_turns"]

#: So many turns go by, and none begins after so many seconds; but few that take less than ``SHORT_TURN``, in which
#: hardly anything was done.
MOST_TURNS: Final = 8
PATIENCE: Final = 0.004
SHORT_TURN: Final = 0.0001
SHORT_TURNS: Final = 2


async def pass_turns(goes_on: Callable[[], bool] = lambda: True) -> None:
    """Lets turns go by, as long as ``goes_on``, which is asked before each."""
    now = trio.current_time()
    end = now + PATIENCE
    turns = short = 0
    while turns < MOST_TURNS and short < SHORT_TURNS and now < end and goes_on():
        began = now
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        turns += 1
        short += now - began < SHORT_TURN
