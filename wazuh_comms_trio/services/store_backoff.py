"""The pauses between tries of a store that is unavailable."""

from __future__ import annotations

from random import Random
from typing import Final

from wazuh_comms_trio.foundation.backoff import Backoff

__all__ = ["store_backoff"]

_FIRST: Final = 0.1
_LONGEST: Final = 2.0


def store_backoff(rng: Random) -> Backoff:
    """From 0.1 s to 2 s, each between a half and the whole of itself so that tries don't come in waves."""
    return Backoff(_FIRST, _LONGEST, rng=rng)
