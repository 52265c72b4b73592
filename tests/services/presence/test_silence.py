"""Agents that go silent and come back, as events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import field, frozen
from trio.testing import MockClock

from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.backends.presence import Heard, LastSeen
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.services.agent_journal import AgentJournal
from wazuh_comms_trio.services.presence import watch
from wazuh_comms_trio.services.presence.recorder import PresenceRecorder
from wazuh_comms_trio.services.presence.silence import Told, decode, levels
from wazuh_comms_trio.services.presence.watch import LEASE, LOOK, QUIET, SilenceWatch

NOW = 1_750_000_000.0
AFTER = 1200.0
PARTIAL = 3600.0


def wall_clock() -> float:
    return NOW + trio.current_time()


@frozen
class Cluster:
    backends: MemoryBackends
    nodes: list[trio.CancelScope] = field(factory=list)
    talking: set[str] = field(factory=set)
    journals: list[AgentJournal] = field(factory=list)

    def told(self) -> list[dict[str, Any]]:
        """The events' data, each with its agent's id."""
        found = []
        for body in self.backends.engine.bodies:
            metadata, header, data = map(json.loads, body.body.splitlines())
            assert header == {"module": "comms", "collector": "presence"}
            assert metadata["agent"]["id"] == body.agent_id
            found.append({"agent": body.agent_id, "name": metadata["agent"]["name"], **data})
        return found

    def actions(self) -> list[tuple[str, str]]:
        return [(event["event"]["action"].removeprefix("agent-"), event["agent"]) for event in self.told()]


@asynccontextmanager
async def cluster(agents: int = 3, nodes: int = 1) -> AsyncIterator[Cluster]:
    """Agents that are heard every minute, each stored at once, while they are ``talking``."""
    backends = memory_backends(wall_clock=wall_clock)
    made = Cluster(backends)
    for number in range(agents):
        await backends.agents.add(Agent(f"a{number}", f"name-{number}", "k", last_login=NOW))
        made.talking.add(f"a{number}")

    async def talk() -> None:
        while True:
            heard = [Heard(agent_id, wall_clock(), wall_clock()) for agent_id in sorted(made.talking)]
            with suppress(BackendUnavailable):
                await backends.presence.record(heard)
            await trio.sleep(60)

    async def node(number: int, scope: trio.CancelScope) -> None:
        leadership, journal = Leadership(), AgentJournal(wall_clock)
        made.journals.append(journal)
        recorder = PresenceRecorder(journal, backends.presence, leadership, after=AFTER, wall_clock=wall_clock)
        silence = SilenceWatch(
            backends.presence,
            backends.agents,
            backends.engine,
            leadership,
            recorder,
            holder=f"n{number}",
            after=AFTER,
            partial_after=PARTIAL,
            wall_clock=wall_clock,
        )
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(recorder.run)
                nursery.start_soon(silence.run)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        for number in range(nodes):
            made.nodes.append(trio.CancelScope())
            nursery.start_soon(node, number, made.nodes[-1])
        yield made
        nursery.cancel_scope.cancel()


async def test_lost_again_and_again_and_back(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(AFTER + 100)
        assert one.told() == []
        one.talking.discard("a1")
        await trio.sleep(AFTER - 100)
        assert one.told() == []
        await trio.sleep(60 + 100 + LOOK)
        (event,) = one.told()
        since = event["presence"].pop("since")
        assert since.startswith("2025-06-15T15:2")
        assert event["presence"].pop("seconds") == pytest.approx(AFTER, abs=LOOK + 1)
        assert (event["agent"], event["name"], event["presence"]) == ("a1", "name-1", {"level": 1, "count": 1})
        for _ in range(25):
            await trio.sleep(3600)
        assert [event["presence"]["level"] for event in one.told()] == [1, 2, 3]
        assert len({event["event"]["id"] for event in one.told()}) == 3
        one.talking.add("a1")
        await trio.sleep(60 + LOOK + 1)
        assert one.actions() == [("lost", "a1")] * 3 + [("back", "a1")]
        assert one.told()[-1]["presence"]["since"] == since
        await trio.sleep(AFTER)
        assert len(one.told()) == 4


async def test_nobody_is_lost_before_one_threshold_after_a_start(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        one.talking.discard("a0")
        await one.backends.presence.record([Heard("a0", NOW - 10 * AFTER)])
        await trio.sleep(AFTER - 1)
        assert one.told() == []
        await trio.sleep(LOOK + 1)
        assert one.actions() == [("lost", "a0")]


async def test_nobody_is_lost_while_presence_cant_be_read(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(2 * AFTER)
        one.backends.presence.faults.error = BackendUnavailable("away")
        await trio.sleep(3 * AFTER)
        one.backends.presence.faults.error = None  # all look silent until they are stored again
        await trio.sleep(QUIET + 200)
        assert one.told() == []


async def test_nobody_is_lost_while_presence_cant_be_kept(autojump_clock: MockClock) -> None:
    """A full disk: what is there can be read."""
    async with cluster(agents=40) as one:
        await trio.sleep(2 * AFTER)
        one.backends.presence.faults.only = {"record"}
        one.backends.presence.faults.error = BackendUnavailable("full")
        for _ in range(100):
            one.journals[0].heard("a0", "poll", None)
            await trio.sleep(AFTER / 30)
        assert one.told() == []
        assert (await one.backends.presence.last_seen(before=wall_clock() - AFTER)).keys() == one.talking


async def test_many_at_once_are_one_event(autojump_clock: MockClock) -> None:
    async with cluster(agents=100) as one:
        await trio.sleep(AFTER + 100)
        gone = {f"a{number}" for number in range(40)}
        one.talking.difference_update(gone)
        await trio.sleep(AFTER + 100)
        (event,) = one.told()
        assert event["event"]["action"] == "agent-lost"
        assert (event["agent"], event["presence"]) == ("000", {"count": 40, "agents": sorted(gone)[:10]})
        one.talking.update(gone)
        await trio.sleep(100)
        assert one.actions() == [("lost", "000"), ("back", "000")]


async def test_one_whose_older_moment_was_written_last_is_back_all_the_same(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a search in an indexer has it, when a node that couldn't write for a while has."""
    monkeypatch.setattr(watch, "AT_ONCE_READ", 20)
    async with cluster(agents=100) as one:
        await trio.sleep(AFTER + 100)
        gone = {f"a{number}" for number in range(60)}
        one.talking.difference_update(gone)
        await trio.sleep(AFTER + 100)
        store = one.backends.presence
        last_seen = store.last_seen

        async def search(since: float | None = None, **other: float) -> dict[str, LastSeen]:
            found = dict(await last_seen(since, **other))
            if since is not None and not other:
                del found["a7"]
            return found

        store.last_seen = search  # type: ignore[method-assign, assignment]
        one.talking.update(gone)
        await trio.sleep(100)
        assert [(event["event"]["action"], event["presence"]["count"]) for event in one.told()] == [
            ("agent-lost", 60),
            ("agent-back", 60),
        ]


