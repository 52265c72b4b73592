"""A command for a whole fleet: it takes turns with requests, and nothing is lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import Dispatch, command, open_dispatch
from wazuh_comms_trio.services.commands import deliveries, delivery_recorder, lookup_queue
from wazuh_comms_trio.services.commands.long_polls import LongPolls

COUNT = 1200
IDS = [f"{number:08x}-39b5-7bfb-a7bc-c5c6835f03d1" for number in range(COUNT)]
FOR_ALL = [command(f"c-{agent_id}", agent_id) for agent_id in IDS]


class Turns(trio.abc.Instrument):
    """Counts the event loop's turns."""

    number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


@asynccontextmanager
async def parked() -> AsyncIterator[tuple[Dispatch, Turns]]:
    turns = Turns()
    async with open_dispatch(agents=IDS) as dispatch, trio.open_nursery() as nursery:
        for agent_id in IDS:
            nursery.start_soon(dispatch.poll, agent_id)
        await wait_all_tasks_blocked()
        assert dispatch.service.parked == COUNT
        trio.lowlevel.add_instrument(turns)
        try:
            yield dispatch, turns
        finally:
            trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()


async def test_few_deliveries_begin_in_a_turn(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parked() as (dispatch, turns):
        begun: Counter[int] = Counter()
        answer = LongPolls.answer

        def noted(self: LongPolls, *arguments: object) -> None:
            begun[turns.number] += 1
            answer(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(LongPolls, "answer", noted)
        await dispatch.backends.commands.add(FOR_ALL)
        await wait_all_tasks_blocked()
        assert sum(begun.values()) == COUNT
        assert max(begun.values()) == deliveries._BEGUN_AT_ONCE
        assert {one.status for one in dispatch.backends.commands.stored.values()} == {"sent"}


async def test_few_requests_go_on_in_a_turn_when_the_store_has_taken_note(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parked() as (dispatch, turns):
        done: Counter[int] = Counter()
        dispatch.backends.commands.faults.only = frozenset({"mark_sent"})
        dispatch.backends.commands.faults.delay = 1.0  # all confirmations but the first are written together

        async def poll(agent_id: str) -> None:
            await dispatch.poll(agent_id)
            done[turns.number] += 1

        async with trio.open_nursery() as nursery:
            dispatch.service.answer_oldest(COUNT)
            await wait_all_tasks_blocked()
            for agent_id in IDS:
                nursery.start_soon(poll, agent_id)
            await wait_all_tasks_blocked()
            await dispatch.backends.commands.add(FOR_ALL)
        assert sum(done.values()) == COUNT
        assert max(done.values()) <= delivery_recorder._WOKEN_AT_ONCE


async def test_a_request_waits_for_few_deliveries(autojump_clock: MockClock) -> None:
    """One that needs ten turns of the loop."""
    async with parked() as (dispatch, turns):
        await dispatch.backends.commands.add(FOR_ALL)
        while dispatch.service.parked == COUNT:
            await trio.lowlevel.checkpoint()
        before, parked_before = turns.number, dispatch.service.parked
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert turns.number - before == 10
        # In the first turn the deliveries may come after this task, in the last one before it.
        assert 0 < parked_before - dispatch.service.parked <= 11 * deliveries._BEGUN_AT_ONCE


async def test_the_store_is_asked_for_more_while_deliveries_begin(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parked() as (dispatch, _):
        parked_at: list[int] = []
        claim = dispatch.backends.commands.claim

        async def noted(agent_ids: set[str]) -> object:
            parked_at.append(dispatch.service.parked)
            assert len(agent_ids) <= lookup_queue._AGENTS_PER_LOOKUP
            return await claim(agent_ids)

        monkeypatch.setattr(dispatch.backends.commands, "claim", noted)
        await dispatch.backends.commands.add(FOR_ALL)
        await wait_all_tasks_blocked()
        first, second, third, *_ = parked_at
        assert first == COUNT
        assert second > COUNT - deliveries._BEGUN_AT_ONCE * 5
        assert COUNT - 2 * lookup_queue._AGENTS_PER_LOOKUP < third < second


async def test_polls_that_leave_before_their_delivery_begins(autojump_clock: MockClock) -> None:
    """What was claimed for them goes back, and to their next polls, with what came meanwhile."""
    async with parked() as (dispatch, _), trio.open_nursery() as nursery:
        await dispatch.backends.commands.add(FOR_ALL)
        while dispatch.service.parked > COUNT - 100:
            await trio.lowlevel.checkpoint()
        waiting = [agent_id for agent_id in IDS if agent_id in dispatch.service._long_polls]
        assert dispatch.service.answer_oldest(COUNT) == len(waiting) > COUNT // 2
        await dispatch.backends.commands.add([command(f"d-{agent_id}", agent_id) for agent_id in waiting])
        for agent_id in waiting:
            nursery.start_soon(dispatch.poll, agent_id)
        await wait_all_tasks_blocked()
        for agent_id in waiting:  # what wasn't there yet for the first of them is for the second
            nursery.start_soon(dispatch.poll, agent_id)
        await wait_all_tasks_blocked()
        assert all(sorted(dispatch.received[agent_id]) == [f"c-{agent_id}", f"d-{agent_id}"] for agent_id in waiting)
        nursery.cancel_scope.cancel()


async def test_an_agent_that_is_named_again_meanwhile(autojump_clock: MockClock) -> None:
    """It is left out of the next look-up, and comes again once what was found for it is handed out."""
    async with parked() as (dispatch, _):
        # Half of the fleet has nothing: their look-up finds nothing, and what comes for them meanwhile isn't lost.
        some = IDS[: COUNT // 2]
        dispatch.service.lookups.schedule(IDS)
        await dispatch.backends.commands.add([command(f"c-{agent_id}", agent_id) for agent_id in some])
        while dispatch.service.parked == COUNT:
            await trio.lowlevel.checkpoint()
        await dispatch.backends.commands.add([command(f"c-{agent_id}", agent_id) for agent_id in IDS[len(some) :]])
        await wait_all_tasks_blocked()
        assert {one.status for one in dispatch.backends.commands.stored.values()} == {"sent"}
        assert dispatch.service.parked == 0


async def test_stopping_in_the_middle_gives_back_what_no_poll_got(autojump_clock: MockClock) -> None:
    async with parked() as (dispatch, _):
        store = dispatch.backends.commands
        await store.add(FOR_ALL)
        while dispatch.service.parked > COUNT - 100:
            await trio.lowlevel.checkpoint()
        dispatch.service.close()
        await trio.sleep(10)
        delivered = {one for ids in dispatch.received.values() for one in ids}
        assert 0 < len(delivered) < COUNT
        for one in store.stored.values():
            assert one.status == ("sent" if one.document_id in delivered else "pending")
        left = [agent_id for agent_id in IDS if f"c-{agent_id}" not in delivered]
        assert len(await store.claim(left)) == len(left)


async def test_what_another_worker_delivered_meanwhile_isnt_delivered_again(autojump_clock: MockClock) -> None:
    """As a posted one, while the store's waits for its turn here."""
    async with parked() as (dispatch, _):
        await dispatch.backends.commands.add(FOR_ALL)
        while dispatch.service.parked == COUNT:
            await trio.lowlevel.checkpoint()
        waiting = [agent_id for agent_id in IDS if agent_id in dispatch.service._long_polls]
        dispatch.service.posts.handle_delivered({f"c-{agent_id}": 100.0 for agent_id in waiting})
        await wait_all_tasks_blocked()
        assert dispatch.service.parked == len(waiting)
        assert not dispatch.received.keys() & set(waiting)
        assert {one.status for one in dispatch.backends.commands.stored.values()} == {"sent"}
