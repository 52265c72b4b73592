"""How long tokens are good, so that agents that logged in at one moment don't do it again at one, every quarter of an
hour, for ever.

Each agent has a phase, by its uuid, and tokens end in it: an agent that renews its token has the next one for a whole
round. One that comes at any other moment, with all of its fleet after an outage perhaps, is given one that ends in its
phase, or half a round before it does for the next time.

Nothing is remembered: who comes before its last token's end is known by the last log-in, which the registry has for
all workers and nodes.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from wazuh_comms_trio.services.authentication.tokens import LIFETIME

__all__ = ["EARLY", "ROUND", "SHORTEST", "life_at", "next_life"]

#: Seconds from one token's end to the next one's. Agents renew theirs 2 s before its end, by their own clock: if that
#: is ahead by less than the rest of a token's life, they find a whole round.
ROUND: Final = 870
#: Seconds: what is given is good for so long at least. An agent's clock may be ahead.
SHORTEST: Final = 300
#: Who comes so long before the last token's end, seconds, doesn't go by it.
EARLY: Final = LIFETIME - ROUND


def life_at(uuid: str, now: int) -> int:
    """How long an agent's token is good that is given at ``now`` (epoch seconds) and ends in its phase. Pure."""
    left = _until_phase(uuid, now)
    if left <= EARLY:
        return left + ROUND
    return left if left >= SHORTEST else left + ROUND // 2


def next_life(uuid: str, now: int, last_login: float | None) -> int:
    """How long an agent's token is good that is given at ``now``. One that comes long before its last token's end,
    whose clock is ahead, or which was started anew, has a whole life: else a clock far ahead would find each token
    ended, and log in all the time. Pure."""
    if last_login is None or not last_login <= now < last_login + ROUND:
        return life_at(uuid, now)
    # The last token may have ended in the phase, or had a whole life: then its agent, which comes before the end of
    # that, hardly ever comes about when a phase, or half a round, begins.
    early = now < int(last_login) + life_at(uuid, int(last_login)) - EARLY
    amid = (_until_phase(uuid, now) + EARLY) % (ROUND // 2) > 2 * EARLY
    return LIFETIME if early or amid else life_at(uuid, now)


def _until_phase(uuid: str, now: int) -> int:
    return (crc32(uuid.encode()) - now) % ROUND
