"""Verified secrets: secrets are checked against their stored hashes off the event loop, a few at a time, and not again
within the hour."""

from __future__ import annotations

import hmac
import os
from collections.abc import Hashable
from functools import partial
from math import inf
from typing import Final

import trio
from attrs import define, field, frozen

from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.foundation.backoff import even_share, pause_after
from wazuh_comms_trio.foundation.caches.bounded_cache import AGENTS_REMEMBERED, BoundedCache
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.services.authentication.hashing_queue import HashingQueue
from wazuh_comms_trio.services.authentication.secret_hashes import is_own_form, key_matches, secret_mark
from wazuh_comms_trio.services.authentication.verified_keys import VerifiedKeys

__all__ = ["VerifiedSecrets"]

#: How long a secret that was right needn't be hashed again, seconds.
_REMEMBERED_FOR: Final = 3600.0
# An entry is some 450 bytes: at most 45 MB, for a hundred thousand agents.
#: How long a secret that was wrong needn't be hashed again, seconds: an agent with an old key tries it every 30 s.
_REMEMBERED_WRONG_FOR: Final = 300.0
# Some 260 bytes each: at most 9 MB.
_REMEMBERED_WRONG: Final = 32768
#: A source that guesses: so many wrong secrets, none later than that after the one before, seconds. It isn't locked
#: out: its secrets are checked one after the other, on one processor.
_MANY: Final = 8
_GUESSING_FOR: Final = 10.0
#: An agent whose key is guessed, from many places: so many wrong ones for it, in the same sense. It isn't locked out
#: either: its keys are checked one after the other, wherever they come from.
_MANY_FOR_ONE: Final = 16
#: ... and so many of it are checked beside each other at most.
_TURNS_OF_ONE: Final = 4
#: The longest wait of the answers to a guesser's wrong secrets, seconds; each waits longer than the one before.
_LONGEST_PAUSE: Final = 4.0
#: Answers that wait so at a time: each has a connection.
_PAUSED: Final = 256
#: Secrets that wait for one turn. On a quiet machine that is a quarter of a second.
_TURN: Final = 16
# Some 200 bytes each: at most 2 MB.
_SOURCES: Final = 8192
#: Seconds for which a secret may wait at most that counts as checked at once.
_PROMPT: Final = 1.0
#: ... and for which it may wait where no others come.
_LATE: Final = 12.0
#: Seconds after which agents come back in any case.
_COME_BACK: Final = 30


@frozen
class _Verified:
    """A secret that was right. ``mark`` is a keyed digest of owner, stored hash and secret: it proves nothing to anyone
    else."""

    mark: bytes
    until: float
    #: Python's hash of the stored one, where no other secret than this has to be looked at; None: others are hashed.
    only_for: int | None


@define
class _Guesses:
    """Wrong secrets from one source, or for one owner, none of them long after the one before."""

    count: int = 0
    last: float = 0.0


@define
class _Turn:
    """Secrets of one turn are checked one after the other: a flood in one turn holds up only that turn."""

    owner: str
    lock: trio.Lock = field(factory=trio.Lock)
    users: int = 0