async def test_a_few_more_of_many_are_one_event_too(autojump_clock: MockClock) -> None:
    """Agents are heard at moments of their own: what went at once crosses the threshold over some minutes."""
    async with cluster(agents=100) as one:
        await trio.sleep(AFTER + 100)
        for number in range(4):
            one.talking.difference_update({f"a{2 * number}", f"a{2 * number + 1}"})
            await trio.sleep(60)
        await trio.sleep(AFTER + 100)
        assert [(event["agent"], event["presence"]["count"]) for event in one.told()] == [
            ("a0", 1),
            ("a1", 1),
            ("a2", 1),
            ("a3", 1),
            ("000", 2),
            ("000", 2),
        ]


async def only_polls(one: Cluster, agent_id: str) -> None:
    """For an hour and a half, once a minute."""
    for _ in range(90):
        await one.backends.presence.record([Heard(agent_id, wall_clock())])
        await trio.sleep(60)


async def test_one_that_polls_and_sends_nothing(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(AFTER + 100)
        one.talking.discard("a3")
        await only_polls(one, "a3")
        assert one.actions() == [("partial", "a3")]
        since = one.told()[0]["presence"]["since"]
        one.talking.add("a3")
        await trio.sleep(60 + LOOK + 1)
        assert one.actions() == [("partial", "a3"), ("resumed", "a3")]
        assert one.told()[1]["presence"]["since"] == since
        await trio.sleep(2 * PARTIAL)
        assert len(one.told()) == 2


async def test_partial_lasts_until_something_is_sent_though_it_was_lost_meanwhile(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(AFTER + 100)
        one.talking.discard("a3")
        for silence in (0.0, 2 * AFTER):
            await trio.sleep(silence)
            await only_polls(one, "a3")
        assert one.actions() == [("partial", "a3"), ("lost", "a3"), ("back", "a3")]
        one.talking.add("a3")
        await trio.sleep(60 + LOOK + 1)
        assert one.actions()[3:] == [("resumed", "a3")]


async def test_one_that_sends_nothing_and_is_removed_is_forgotten(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(AFTER + 100)
        one.talking.discard("a3")
        await only_polls(one, "a3")
        await one.backends.agents.remove("a3")
        await trio.sleep(LOOK + 1)
        assert one.actions() == [("partial", "a3")]
        assert decode(one.backends.presence._watch[2]) == Told()


async def test_a_refused_event_holds_up_no_other(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with cluster(agents=80) as one:
        await trio.sleep(AFTER + 100)
        one.backends.engine.refuse = "not of ours"
        one.talking.difference_update({"a1", "a2"})
        await trio.sleep(AFTER + 100)
        one.backends.engine.refuse = None
        one.talking.difference_update({"a3"})
        await trio.sleep(AFTER + 100)
        assert one.actions() == [("lost", "a3")]
        refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
        assert [text.endswith("not of ours") for text in refused] == [True, False]  # once, and that it is over


async def test_a_slow_engine_is_told_what_fits_into_half_a_lease(autojump_clock: MockClock) -> None:
    """Else another node could have the right to tell, and tell it again."""
    async with cluster(agents=200, nodes=2) as two:
        await trio.sleep(AFTER + 100)
        two.backends.engine.faults.delay = LEASE / 5
        two.talking.difference_update(gone := {f"a{number}" for number in range(8)})
        await trio.sleep(AFTER + 8 * LEASE)
        assert sorted(agent_id for _, agent_id in two.actions()) == sorted(gone)
        assert two.backends.presence.faults.calls["keep_watch"] >= 3


async def test_nobody_is_lost_when_this_host_slept(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(2 * AFTER)
        one.talking.clear()
        await trio.sleep(200)
        monkeypatch.setattr(f"{__name__}.NOW", NOW + 3 * AFTER)
        await trio.sleep(AFTER - 2 * LOOK)
        assert one.told() == []
        await trio.sleep(4 * LOOK)
        assert [event["presence"]["count"] for event in one.told()] == [40]


async def test_one_node_of_several_tells_and_another_goes_on(autojump_clock: MockClock) -> None:
    async with cluster(agents=40, nodes=3) as three:
        await trio.sleep(AFTER + 100)
        three.talking.discard("a1")
        await trio.sleep(AFTER + 200)
        assert three.actions() == [("lost", "a1")]
        holder = three.backends.presence._watch[0]
        three.nodes[int(holder[1:])].cancel()
        three.talking.discard("a2")
        await trio.sleep(AFTER + LEASE + 200)
        assert three.actions() == [("lost", "a1"), ("lost", "a2")]


async def test_an_engine_that_is_away_loses_no_event(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(AFTER + 100)
        one.talking.discard("a1")
        one.backends.engine.faults.error = BackendUnavailable("away")
        await trio.sleep(AFTER + 200)
        one.backends.engine.faults.error = None
        await trio.sleep(QUIET + 100)
        assert one.actions() == [("lost", "a1")]


async def test_one_that_was_removed_isnt_told_of(autojump_clock: MockClock) -> None:
    async with cluster(agents=40) as one:
        await trio.sleep(AFTER + 100)
        one.talking.difference_update({"a1", "a2"})
        await trio.sleep(AFTER + 100)
        await one.backends.agents.remove("a1")
        await trio.sleep(8000)
        assert sorted(one.actions()) == [("lost", "a1"), ("lost", "a2"), ("lost", "a2")]
        assert decode(one.backends.presence._watch[2]).lost.keys() == {"a2"}


def test_levels_grow() -> None:
    assert levels(1200) == (1200, 3600, 86400, 604800)
    assert levels(90000) == (90000, 604800)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"lost": 5}', '{"lost": {"a": 1}}', '{"a":' * 100_000])
def test_what_cant_be_read_was_never_told(text: str | None) -> None:
    assert decode(text) == Told()
