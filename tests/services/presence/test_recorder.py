"""What workers heard becomes what is stored, about once a minute."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve, field, frozen
from trio.testing import MockClock

from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.memory.stores import MemoryPresence
from wazuh_comms_trio.backends.presence import Heard
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.services.agent_journal import AgentJournal
from wazuh_comms_trio.services.presence import recorder
from wazuh_comms_trio.services.presence.recorder import GATHER, INTERVAL, PART, PresenceRecorder

NOW = 1_750_000_000.0


def wall_clock() -> float:
    return NOW + trio.current_time()


class NotingPresence(MemoryPresence):
    """``calls``: what each call brought."""

    def __init__(
        self, registry: dict[str, Agent], *, keeps_news: bool = False, clock: Callable[[], float] = wall_clock
    ) -> None:
        super().__init__(registry, clock)
        self.keeps_news = keeps_news
        self.batches: list[list[Heard]] = []

    async def record(self, heard: Any) -> None:
        await super().record(heard)
        self.batches.append(list(heard))


class Workers(Leadership):
    """One of several workers in this process: messages arrive at once."""

    def __init__(self, others: list[Workers], *, leader: bool) -> None:
        super().__init__(leader=leader)
        self._others = others
        others.append(self)
        self.messages = 0

    def publish(self, topic: str, finding: Finding) -> None:
        for other in self._others:
            if other is not self:
                other.handle_finding(topic, finding)

    def ask_leader(self, topic: str, request: Finding) -> None:
        self.messages += 1
        for other in self._others:
            other.handle_request(topic, request)


@frozen
class Site:
    store: NotingPresence
    journals: list[AgentJournal]
    recorders: list[PresenceRecorder]
    leaderships: list[Workers]
    registry: dict[str, Agent] = field(factory=dict)


@asynccontextmanager
async def site(
    workers: int = 1, agents: int = 3, *, keeps_news: bool = False, clock: Callable[[], float] = wall_clock
) -> AsyncIterator[Site]:
    registry = {f"a{number}": Agent(f"a{number}", f"n{number}", "k") for number in range(agents)}
    store = NotingPresence(registry, keeps_news=keeps_news, clock=clock)
    others: list[Workers] = []
    made = Site(store, [], [], others, registry)
    async with trio.open_nursery() as nursery:
        for number in range(workers):
            journal = AgentJournal(clock)
            made.journals.append(journal)
            leadership = Workers(others, leader=number == 0)
            made.recorders.append(PresenceRecorder(journal, store, leadership, after=1200, wall_clock=clock))
            nursery.start_soon(made.recorders[-1].run)
        yield made
        nursery.cancel_scope.cancel()


async def a_round() -> None:
    await trio.sleep(INTERVAL + GATHER + 0.5)


async def test_what_was_heard_is_stored_within_a_minute(autojump_clock: MockClock) -> None:
    async with site() as one:
        one.journals[0].heard("a0", "poll", "10.0.0.1")
        await trio.sleep(1)
        one.journals[0].heard("a1", "stateless", "10.0.0.2")
        one.journals[0].refused("a2", "stateful", "10.0.0.2", "503 Service Unavailable")
        await a_round()
        seen = await one.store.last_seen()
        assert {i: (each.seen - NOW, each.sent) for i, each in seen.items()} == {
            "a0": (0.0, None),
            "a1": (1.0, NOW + 1),
            "a2": (1.0, None),
        }
        await a_round()
        assert len(one.store.batches) == 1  # nothing new is no call


async def test_who_is_refused_at_the_door_isnt_there(autojump_clock: MockClock) -> None:
    async with site(keeps_news=True) as one:
        one.journals[0].refused("a0", "login", "10.0.0.1", "wrong_key")
        one.journals[0].refused("a1", "token", "10.0.0.1", "agent_rekeyed")
        one.journals[0].refused("stranger", "login", "10.0.0.1", "unknown_agent", known=False)
        await a_round()
        assert await one.store.last_seen() == {}
        ((first, second),) = one.store.batches  # others may read the refusals
        assert (first.seen, first.news["channels"]["login"]["refusal"]["cause"]) == (None, "wrong_key")
        assert second.news["channels"]["token"]["refusal"]["cause"] == "agent_rekeyed"


async def test_of_several_workers_the_leader_stores_for_all(autojump_clock: MockClock) -> None:
    async with site(workers=3, keeps_news=True) as three:
        three.journals[1].heard("a0", "poll", "10.0.0.1")
        await trio.sleep(1)
        three.journals[2].heard("a0", "stateful", "10.0.0.2")
        three.journals[0].heard("a1", "poll", "10.0.0.3")
        await a_round()
        (batch,) = three.store.batches
        stored = {each.agent_id: each for each in batch}
        assert (stored["a0"].seen, stored["a0"].sent) == (NOW + 1, NOW + 1)
        assert stored["a0"].news == {
            "channels": {
                "poll": {"success": {"at": NOW, "address": "10.0.0.1"}},
                "stateful": {"success": {"at": NOW + 1, "address": "10.0.0.2"}},
            },
            "addresses": [["10.0.0.1", NOW, NOW], ["10.0.0.2", NOW + 1, NOW + 1]],
        }
        assert stored["a1"].seen == NOW + 1


async def test_only_what_is_new_is_handed_on(autojump_clock: MockClock) -> None:
    """An earlier moment of one worker mustn't replace a later one that another has stored meanwhile."""
    async with site(keeps_news=True) as one:
        one.journals[0].heard("a0", "login", "10.0.0.1")
        await a_round()
        one.journals[0].heard("a0", "poll", "10.0.0.1")
        await a_round()
        assert [list(batch[0].news["channels"]) for batch in one.store.batches] == [["login"], ["poll"]]


