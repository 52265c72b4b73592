"""Log-ins above what can be hashed: what is hashed is still waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.services.authentication.hashing_queue import HashingQueue
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, VerifiedKeys
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

KEY = "k" * 32
STORED = hash_key(KEY)
LIMIT, WAIT_LIMIT = 20.0, 15.0
ONE, OTHER = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in "12")


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


class TestGuesses:
    """Whoever knows an agent's uuid, and has an address for each wrong key."""

    @staticmethod
    async def guess(secrets: VerifiedSecrets, number: int) -> bool:
        key = f"{number:032}"
        return await secrets.matches("a", STORED, key, turn=("a", number), source=number, wait_limit=WAIT_LIMIT)

    async def guess_unless_crowded(self, secrets: VerifiedSecrets, number: int) -> None:
        with suppress(Overloaded):
            await self.guess(secrets, number)

    async def test_for_an_agent_at_work_cost_no_hash(self, autojump_clock: MockClock) -> None:
        secrets, real = VerifiedSecrets(run := Counted(), remember_wrong=True), [KEY, "short"]
        for owner, key in zip("ab", real, strict=True):
            assert await secrets.matches(owner, hash_key(key), key)
        for owner, key in zip("ab", real, strict=True):
            assert not await secrets.matches(owner, hash_key(key), "w" * 32)
        assert run.calls == 4
        stored = [hash_key(key) for key in real]
        for owner, key, kept in zip("ab", real, stored, strict=True):
            assert await secrets.matches(owner, kept, key)
        assert not await secrets.matches("a", stored[0], "w" * 32)
        assert run.calls == 6
        assert not await secrets.matches("b", stored[1], "w" * 32)  # a short key may be guessed: not any quicker
        assert run.calls == 7
        await trio.sleep(3601)
        assert not await secrets.matches("a", stored[0], "x" * 32)
        assert run.calls == 8

    async def test_take_no_places_from_others(self, autojump_clock: MockClock) -> None:
        """First log-ins, and whatever waits for them before its handshake: see ``Pace``."""
        secrets = VerifiedSecrets(Slow(0.02), at_once=2, remember_wrong=True)
        ends: Counter[str] = Counter()

        async def one(number: int) -> None:
            try:
                ends[str(await self.guess(secrets, number))] += 1
            except Overloaded:
                ends["later"] += 1

        async with trio.open_nursery() as nursery:
            for number in range(2000):  # twice what can be hashed
                nursery.start_soon(one, number)
                await trio.sleep(0.005)
            began = trio.current_time()
            assert await secrets.matches("b", STORED, "right", turn=("b", 1), source="b", wait_limit=WAIT_LIMIT)
            assert trio.current_time() - began < 0.1
            assert secrets.room() > 80
            assert secrets.refused == 0
        assert ends["False"] > 400
        assert ends["True"] == 0

    async def test_take_no_places_when_they_come_at_once(self, autojump_clock: MockClock) -> None:
        secrets = VerifiedSecrets(Slow(0.02), at_once=2, remember_wrong=True)

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(self.guess_unless_crowded, secrets, number)
            await trio.sleep(0.1)
            began = trio.current_time()
            assert await secrets.matches("b", STORED, "right", turn=("b", 1), source="b", wait_limit=WAIT_LIMIT)
            assert trio.current_time() - began < 0.2
            assert secrets.room() > 80
            assert secrets.refused == 0

    async def test_do_not_keep_the_right_key_out(self, autojump_clock: MockClock) -> None:
        secrets = VerifiedSecrets(Slow(0.02), at_once=2, remember_wrong=True)

        async def guess_on() -> None:
            async with trio.open_nursery() as guesses:
                for number in count():
                    guesses.start_soon(self.guess_unless_crowded, secrets, number)
                    await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guess_on)
            await trio.sleep(20)
            tries = 0
            while True:
                tries += 1
                try:
                    assert await secrets.matches("a", STORED, "right", turn=("a", ""), source="", wait_limit=WAIT_LIMIT)
                    break
                except Overloaded:
                    await trio.sleep(30)
            assert tries <= 2
            nursery.cancel_scope.cancel()


class Counted:
    calls = 0

    async def __call__(self, fn: Callable[..., Any], *args: object) -> Any:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        return fn(*args)


class Slow(Hashing):
    """Of all keys that are tried "right" is right."""

    async def __call__(self, fn: Callable[..., Any], *args: object) -> Any:
        await super().__call__(fn, *args)
        return args[0] == "right"


async def test_a_right_key_is_noted_in_the_thread_that_hashed_it(tmp_path: Path) -> None:
    """Another one would cost as much as the rest of a log-in's writes."""
    path = tmp_path / FILE_NAME
    secrets = VerifiedSecrets(run := Counted(), verified_keys=VerifiedKeys(path, b"s" * 32))
    assert await secrets.matches(ONE, STORED, KEY)
    assert not await secrets.matches(OTHER, STORED, "K" * 32)
    assert run.calls == 2
    after = VerifiedKeys(path, b"s" * 32)
    assert after.knows(ONE, STORED, KEY)
    assert not after.knows(OTHER, STORED, "K" * 32)
