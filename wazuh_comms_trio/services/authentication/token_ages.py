"""How long tokens are good, so that agents that logged in at one moment don't do it again at one, every quarter of an
hour, for ever.

Each agent has a phase, by its uuid, and tokens end in it: an agent that renews its token has the next one for a whole
round. One that comes at any other moment, with all of its fleet after an outage perhaps, is given one that ends in its
phase, or half a round before it does for the next time.

Nothing is remembered: who comes just after its last log-in is known by that, which the registry has for all workers
and nodes.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from wazuh_comms_trio.services.authentication.tokens import LIFETIME

__all__ = ["EARLY", "ROUND", "SHORTEST", "SOON", "life_at", "next_life"]

#: Seconds from one token's end to the next one's. Agents renew theirs 2 s before its end, by their own clock: if that
#: is ahead by less than the rest of a token's life, they find a whole round.
ROUND: Final = 870
#: Seconds: what is given is good for so long at least. An agent's clock may be ahead.
SHORTEST: Final = 300
#: Seconds: who comes so long before its phase begins is taken to be in it.
EARLY: Final = LIFETIME - ROUND
#: Seconds after its last log-in: of a fleet that comes back at once so few were here so lately that they make no wave.
SOON: Final = 20


def life_at(uuid: str, now: int) -> int:
    """How long an agent's token is good that is given at ``now`` (epoch seconds) and ends in its phase. Pure."""
    left = _until_phase(uuid, now)
    if left <= EARLY:
        return left + ROUND
    return left if left >= SHORTEST else left + ROUND // 2


def next_life(uuid: str, now: int, last_login: float | None) -> int:
    """How long an agent's token is good that is given at ``now``. One that comes just after its last log-in finds the
    token of then ended, by a clock far ahead, or was started anew: it has a whole life, or it would log in all the
    time (about 485 s ahead it does so three times as often as it must, the worst). Nobody else has, however early it
    comes: in an outage a whole fleet comes early, and would again, as one wave. Pure."""
    if last_login is not None and last_login <= now < last_login + SOON:
        return LIFETIME
    return life_at(uuid, now)


def _until_phase(uuid: str, now: int) -> int:
    return (crc32(uuid.encode()) - now) % ROUND
