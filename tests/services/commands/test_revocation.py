"""Parked polls of agents that were removed or rekeyed: who is looked at, and how many at a time; and of all, when a key
that signed tokens is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import Dispatch, agent, caller, open_dispatch
from wazuh_comms_trio.errors import BackendUnavailable, TokenInvalid
from wazuh_comms_trio.services.commands import upkeep
from wazuh_comms_trio.services.commands.long_polls import LongPoll, LongPolls

COUNT = 1000
IDS = [f"{number:08x}-39b5-7bfb-a7bc-c5c6835f03d1" for number in range(COUNT)]


class Looks:
    """A registry that says which agents have changed, as the embedded one does; ``compared``: each call's agents."""

    def __init__(self, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compared: list[list[str]] = []
        self.changed: set[str] | None = set()
        self._agents = dispatch.backends.agents
        self._revoked = self._agents.revoked
        monkeypatch.setattr(self._agents, "changed", self.take_changed)
        monkeypatch.setattr(self._agents, "revoked", self.revoked)

    async def take_changed(self) -> Collection[str] | None:
        await trio.lowlevel.checkpoint()
        changed, self.changed = self.changed, set()
        return changed

    async def revoked(self, agents: Mapping[str, str]) -> Collection[str]:
        self.compared.append(list(agents))
        return await self._revoked(agents)

    def take(self) -> list[str]:
        """The agents that were looked at since the last call."""
        assert all(len(agents) <= upkeep._COMPARED_AT_ONCE for agents in self.compared)
        taken, self.compared = [one for agents in self.compared for one in agents], []
        return taken


@asynccontextmanager
async def parked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Dispatch, Looks, list[str]]]:
    """Polls of all agents, looked at once; in the list those that were told that their token is no good."""
    sent_away: list[str] = []
    async with open_dispatch(agents=IDS) as dispatch, trio.open_nursery() as nursery:
        looks = Looks(dispatch, monkeypatch)

        async def poll(agent_id: str) -> None:
            try:
                await dispatch.poll(agent_id, limit=1e6)
            except TokenInvalid:
                sent_away.append(agent_id)

        for agent_id in IDS:
            nursery.start_soon(poll, agent_id)
        await trio.sleep(1)
        assert sorted(looks.take()) == IDS
        yield dispatch, looks, sent_away
        nursery.cancel_scope.cancel()


async def test_only_agents_that_changed_are_looked_at(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parked(monkeypatch) as (dispatch, looks, sent_away):
        await trio.sleep(60)
        assert looks.take() == []
        await dispatch.backends.agents.rekey(IDS[3], "another")
        await dispatch.backends.agents.set_groups(IDS[5], ["web"])
        await dispatch.backends.agents.remove(IDS[7])
        looks.changed = {IDS[3], IDS[5], IDS[7], "not parked here"}
        await trio.sleep(2)
        assert sorted(looks.take()) == [IDS[3], IDS[5], IDS[7]]
        assert sorted(sent_away) == [IDS[3], IDS[7]]
        assert dispatch.service.parked == COUNT - 2


async def test_all_are_looked_at_when_any_may_have_changed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parked(monkeypatch) as (dispatch, looks, sent_away):
        await dispatch.backends.agents.remove(IDS[900])
        looks.changed = None
        await trio.sleep(2)
        assert sorted(looks.take()) == IDS
        assert sent_away == [IDS[900]]


async def test_a_change_between_the_tokens_check_and_the_poll(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reports it once the poll is parked."""
    async with open_dispatch(agents=IDS[:1]) as dispatch:
        Looks(dispatch, monkeypatch)
        dispatch.backends.agents.stored[IDS[0]] = agent(IDS[0], key_hash="another")
        with pytest.raises(TokenInvalid):
            await dispatch.poll(IDS[0])
        assert trio.current_time() <= 2 * upkeep.CHECK_INTERVAL


async def test_a_look_that_finds_nothing_takes_no_turn_of_its_own(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice a second, at each worker: one turn for its time, and one for what the registry says."""
    async with open_dispatch(agents=IDS[:1]) as dispatch, trio.open_nursery() as nursery:
        Looks(dispatch, monkeypatch)
        long_polls = LongPolls()
        long_polls.add(LongPoll(IDS[0], "fingerprint", 1e6))
        long_polls.take_unchecked(1)
        nursery.start_soon(upkeep.revoke_polls, long_polls, dispatch.backends.agents)
        await trio.lowlevel.checkpoint()
        (looking,) = nursery.child_tasks
        before = looking._schedule_points
        await trio.sleep(60)
        assert looking._schedule_points - before <= 2 * 60 / upkeep.CHECK_INTERVAL + 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", ["revoked", "lookup"])
async def test_a_change_that_comes_during_an_outage(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with parked(monkeypatch) as (dispatch, looks, sent_away):
        await dispatch.backends.agents.remove(IDS[3])
        looks.changed = {IDS[3]}
        faults = dispatch.backends.agents.faults
        faults.only, faults.error = frozenset({method}), BackendUnavailable("away")
        await trio.sleep(5)
        assert sent_away == []
        faults.error = None
        await trio.sleep(2)
        assert sent_away == [IDS[3]]


async def test_when_a_key_is_revoked_every_poll_ends(autojump_clock: MockClock) -> None:
    """Several of an agent, as copies of a machine have, and one that parks later with a token that was read before."""
    async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(dispatch.poll)
            await trio.sleep(1)
        assert dispatch.service.parked == 3
        before = evolve(caller(), read_at=trio.current_time())
        await trio.sleep(0.1)
        dispatch.service.answer_all()
        assert dispatch.service.parked == 0
        with trio.fail_after(0.1):
            assert await dispatch.service.poll(before, deadline=trio.current_time() + 300) is None
        await trio.sleep(0.1)
        after = evolve(before, read_at=trio.current_time())
        nursery.start_soon(lambda: dispatch.service.poll(after, deadline=trio.current_time() + 300))
        await wait_all_tasks_blocked()
        assert dispatch.service.parked == 1
        nursery.cancel_scope.cancel()
