"""A fleet comes back at once: proven keys aren't hashed again, and the others come in turns."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from tests.services.bench import trio_wall_clock
from tests.services.test_tokens import KEYS
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.errors import InvalidKey, Overloaded
from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.services.authentication import verified_keys as module
from wazuh_comms_trio.services.authentication import verified_secrets
from wazuh_comms_trio.services.authentication.authenticator import Authenticator
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, LAST_WRITE, WRITTEN_EACH, VerifiedKeys
from wazuh_comms_trio.services.authentication.verified_secrets import VerifiedSecrets

T = TypeVar("T")

ONE = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
OTHER = "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"
KEY, WRONG = "k" * 32, "w" * 32
SECRET = b"s" * 32


class TestTheTable:
    def test_it_outlives_its_process(self, tmp_path: Path) -> None:
        VerifiedKeys(tmp_path / FILE_NAME, SECRET).note(ONE, "hash", KEY)
        after = VerifiedKeys(tmp_path / FILE_NAME, SECRET)
        assert after.knows(ONE, "hash", KEY)
        assert not after.knows(ONE, "hash", WRONG)
        assert not after.knows(OTHER, "hash", KEY)

    def test_it_is_read_before_anybody_is_served(self, tmp_path: Path) -> None:
        """A fleet's would hold up the event loop at the first log-in."""
        VerifiedKeys(tmp_path / FILE_NAME, SECRET).note(ONE, "hash", KEY)
        after = VerifiedKeys(tmp_path / FILE_NAME, SECRET)
        (tmp_path / FILE_NAME).unlink()
        assert after.knows(ONE, "hash", KEY)

    def test_it_is_the_nodes_own_and_says_nothing(self, tmp_path: Path) -> None:
        VerifiedKeys(tmp_path / FILE_NAME, SECRET).note(ONE, "hash", KEY)
        assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
        text = (tmp_path / FILE_NAME).read_text()
        assert KEY not in text
        assert "hash" not in text
        assert not VerifiedKeys(tmp_path / FILE_NAME, b"t" * 32).knows(ONE, "hash", KEY)

    def test_a_rekeyed_agent_is_hashed(self, tmp_path: Path) -> None:
        verified_keys = VerifiedKeys(tmp_path / FILE_NAME, SECRET)
        verified_keys.note(ONE, "hash", KEY)
        assert not verified_keys.knows(ONE, "another hash", KEY)
        verified_keys.note(ONE, "another hash", WRONG)
        assert verified_keys.knows(ONE, "another hash", WRONG)
        assert not verified_keys.knows(ONE, "hash", KEY)

    @pytest.mark.parametrize("key", ["password", "k" * 31, "k" * 33, "k" * 31 + "-", "é" * 32, ""])
    def test_only_keys_that_nobody_guesses(self, tmp_path: Path, key: str) -> None:
        verified_keys = VerifiedKeys(tmp_path / FILE_NAME, SECRET)
        verified_keys.note(ONE, "hash", key)
        assert not verified_keys.knows(ONE, "hash", key)
        assert not (tmp_path / FILE_NAME).exists()

    def test_workers_learn_from_each_other(self, tmp_path: Path) -> None:
        one, other = (VerifiedKeys(tmp_path / FILE_NAME, SECRET) for _ in range(2))
        assert not other.knows(ONE, "hash", KEY)
        one.note(ONE, "hash", KEY)
        other.note(OTHER, "hash", KEY)
        assert other.knows(ONE, "hash", KEY)
        assert one.knows(OTHER, "hash", KEY)

    @pytest.mark.parametrize("damage", ["torn", "garbage", "deleted", "emptied"])
    def test_damage_costs_hashing(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / FILE_NAME
        before = VerifiedKeys(path, SECRET)
        before.note(ONE, "hash", KEY)
        if damage == "torn":
            path.write_bytes(path.read_bytes()[:-10])
        elif damage == "garbage":
            path.write_bytes(os.urandom(5000) + b"\n")
        elif damage == "emptied":
            path.write_bytes(b"")
        else:
            path.unlink()
        after = VerifiedKeys(path, SECRET)
        assert not after.knows(ONE, "hash", KEY)
        after.note(OTHER, "hash", KEY)
        after.note(ONE, "hash", KEY)
        assert VerifiedKeys(path, SECRET).knows(ONE, "hash", KEY)

    def test_it_is_written_anew_when_most_of_it_is_overtaken(self, tmp_path: Path) -> None:
        path = tmp_path / FILE_NAME
        writer, reader = VerifiedKeys(path, SECRET), VerifiedKeys(path, SECRET)
        for number in range(5000):
            writer.note(ONE, f"hash {number}", KEY)
        size = path.stat().st_size
        assert reader.knows(ONE, "hash 4999", KEY)
        assert path.stat().st_size < size / 1000
        writer.note(OTHER, "hash", KEY)
        assert reader.knows(OTHER, "hash", KEY)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_threads_note_while_the_event_loop_looks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The table is full, and the file is written anew again and again."""
        monkeypatch.setattr(module, "_REMEMBERED", 200)
        monkeypatch.setattr(module, "_OVERTAKEN", 0)
        verified_keys = VerifiedKeys(tmp_path / FILE_NAME, SECRET)

        def note(first: int) -> None:
            for number in range(first, first + 3000):
                verified_keys.note(str(UUID(int=number)), "hash", KEY)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(2) as threads:
                noted = [threads.submit(note, first) for first in (0, 1_000_000)]
                while not all(future.done() for future in noted):
                    assert not verified_keys.knows(ONE, "hash", KEY)
                for future in noted:
                    future.result()
        finally:
            sys.setswitchinterval(interval)
        assert os.listdir(tmp_path) == [FILE_NAME]

    async def test_a_disk_that_hangs_holds_up_no_log_in(
        self, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It held a place of the queue of those that hash, of which there are as many as processors."""
        path, disk = tmp_path / FILE_NAME, Disk()
        monkeypatch.setattr(file_writes, "calls", disk)
        monkeypatch.setattr(verified_secrets, "key_matches", matches_at_once)
        verified_keys = VerifiedKeys(path, SECRET, written_by_task=True)
        secrets = VerifiedSecrets(disk.run_here, at_once=1, verified_keys=verified_keys)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verified_keys.run, disk.run)
            disk.hangs = True
            for number in range(20):
                assert await secrets.matches(str(UUID(int=number)), f"of {KEY}", KEY)
                await trio.sleep(0.5)
            assert trio.current_time() == 10
            assert not path.exists()
            disk.hangs = False
            await trio.sleep(2 * WRITTEN_EACH)
            assert path.read_bytes().count(b"\n") == 20
            other = VerifiedKeys(path, SECRET, written_by_task=True)
            nursery.start_soon(other.run, disk.run)
            assert other.knows(str(UUID(int=19)), f"of {KEY}", KEY)
            verified_keys.note(ONE, "hash", KEY)
            await trio.sleep(6 * WRITTEN_EACH)
            assert other.knows(ONE, "hash", KEY)
            verified_keys.note(OTHER, "hash", KEY)
            nursery.cancel_scope.cancel()
        assert VerifiedKeys(path, SECRET).knows(OTHER, "hash", KEY), "what was noted last is written at the end"

    async def test_one_that_hangs_for_ever_holds_up_no_end(self, tmp_path: Path, autojump_clock: MockClock) -> None:
        disk = Disk(hangs=True)
        verified_keys = VerifiedKeys(tmp_path / FILE_NAME, SECRET, written_by_task=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verified_keys.run, disk.run)
            verified_keys.note(ONE, "hash", KEY)
            await trio.sleep(60)
            verified_keys.note(OTHER, "hash", KEY)
            nursery.cancel_scope.cancel()
        assert trio.current_time() == 60 + LAST_WRITE

    def test_where_it_cannot_be_kept(self, tmp_path: Path) -> None:
        nowhere = VerifiedKeys(tmp_path / "missing" / FILE_NAME, SECRET)
        nowhere.note(ONE, "hash", KEY)
        assert nowhere.knows(ONE, "hash", KEY)
        (tmp_path / "link").symlink_to(tmp_path / "target")
        VerifiedKeys(tmp_path / "link", SECRET).note(ONE, "hash", KEY)
        assert not (tmp_path / "target").exists()


