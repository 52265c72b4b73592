"""Log-ins above what can be hashed: what is hashed is still waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.services.authentication.hashing_queue import HashingQueue
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

KEY = "k" * 32
STORED = hash_key(KEY)
LIMIT, WAIT_LIMIT = 20.0, 15.0


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
                await secrets.matches(f"agent {number}", STORED, KEY, wait_limit=WAIT_LIMIT)
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


async def test_when_hashing_becomes_slow_in_a_wave_its_refusals_are_spread(autojump_clock: MockClock) -> None:
    """Half a minute after its answer each agent comes again: all at once would be the same wave again."""
    hashing = Hashing(0.01)
    secrets = VerifiedSecrets(hashing, at_once=2)
    taken: list[float] = []
    refused: list[float] = []

    async def log_in(number: int) -> None:
        began = trio.current_time()
        try:
            await secrets.matches(f"agent {number}", STORED, KEY, wait_limit=WAIT_LIMIT)
        except Overloaded:
            refused.append(trio.current_time() - began)
        else:
            taken.append(trio.current_time() - began)

    await log_in(0)
    async with trio.open_nursery() as nursery:
        for number in range(1, 2001):
            nursery.start_soon(log_in, number)
        await trio.sleep(2.005)
        assert len(taken) > 400
        assert not refused  # there is time for all of them
        hashing.seconds = 0.05
    assert max(taken[1:]) > WAIT_LIMIT - 1  # whose turn comes in time is served
    assert len(taken) > 900
    assert len(taken) + len(refused) == 2001
    each_second = Counter(int(moment) for moment in refused)
    mean = len(refused) / (WAIT_LIMIT - 2)
    assert max(each_second.values()) < 2 * mean
    assert min(refused) < WAIT_LIMIT / 3


async def test_who_leaves_the_queue_with_its_turn_passes_it_on(autojump_clock: MockClock) -> None:
    queue = HashingQueue(1)
    done: list[int] = []

    async def check(number: int) -> bool:
        await trio.sleep(1)
        done.append(number)
        return True

    async def wait(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await queue.hashed(partial(check, number), 100.0 + trio.current_time())

    scopes = [trio.CancelScope() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(wait, number, scope)
            await wait_all_tasks_blocked()
        scopes[1].cancel()  # while it waits
        await trio.sleep(1)
        scopes[2].cancel()  # with its turn, in the moment in which it comes or after it
    assert done in ([0, 3], [0, 2, 3])
    assert await queue.hashed(partial(check, 4), trio.current_time()) is True
    assert await queue.hashed(partial(check, 5), trio.current_time() - 0.1) is None


async def test_a_process_that_was_stopped_refuses_nobody_whom_it_can_serve(autojump_clock: MockClock) -> None:
    """What one hashing takes isn't known by one that was interrupted for seconds, with its machine."""
    queue = HashingQueue(1)
    takes = iter([*[0.012] * 100, 10.0, *[0.012] * 299])

    async def check() -> bool:
        await trio.sleep(next(takes))
        return True

    async def wait() -> None:
        assert await queue.hashed(check, WAIT_LIMIT + trio.current_time()) is True

    for _ in range(100):
        await wait()
    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(wait)


async def test_how_many_more_can_be_hashed_at_once_is_known(autojump_clock: MockClock) -> None:
    """So that connections of others aren't begun with."""
    secrets = VerifiedSecrets(Hashing(0.1), at_once=2)
    assert secrets.room() == inf  # what a hash takes isn't known yet
    assert await secrets.matches("first", STORED, KEY, wait_limit=WAIT_LIMIT)
    assert secrets.room() == pytest.approx(20)
    async with trio.open_nursery() as nursery:
        for number in range(21):
            nursery.start_soon(partial(secrets.matches, f"agent {number}", STORED, KEY, wait_limit=WAIT_LIMIT))
        await wait_all_tasks_blocked()
        assert secrets.room() == pytest.approx(-1)
        assert secrets.refused == 0
        for number in range(5):  # they'll be hashed, but not at once
            nursery.start_soon(partial(secrets.matches, f"late {number}", STORED, KEY, wait_limit=WAIT_LIMIT))
        await wait_all_tasks_blocked()
        assert secrets.refused == 5
        with pytest.raises(Overloaded):
            await secrets.matches("impatient", STORED, KEY, wait_limit=0.5)
        assert secrets.refused == 6
    assert secrets.room() == pytest.approx(20)
    assert await secrets.matches("late 0", STORED, KEY, wait_limit=WAIT_LIMIT)  # known, and never in the way
    assert secrets.refused == 6
