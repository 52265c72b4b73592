"""Log-ins above what can be hashed: what is hashed is still waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from trio.testing import MockClock

from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

KEY = "k" * 32
STORED = hash_key(KEY)
LIMIT, PATIENCE = 20.0, 15.0


class Hashing:
    """What a hash takes, seconds, when the processors are somebody else's: ``seconds`` changes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.done = 0

    async def __call__(self, fn: Callable[..., Any], *args: object) -> Any:
        with trio.CancelScope(shield=True):  # a thread isn't cancelled
            await trio.sleep(self.seconds)
        self.done += 1
        return True


async def test_when_hashing_becomes_slow_the_queue_is_not_served_when_nobody_waits(autojump_clock: MockClock) -> None:
    """So many were let in when it was quick that those whose turn came had given up in the middle of their hash, one
    after the other."""
    hashing = Hashing(0.01)
    secrets = VerifiedSecrets(hashing, at_once=2)
    ends: Counter[str] = Counter()
    answered: list[float] = []

    async def log_in(number: int) -> None:
        with trio.move_on_after(LIMIT):
            try:
                await secrets.matches(f"agent {number}", STORED, KEY, patience=PATIENCE)
            except Overloaded:
                ends["refused"] += 1
            else:
                ends["taken"] += 1
                answered.append(trio.current_time())
            return
        ends["late"] += 1

    for number in range(20):
        await log_in(number)
    hashing.seconds, hashing.done = 2.0, 0
    taken_before, began = ends["taken"], trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20, 1220):
            nursery.start_soon(log_in, number)
            await trio.sleep(0.05)
    assert ends["late"] == 0
    assert ends["taken"] - taken_before == hashing.done  # none was hashed for nobody
    for start in range(0, 60, 10):  # one a second can be
        assert sum(began + start <= moment < began + start + 10 for moment in answered) >= 9
    assert ends.total() == 1220