class Disk(file_writes.FileCalls):
    """... and the thread that waits for it. What hashes runs as if it had no thread: it may not wait for the disk."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self._may_wait = False

    def write(self, descriptor: int, data: file_writes.Data) -> int:
        assert self._may_wait, "a log-in waits for the disk"
        return super().write(descriptor, data)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        while self.hangs:  # noqa: ASYNC110 - a disk has no event
            await trio.sleep(0.1)
        self._may_wait = True
        try:
            return function(*args)
        finally:
            self._may_wait = False

    async def run_here(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)


def matches_at_once(key: str, stored: str) -> bool:
    """In the place of ``key_matches``, whose real work is of no interest here."""
    return stored == "of " + key


class Hashing:
    """A processor that takes ``takes`` seconds for each hash, on the test's clock."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.hashed = 0

    async def __call__(self, function: Callable[..., T], *args: Any) -> T:
        self.hashed += 1
        await trio.sleep(self.takes)
        return function(*args)


async def fleet(
    count: int, hashing: Hashing, verified_keys: VerifiedKeys | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, Counter[int]]:
    """Logs all in at once; who is refused comes again after 30 s. Until when, and in which seconds refusals came."""
    monkeypatch.setattr(verified_secrets, "key_matches", matches_at_once)
    backends = memory_backends(wall_clock=trio_wall_clock)
    agents = [Agent(str(UUID(int=number)), f"a{number}", f"of {number:032}") for number in range(count)]
    for agent in agents:
        await backends.agents.add(agent)

    service = Authenticator(
        backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=hashing, verified_keys=verified_keys
    )
    refusals: Counter[int] = Counter()

    async def log_in(number: int) -> None:
        while True:
            try:
                await service.authenticate(agents[number].id, f"{number:032}", f"10.0.0.{number}", wait_limit=16)
            except Overloaded:
                refusals[int(trio.current_time())] += 1
                await trio.sleep(30)
            else:
                return

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(log_in, number)
    return trio.current_time(), refusals