async def test_another_leader_goes_on(autojump_clock: MockClock) -> None:
    async with site(workers=2) as two:
        two.journals[0].heard("a0", "poll", None)
        two.journals[1].heard("a1", "poll", None)
        for leadership in reversed(two.leaderships):
            leadership.set_leader(leadership is two.leaderships[1])
        await a_round()
        assert (await two.store.last_seen()).keys() == {"a0", "a1"}
        assert len(two.store.batches) == 1


async def test_a_failing_store_costs_a_line_and_nothing_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with site() as one:
        one.store.faults.error = BackendUnavailable("no right")
        one.journals[0].heard("a0", "poll", None)
        for _ in range(3):
            await a_round()
        one.journals[0].heard("a1", "poll", None)
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert lines == ["when agents were heard last: can't be kept: no right; agents are served as ever"]
        one.store.faults.error = None
        await a_round()
        seen = await one.store.last_seen()
        assert seen["a0"].seen == NOW
        assert seen["a1"].seen > NOW
        assert "works again" in caplog.text


async def test_memory_is_bounded_while_it_fails(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST", 10)
    async with site(agents=30) as one:
        one.store.faults.error = BackendUnavailable()
        for number in range(30):
            one.journals[0].heard(f"a{number}", "poll", None)
        await a_round()
        one.store.faults.error = None
        await a_round()
        assert (await one.store.last_seen()).keys() == {f"a{number}" for number in range(20, 30)}


async def test_many_agents_take_some_calls_and_messages(autojump_clock: MockClock) -> None:
    async with site(workers=2, agents=3 * PART) as two:
        for number in range(3 * PART):
            two.journals[1].heard(f"a{number}", "poll", None)
        await a_round()
        assert [len(batch) for batch in two.store.batches] == [PART, PART, PART]
        assert two.leaderships[1].messages == 3
        assert len(await two.store.last_seen()) == 3 * PART


@pytest.mark.expects_errors
async def test_an_error_of_ours_ends_no_worker(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(workers=2, agents=2) as two:
        two.journals[1].heard("a0", "poll", None)
        with monkeypatch.context() as broken:
            broken.setattr(two.leaderships[1], "ask_leader", None)
            await a_round()
        two.journals[1].heard("a1", "poll", None)
        await a_round()
        assert (await two.store.last_seen()).keys() == {"a0", "a1"}


@pytest.mark.expects_errors
async def test_an_error_of_ours_costs_the_call_that_it_is_in(autojump_clock: MockClock) -> None:
    async with site(agents=2 * PART) as one:
        for number in range(2 * PART):
            one.journals[0].heard(f"a{number}", "poll", None)
        one.store.faults.error = ZeroDivisionError()
        await a_round()
        one.store.faults.error = None
        await a_round()
        assert (await one.store.last_seen()).keys() == {f"a{number}" for number in range(PART, 2 * PART)}


async def test_agents_are_counted_by_the_leader_alone(autojump_clock: MockClock) -> None:
    async with site(workers=2) as two:
        two.registry["a1"] = evolve(two.registry["a1"], last_login=NOW - 5000)
        two.journals[1].heard("a0", "poll", None)
        await a_round()
        read = {labels: (family, value) for family, labels, value in two.recorders[0].read()}
        assert read == {
            ("active",): (families.AGENTS, 1),
            ("disconnected",): (families.AGENTS, 1),
            ("never",): (families.AGENTS, 1),
        }
        assert list(two.recorders[1].read()) == []
        two.leaderships[0].set_leader(False)
        assert list(two.recorders[0].read()) == []
