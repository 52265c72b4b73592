"""A fleet that came back at one moment, an hour later: its log-ins and the ends of its polls lie evenly in time."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from tests.hostile.test_fleet_returns import SECRET, Hashing, matches_at_once
from tests.services.bench import trio_wall_clock
from tests.services.test_tokens import KEYS
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.errors import Overloaded
from wazuh_comms_trio.services.authentication import verified_secrets
from wazuh_comms_trio.services.authentication.authenticator import Authenticator
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, VerifiedKeys
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher
from wazuh_comms_trio.testing.agent.client import token_expiry

HOUR: Final = 3600.0
#: What an agent does, by PROTOCOL.md, "1. What the agents do": it renews its token 2 s before the end, asks again 1 s
#: after a poll ended, and half a minute after a failure.
RENEWS, PAUSE, COMES_AGAIN = 2.0, 1.0, 30.0
#: What a hash takes, seconds, with two at a time.
HASH: Final = 0.05
#: How keys that were right before are known.
TABLES: Final = ("with the table", "without it", "with it deleted")
#: Seconds in which what happens counts as one peak.
PEAK: Final = 30


@define
class Fleet:
    """Agents that all begin at one moment, on a node that has just been started. ``served``: when the last had its
    token, and how many were hashed by then; the log-ins and ends of polls of the second hour, by the ``PEAK`` that they
    were in."""

    size: int
    service: Authenticator
    dispatcher: CommandDispatcher
    hashing: Hashing
    without_token: int = field(init=False)
    served: float = field(init=False, default=0.0)
    hashed: int = field(init=False, default=0)
    log_ins: Counter[int] = field(init=False, factory=Counter)
    poll_ends: Counter[int] = field(init=False, factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.without_token = self.size

    async def agent(self, number: int, began: float) -> None:
        uuid, key = name(number), f"{number:032}"
        token, polls = "", trio.Event()

        async def poll() -> None:
            await polls.wait()
            while True:
                caller = await self.service.verify(token.encode())
                await self.dispatcher.poll(caller, deadline=trio.current_time() + self.dispatcher.poll_limit())
                note(self.poll_ends, began)
                await trio.sleep(PAUSE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            while True:
                try:
                    token = await self.service.authenticate(uuid, key, f"10.0.0.{number}", wait_limit=16)
                except Overloaded:
                    await trio.sleep(COMES_AGAIN)
                    continue
                if not polls.is_set():
                    polls.set()
                    self.without_token -= 1
                    self.served, self.hashed = trio.current_time() - began, self.hashing.hashed
                note(self.log_ins, began)
                await trio.sleep(token_expiry(token) - RENEWS - trio_wall_clock())

    async def two_hours(self) -> None:
        with trio.move_on_after(2 * HOUR):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                await nursery.start(self.dispatcher.run)
                for number in range(self.size):
                    nursery.start_soon(self.agent, number, began)


def name(number: int) -> str:
    return str(UUID(int=random.Random(number).getrandbits(128), version=4))


def note(counts: Counter[int], began: float) -> None:
    """Counts what happens in the second hour."""
    since = trio.current_time() - began
    if since >= HOUR:
        counts[int(since // PEAK)] += 1


def peak(counts: Counter[int]) -> float:
    """The highest, in multiples of the mean."""
    return max(counts.values()) / (counts.total() * PEAK / HOUR)


@pytest.mark.parametrize(
    ("size", "table"),
    [
        (400, "with the table"),  # all log in at one moment: the highest wave there could be
        *(pytest.param(10_000, table, marks=pytest.mark.long) for table in TABLES),
    ],
)
async def test_an_hour_later_there_are_no_waves(
    size: int, table: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(verified_secrets, "key_matches", matches_at_once)
    path = tmp_path / FILE_NAME
    known = VerifiedKeys(path, SECRET)
    backends = memory_backends(wall_clock=trio_wall_clock)
    for number in range(size):
        agent = Agent(name(number), f"a{number}", f"of {number:032}")
        await backends.agents.add(agent)
        if table != "without it":
            known.note(agent.id, agent.key_hash, f"{number:032}")
    if table == "with it deleted":
        path.unlink()
    verified = None if table == "without it" else VerifiedKeys(path, SECRET)
    hashing = Hashing(HASH)
    service = Authenticator(
        backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=hashing, verified_keys=verified
    )
    dispatcher = CommandDispatcher(
        backends.commands, backends.agents, poll_timeout=300, wall_clock=trio_wall_clock, rng=random.Random(1)
    )
    fleet = Fleet(size, service, dispatcher, hashing)
    await fleet.two_hours()
    assert not fleet.without_token
    assert fleet.hashed == (0 if table == "with the table" else size)
    assert fleet.served <= fleet.hashed * HASH / 2 * 1.2 + 60
    assert fleet.log_ins.total() >= size * 3  # each agent goes on logging in
    assert fleet.poll_ends.total() >= size * 8
    assert peak(fleet.log_ins) < 2
    assert peak(fleet.poll_ends) < 2