class TestTheFleet:
    async def test_proven_on_this_node_before(
        self, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        hashing = Hashing(0.1)
        await fleet(100, hashing, VerifiedKeys(tmp_path / FILE_NAME, SECRET), monkeypatch)
        assert hashing.hashed == 100
        began = trio.current_time()
        end, refusals = await fleet(100, hashing, VerifiedKeys(tmp_path / FILE_NAME, SECRET), monkeypatch)
        assert hashing.hashed == 100
        assert end - began < 0.1
        assert not refusals

    async def test_of_the_others_as_many_are_hashed_as_can_be(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        hashing = Hashing(0.1)
        end, refusals = await fleet(2000, hashing, None, monkeypatch)
        assert hashing.hashed == 2000  # none in vain
        assert end < 2000 * 0.1 / 2 * 1.2 + 60
        assert sum(refusals.values()) > 1000
        first = [refusals[second] for second in range(1, 15)]
        assert max(first) < 2 * sum(first) / len(first)  # no wave comes back


class TestGuesses:
    async def test_a_proven_key_is_not_queued_behind_wrong_ones(
        self, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wrong keys for its uuid, 55 a second and from its own address, held up an agent by 5.8 s."""
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        backends = memory_backends(wall_clock=trio_wall_clock)
        stored = hash_key(KEY)
        await backends.agents.add(Agent(ONE, "a", stored))
        verified_keys = VerifiedKeys(tmp_path / FILE_NAME, SECRET)
        verified_keys.note(ONE, stored, KEY)
        hashing = Hashing(0.05)
        service = Authenticator(
            backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=hashing, verified_keys=verified_keys
        )
        async with trio.open_nursery() as nursery:

            async def guess(number: int) -> None:
                with pytest.raises((InvalidKey, Overloaded)):
                    await service.authenticate(ONE, f"{number:032}", "10.0.0.1", wait_limit=16)

            for number in range(55):
                nursery.start_soon(guess, number)
            await trio.sleep(0.5)
            began = trio.current_time()
            await service.authenticate(ONE, KEY, "10.0.0.1", wait_limit=16)
            assert trio.current_time() == began

    async def test_an_agent_behind_a_flood_of_its_own_address_gets_in_at_its_second_try(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Faster than can be hashed, and nothing tells its first log-in from a guess: never a lock-out."""
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        backends = memory_backends(wall_clock=trio_wall_clock)
        await backends.agents.add(Agent(ONE, "a", hash_key(KEY)))
        service = Authenticator(backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=Hashing(0.1))
        async with trio.open_nursery() as nursery:

            async def guess(number: int) -> None:
                with pytest.raises((InvalidKey, Overloaded)):
                    await service.authenticate(ONE, f"{number:032}", "10.0.0.1", wait_limit=16)

            async def flood() -> None:
                for number in range(5000):
                    nursery.start_soon(guess, number)
                    await trio.sleep(0.02)

            nursery.start_soon(flood)
            await trio.sleep(10.05)  # between two places that become free
            with pytest.raises(Overloaded):
                await service.authenticate(ONE, KEY, "10.0.0.1", wait_limit=16)
            await trio.sleep(30)
            began = trio.current_time()
            await service.authenticate(ONE, KEY, "10.0.0.1", wait_limit=16)
            assert trio.current_time() - began < 4
            nursery.cancel_scope.cancel()

    async def test_a_source_that_guesses_has_one_processor(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        backends = memory_backends(wall_clock=trio_wall_clock)
        for number in range(60):
            await backends.agents.add(Agent(str(UUID(int=number)), f"a{number}", hash_key(KEY)))
        service = Authenticator(backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=Hashing(0.1))
        async with trio.open_nursery() as nursery:

            async def guess(number: int) -> None:
                with pytest.raises((InvalidKey, Overloaded)):
                    await service.authenticate(str(UUID(int=number)), WRONG, "10.0.0.1", wait_limit=16)

            for number in range(10):
                nursery.start_soon(guess, number)
            await trio.sleep(1)
            for number in range(10, 50):
                nursery.start_soon(guess, number)
            await trio.sleep(0.5)  # few of them wait for their turn, the others for their answer
            began = trio.current_time()
            await service.authenticate(str(UUID(int=55)), KEY, "10.0.0.2", wait_limit=inf)
            assert trio.current_time() - began < 0.25
            # It isn't locked out: a right key from there has its turn.
            await trio.sleep(2)
            began = trio.current_time()
            await service.authenticate(str(UUID(int=56)), KEY, "10.0.0.1", wait_limit=inf)
            assert trio.current_time() - began < 2
