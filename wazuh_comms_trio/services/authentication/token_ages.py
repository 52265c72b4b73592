"""How long tokens are good, so that agents that logged in at one moment don't do it again at one, every quarter of an
hour, for ever.

Each agent has a phase, by its uuid, and tokens end in it: an agent that renews its token has the next one for a whole
round. One that comes at any other moment, with all of its fleet after an outage perhaps, is given one that ends in its
phase, or half a round before it does for the next time.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from wazuh_comms_trio.foundation.caches.bounded_cache import AGENTS_REMEMBERED, BoundedCache
from wazuh_comms_trio.services.authentication.tokens import LIFETIME

__all__ = ["EARLY", "ROUND", "SHORTEST", "TokenAges", "life_at"]

#: Seconds from one token's end to the next one's. Agents renew theirs 2 s before its end, by their own clock: if that
#: is ahead by less than the rest of a token's life, they find a whole round.
ROUND: Final = 870
#: Seconds: what is given is good for so long at least. An agent's clock may be ahead.
SHORTEST: Final = 300
#: Who comes so long before the last token's end, seconds, doesn't go by it.
EARLY: Final = LIFETIME - ROUND


def life_at(uuid: str, now: int) -> int:
    """How long an agent's token is good that is given at ``now`` (epoch seconds). Pure."""
    left = (crc32(uuid.encode()) - now) % ROUND  # until its phase
    if left <= EARLY:
        return left + ROUND
    return left if left >= SHORTEST else left + ROUND // 2


class TokenAges:
    """How long the next token of each agent is good."""

    def __init__(self) -> None:
        # Some 200 bytes each: at most 20 MB, for a hundred thousand agents.
        self._ends: BoundedCache[str, int] = BoundedCache(AGENTS_REMEMBERED)

    def next_life(self, uuid: str, now: int) -> int:
        """Seconds. One that comes long before its last token's end, whose clock is ahead, or which was started anew,
        has a whole life: else a clock far ahead would find each token ended, and log in all the time."""
        last = self._ends.get(uuid)
        life = LIFETIME if last is not None and now < last - EARLY else life_at(uuid, now)
        self._ends.put(uuid, now + life)
        return life
