"""Checks secrets against their stored hashes: off the event loop, a few at a time, and not again within the hour."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Hashable
from typing import Final

import trio
from attrs import define, frozen

from wazuh_comms_trio.foundation.bounded_cache import AGENTS_REMEMBERED, BoundedCache
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.services.authentication.secret_hashes import key_matches

__all__ = ["VerifiedSecrets"]

#: How long a secret that was right needn't be hashed again, seconds.
_REMEMBERED_FOR: Final = 3600.0
# An entry is some 450 bytes: at most 45 MB, for a hundred thousand agents.
#: How long a secret that was wrong needn't be hashed again, seconds: an agent with an old key tries it every 30 s.
_REMEMBERED_WRONG_FOR: Final = 300.0
# Some 260 bytes each: at most 9 MB.
_REMEMBERED_WRONG: Final = 32768


@frozen
class _Verified:
    """A secret that was right. ``mark`` is a keyed digest of owner, stored hash and secret: it proves nothing to anyone
    else."""

    mark: bytes
    until: float


@define
class _Turn:
    """Secrets of one turn are checked one after the other: a flood in one turn holds up only that turn."""

    lock: trio.Lock
    users: int = 0


class VerifiedSecrets:
    """Checks secrets, and remembers those that were right, and for a while (``remember_wrong``) those that were not."""

    def __init__(self, run_blocking: RunBlocking, *, at_once: int | None = None, remember_wrong: bool = False) -> None:
        self._remember_wrong = remember_wrong
        self._run_blocking = run_blocking
        # Hashing is CPU and nothing else: more threads than processors only delay everything else.
        self._limiter = trio.Semaphore(at_once or max(1, min(4, os.cpu_count() or 1)))
        self._verified: BoundedCache[str, _Verified] = BoundedCache(AGENTS_REMEMBERED)
        self._wrong: BoundedCache[bytes, float] = BoundedCache(_REMEMBERED_WRONG)
        self._turns: dict[Hashable, _Turn] = {}
        self._secret = os.urandom(32)

    def _mark(self, owner: str, stored: str, secret: str) -> bytes:
        digest = hashlib.blake2b(key=self._secret, digest_size=32)
        for part in (owner, stored, secret):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(raw))
            digest.update(raw)
        return digest.digest()

    def _is_known(self, owner: str, mark: bytes) -> bool:
        verified = self._verified.get(owner)
        if verified is None or verified.until <= trio.current_time():
            return False
        return hmac.compare_digest(verified.mark, mark)

    def are_verified(self, owner: str, stored: str, secret: str) -> bool:
        """Whether ``matches`` said so within the hour; at once."""
        return self._is_known(owner, self._mark(owner, stored, secret))

    def _was_wrong(self, mark: bytes) -> bool:
        until = self._wrong.get(mark)
        return until is not None and until > trio.current_time()

    async def matches(self, owner: str, stored: str, secret: str, *, turn: Hashable = None) -> bool:
        """Whether ``secret`` is what ``stored`` was made of. Changing ``stored`` makes the proof worthless, and the
        memory of what was wrong. ``turn``: those with the same one are checked one after the other; by default those of
        one owner are.
        """
        mark = self._mark(owner, stored, secret)
        if self._is_known(owner, mark):
            return True
        if self._was_wrong(mark):
            return False
        turn = owner if turn is None else turn
        own_turn = self._turns.setdefault(turn, _Turn(trio.Lock()))
        own_turn.users += 1
        try:
            async with own_turn.lock:
                if self._is_known(owner, mark):  # meanwhile
                    return True
                if self._was_wrong(mark):
                    return False
                async with self._limiter:
                    right = await self._run_blocking(key_matches, secret, stored)
                if right:
                    self._verified.put(owner, _Verified(mark, trio.current_time() + _REMEMBERED_FOR))
                elif self._remember_wrong:
                    self._wrong.put(mark, trio.current_time() + _REMEMBERED_WRONG_FOR)
                return right
        finally:
            own_turn.users -= 1
            if not own_turn.users:
                del self._turns[turn]
