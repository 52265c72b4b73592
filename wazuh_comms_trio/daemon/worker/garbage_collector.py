"""The garbage collector, set for a process that holds thousands of connections and makes hardly any garbage."""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["calm_collector"]

#: Container objects that come before the youngest generation is looked through, and how often that happens before the
#: older ones are. Python's own figures (700, 10, 10) look through everything several times a second here: with 10 000
#: parked polls, 100 ms each. What a request leaves is freed by counting references; the little that isn't is some
#: hundred bytes.
THRESHOLDS: Final = (20_000, 20, 100)


def calm_collector() -> None:
    """To be called once everything is imported and set up: that stays, and needn't be looked through again."""
    if gc.isenabled():
        gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