class VerifiedSecrets:
    """Checks secrets, and remembers those that were right, and for a while (``remember_wrong``) those that were not.
    ``verified_keys``: the agents' keys that were right before this process began."""

    def __init__(
        self,
        run_blocking: RunBlocking,
        *,
        at_once: int | None = None,
        remember_wrong: bool = False,
        verified_keys: VerifiedKeys | None = None,
    ) -> None:
        self._verified_keys = verified_keys
        self._remember_wrong = remember_wrong
        self._run_blocking = run_blocking
        # Hashing is CPU and nothing else: more threads than processors only delay everything else.
        self._queue = HashingQueue(at_once or max(1, min(4, os.cpu_count() or 1)))
        self._measured = trio.Event()
        self._held = 0
        self._paused = 0
        #: Secrets that couldn't be checked in time, or at once, ever.
        self.refused: int = 0
        #: Secrets that were refused without being checked.
        self._unchecked: BoundedCache[bytes, float] = BoundedCache(_REMEMBERED_WRONG)
        self._wrong_from: BoundedCache[Hashable, _Guesses] = BoundedCache(_SOURCES)
        self._wrong_for: BoundedCache[Hashable, _Guesses] = BoundedCache(_SOURCES)
        self._verified: BoundedCache[str, _Verified] = BoundedCache(AGENTS_REMEMBERED)
        self._wrong: BoundedCache[bytes, float] = BoundedCache(_REMEMBERED_WRONG)
        self._turns: dict[Hashable, _Turn] = {}
        self._turns_of: dict[str, int] = {}  # how many there are, by whose secret made them
        self._secret = os.urandom(32)

    def _mark(self, owner: str, stored: str, secret: str) -> bytes:
        return secret_mark(self._secret, owner, stored, secret, size=32)

    def _is_known(self, owner: str, mark: bytes) -> bool:
        verified = self._verified.get(owner)
        if verified is None or verified.until <= trio.current_time():
            return False
        return hmac.compare_digest(verified.mark, mark)

    def room(self, *, late: bool = False) -> float:
        """How many more could be checked at once, or before an agent that isn't comes again."""
        if not self._queue.seconds:
            return inf
        each = max(1.0, (_LATE if late else _PROMPT) / self._queue.seconds)
        return each * self._queue.at_once - len(self._turns)

    def are_verified(self, owner: str, stored: str, secret: str) -> bool:
        """Whether ``matches`` said so within the hour; at once."""
        return self._is_known(owner, self._mark(owner, stored, secret))

    def _is_another(self, owner: str, stored: str) -> bool:
        """Whether a secret that isn't known must be wrong, since the right one is, and nobody guesses that: so wrong
        keys for agents that are at work cost no hashing."""
        verified = self._verified.get(owner)
        return (
            verified is not None and verified.until > trio.current_time() and verified.only_for == hash((owner, stored))
        )

    def _was_wrong(self, mark: bytes) -> bool:
        until = self._wrong.get(mark)
        return until is not None and until > trio.current_time()

    async def matches(
        self,
        owner: str,
        stored: str,
        secret: str,
        *,
        turn: Hashable = None,
        source: Hashable = None,
        wait_limit: float = inf,
    ) -> bool:
        """Whether ``secret`` is what ``stored`` was made of. Changing ``stored`` makes the proof worthless, and the
        memory of what was wrong. ``turn``: those with the same one are checked one after the other; by default those of
        one owner are. All from a ``source`` that guesses are one turn. Raises ``Overloaded`` when its turn would come
        only after ``wait_limit`` seconds: at a moment of these, and no two of many at the same, also when that is
        foreseen only while it waits.
        """
        latest = trio.current_time() + wait_limit
        mark = self._mark(owner, stored, secret)
        if self._is_known(owner, mark):
            return True
        if self._verified_keys is not None and self._verified_keys.knows(owner, stored, secret):
            self._remember(owner, stored, secret, mark)
            return True
        if self._was_wrong(mark):
            return False
        if self._remember_wrong and self._is_another(owner, stored):
            self._wrong.put(mark, trio.current_time() + _REMEMBERED_WRONG_FOR)
            await self._pause_after_guess(owner, source)
            return False
        wanted = owner if turn is None else turn
        await self._hold_back(self._turn(wanted, owner, source), mark, wait_limit)
        turn = self._turn(wanted, owner, source)  # others that came at the same moment have theirs by now
        if (own_turn := self._turns.get(turn)) is None:
            own_turn = self._turns[turn] = _Turn(owner)
            self._turns_of[owner] = self._turns_of.get(owner, 0) + 1
        own_turn.users += 1
        try:
            async with own_turn.lock:
                if self._is_known(owner, mark):  # meanwhile
                    return True
                if self._was_wrong(mark) or (self._remember_wrong and self._is_another(owner, stored)):
                    return False
                right = await self._queue.hashed(
                    partial(self._run_blocking, self._check, secret, stored, owner), latest
                )
                if right is None:
                    self._unchecked.put(mark, trio.current_time())
                    raise Overloaded(_COME_BACK)
                if right:
                    self._remember(owner, stored, secret, mark)
                elif self._remember_wrong:
                    self._wrong.put(mark, trio.current_time() + _REMEMBERED_WRONG_FOR)
        finally:
            self._measured.set()
            own_turn.users -= 1
            if not own_turn.users:
                self._end(turn)
        if not right:
            await self._pause_after_guess(owner, source)
        return right

    def _check(self, secret: str, stored: str, owner: str) -> bool:
        """In a thread, which costs some hundred microseconds: what is right is noted by the same one."""
        right = key_matches(secret, stored)
        if right and self._verified_keys is not None:
            self._verified_keys.note(owner, stored, secret)
        return right

    def _end(self, turn: Hashable) -> None:
        owner = self._turns.pop(turn).owner
        self._turns_of[owner] -= 1
        if not self._turns_of[owner]:
            del self._turns_of[owner]

    def _remember(self, owner: str, stored: str, secret: str, mark: bytes) -> None:
        only_for = hash((owner, stored)) if is_own_form(secret) else None
        self._verified.put(owner, _Verified(mark, trio.current_time() + _REMEMBERED_FOR, only_for))

    async def _hold_back(self, turn: Hashable, mark: bytes, wait_limit: float) -> None:
        """Raises ``Overloaded`` for a secret whose turn would come too late, or has many before it: what is checked
        waits for few others, and what would wait for long isn't checked. Agents come back half a minute after any
        answer: answered at the same moment, all of a fleet would come back at one."""
        if wait_limit == inf:
            return
        if self._turns:
            await self._measured.wait()  # of those who come at once only the first are let in unseen
        own_turn = self._turns.get(turn)
        waiting = own_turn.users if own_turn is not None else 0
        # A guesser sends another secret each time; an agent comes again with its own.
        room = waiting < _TURN or (self._unchecked.get(mark) is not None and waiting < 2 * _TURN)
        wait = len(self._turns) / self._queue.at_once * self._queue.seconds
        self.refused += wait > min(_PROMPT, wait_limit) and len(self._turns) >= self._queue.at_once
        if room and wait <= wait_limit:
            return
        self._unchecked.put(mark, trio.current_time())
        self._held += 1
        await trio.sleep(even_share(self._held) * wait_limit)
        raise Overloaded(_COME_BACK)

    def _turn(self, turn: Hashable, owner: str, source: Hashable) -> Hashable:
        """The turn that a secret is checked in: ``turn``, unless its source guesses, or somebody its owner's."""
        if self._guesses(self._wrong_from, source, _MANY):
            return ("source", source)
        if source is not None and turn not in self._turns and self._is_guessed(owner):
            return ("owner", owner)
        return turn

    def _is_guessed(self, owner: str) -> bool:
        """Whether keys of an agent come from many places, at once or one after the other, and were wrong."""
        return self._turns_of.get(owner, 0) >= _TURNS_OF_ONE or self._guesses(self._wrong_for, owner, _MANY_FOR_ONE)

    @staticmethod
    def _guesses(wrong: BoundedCache[Hashable, _Guesses], key: Hashable, many: int) -> bool:
        """Whether many wrong secrets came from there, or for that owner, within the last seconds."""
        guesses = None if key is None else wrong.get(key)
        return guesses is not None and guesses.count >= many and trio.current_time() - guesses.last < _GUESSING_FOR

    async def _pause_after_guess(self, owner: str, source: Hashable) -> None:
        """Notes one more wrong secret; its answer waits when there are many from its source, and everything else about
        it is done."""
        if source is None:
            return
        _note(self._wrong_for, owner)
        count = _note(self._wrong_from, source)
        if count < _MANY or self._paused >= _PAUSED:
            return
        self._paused += 1
        try:
            await trio.sleep(pause_after(count - _MANY, first=0.1, longest=_LONGEST_PAUSE))
        finally:
            self._paused -= 1


def _note(wrong: BoundedCache[Hashable, _Guesses], key: Hashable) -> int:
    """Notes one more wrong secret; how many that makes."""
    now = trio.current_time()
    guesses = wrong.get(key)
    if guesses is None or now - guesses.last >= _GUESSING_FOR:
        guesses = _Guesses()
        wrong.put(key, guesses)
    guesses.count += 1
    guesses.last = now
    return guesses.count
