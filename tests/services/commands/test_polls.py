"""Polls: what is delivered to whom and when, who is sent away, and what an outage or the end does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import (
    A1,
    A2,
    EPOCH,
    Dispatch,
    agent,
    caller,
    command,
    gather,
    next_delivery,
    open_dispatch,
    trio_wall_clock,
)
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.errors import BackendUnavailable, TokenInvalid
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher


class TestPolls:
    async def test_what_waits_is_answered_at_once(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            await dispatch.backends.commands.add([command("c1"), command("c2"), command("other", A2)])
            assert await dispatch.poll() == ["c1", "c2"]
            assert trio.current_time() == 0
            assert dispatch.backends.commands.stored["c1"].status == "sent"
            assert dispatch.backends.commands.stored["other"].status == "pending"

    async def test_what_comes_later_wakes_only_its_agent(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            nursery.start_soon(dispatch.poll, A2)
            await trio.sleep(100)
            assert dispatch.service.parked == 2
            claims = dispatch.backends.commands.faults.calls["claim"]
            await dispatch.backends.commands.add([command("c1")])
            await wait_all_tasks_blocked()
            assert dispatch.received == {A1: ["c1"]}
            assert dispatch.service.parked == 1
            assert dispatch.backends.commands.faults.calls["claim"] == claims + 1
            nursery.cancel_scope.cancel()
        assert dispatch.service.parked == 0

    async def test_nothing_by_the_deadline(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            assert await dispatch.poll(limit=300) is None
            assert trio.current_time() == pytest.approx(300)
            assert dispatch.service.parked == 0

    async def test_a_poll_ends_with_its_token(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            assert await dispatch.poll(expires=EPOCH + 40) is None
            assert trio.current_time() == pytest.approx(40)
            assert await dispatch.poll(expires=EPOCH + 40) is None
            assert trio.current_time() == pytest.approx(40)

    async def test_limits_are_spread(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            limits = [dispatch.service.poll_limit() for _ in range(200)]
            assert 270 <= min(limits) < 275
            assert 325 < max(limits) <= 330

    async def test_the_newest_poll_of_an_agent_first(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            answered: list[str] = []

            async def poll(name: str) -> None:
                await dispatch.poll()
                answered.append(name)

            for name in ("dead laptop", "older", "newest"):
                nursery.start_soon(poll, name)
                await wait_all_tasks_blocked()
            for number in range(3):
                await dispatch.backends.commands.add([command(f"c{number}")])
                await wait_all_tasks_blocked()
            assert answered == ["newest", "older", "dead laptop"]

    async def test_one_token_parks_one_poll(self, autojump_clock: MockClock) -> None:
        """A newer poll sends the older away, not before that is 5 s old; of a flood eight wait, until then."""
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            ended: list[tuple[str, float]] = []

            async def poll(name: str) -> None:
                assert await dispatch.poll() is None
                ended.append((name, trio.current_time()))

            nursery.start_soon(poll, "first")
            await trio.sleep(20)
            nursery.start_soon(poll, "second")
            await wait_all_tasks_blocked()
            assert ended == [("first", 20)]
            await trio.sleep(1)
            nursery.start_soon(poll, "third")
            await trio.sleep(10)
            assert ended == [("first", 20), ("second", 25)]
            for _ in range(5000):
                nursery.start_soon(poll, "flood")
            await wait_all_tasks_blocked()
            assert dispatch.service.parked == 8
            await trio.sleep(6)
            assert dispatch.service.parked == 1
            nursery.cancel_scope.cancel()

    async def test_a_poll_at_another_worker_sends_this_one_away(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            nursery.start_soon(dispatch.poll, A2)
            await trio.sleep(1)
            dispatch.service.parked_elsewhere(A1)
            await trio.sleep(3.9)
            assert dispatch.service.parked == 2
            await trio.sleep(0.2)
            assert dispatch.service.parked == 1
            nursery.cancel_scope.cancel()

    async def test_the_oldest_can_be_sent_away(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            for agent in (A1, A2):
                nursery.start_soon(dispatch.poll, agent)
                await wait_all_tasks_blocked()
            assert dispatch.service.answer_oldest(1) == 1
            assert dispatch.service.parked == 1
            await dispatch.backends.commands.add([command("other", A2)])
            await wait_all_tasks_blocked()
            assert dispatch.received == {A2: ["other"]}
            assert dispatch.service.answer_oldest(5) == 0

    async def test_who_is_sent_away_for_want_of_room_is_counted(self, autojump_clock: MockClock) -> None:
        counted: list[int] = []
        backends = memory_backends()
        service = CommandDispatcher(
            backends.commands, backends.agents, poll_timeout=300, wall_clock=trio_wall_clock, rng=Random(0),
            parked_limit=2, refused=counted.append,
        )  # fmt: skip
        dispatch = Dispatch(service, backends)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            for agent_id in (A1, A2, A1[:-1] + "3", A1[:-1] + "4"):
                await backends.agents.add(agent(agent_id))
                nursery.start_soon(dispatch.poll, agent_id)
                await wait_all_tasks_blocked()
            assert counted == [1, 1]
            assert service.answer_oldest(5) == 2
            await wait_all_tasks_blocked()
            assert service.answer_oldest(5) == 0
            assert counted == [1, 1, 2]
            nursery.cancel_scope.cancel()

    async def test_one_delivery_at_a_time(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            store = dispatch.backends.commands
            await store.add([command("c1")])
            delivery = await next_delivery(dispatch)
            await store.add([command("c2")])
            nursery.start_soon(dispatch.poll)
            await trio.sleep(20)
            assert dispatch.received == {}
            await delivery.confirm()
            await wait_all_tasks_blocked()
            assert dispatch.received == {A1: ["c2"]}

    async def test_what_didnt_arrive_is_delivered_to_the_next(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            await dispatch.backends.commands.add([command("c1")])
            delivery = await next_delivery(dispatch)
            await delivery.release()
            before = dispatch.backends.commands.stored["c1"]
            assert before.status == "pending"
            assert await dispatch.poll() == ["c1"]
            await delivery.confirm()  # too late, and no harm
            await delivery.release()
            assert dispatch.backends.commands.stored["c1"].status == "sent"
            assert await dispatch.poll(limit=10) is None

    async def test_a_client_that_leaves_while_it_is_answered(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:

            async def poll_and_leave() -> None:
                delivery = await dispatch.service.poll(caller(), deadline=trio.current_time() + 10)
                if delivery is not None:
                    delivery.release_nowait()

            for turn in range(50):  # at every moment between the news and the answer
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(poll_and_leave)
                    await wait_all_tasks_blocked()
                    await dispatch.backends.commands.add([command("c1")])
                    for _ in range(Random(turn).randrange(8)):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            assert await dispatch.poll(limit=10) == ["c1"]

    async def test_a_cancelled_confirmation_counts(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            await dispatch.backends.commands.add([command("c1")])
            delivery = await next_delivery(dispatch)
            with trio.CancelScope() as scope:
                scope.cancel()
                await delivery.confirm()
            await wait_all_tasks_blocked()
            assert dispatch.backends.commands.stored["c1"].status == "sent"

    async def test_a_cancelled_release_counts(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            await dispatch.backends.commands.add([command("c1")])
            delivery = await next_delivery(dispatch)
            with trio.CancelScope() as scope:
                scope.cancel()
                await delivery.release()
            assert await dispatch.poll(limit=1) == ["c1"]

    async def test_news_that_come_while_one_looks(self, autojump_clock: MockClock) -> None:
        """No wake-up is lost between the look and the wait."""
        async with open_dispatch() as dispatch:
            dispatch.backends.commands.faults.only = frozenset({"claim"})
            dispatch.backends.commands.faults.delay = 1
            for number in range(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(dispatch.poll, limit=10))
                    await trio.sleep(number * 0.1)
                    await dispatch.backends.commands.add([command(f"c{number}")])
            assert dispatch.received == {A1: [f"c{number}" for number in range(20)]}

    async def test_a_command_that_ran_out_of_time(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            await dispatch.backends.commands.add([command("c1", timeout=5), command("c2", timeout=5)])
            delivery = await next_delivery(dispatch)
            await delivery.confirm()
            await dispatch.backends.commands.add([command("c3", timeout=5)])
            await trio.sleep(7)
            stored = dispatch.backends.commands.stored
            assert [(one.status, one.result and one.result.message) for one in stored.values()] == [
                ("failed", "no answer"),
                ("failed", "no answer"),
                ("failed", "not delivered in time"),
            ]
            assert await dispatch.poll(limit=1) is None


class TestRevocation:
    async def test_a_removed_agents_poll(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll, A2)

            async def poll() -> None:
                with pytest.raises(TokenInvalid):
                    await dispatch.poll()
                assert trio.current_time() <= 11.0
                nursery.cancel_scope.cancel()

            nursery.start_soon(poll)
            await trio.sleep(10)
            await dispatch.backends.agents.remove(A1)

    async def test_a_rekeyed_agents_old_poll_and_new_poll(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:

            async def poll_with_old_key() -> None:
                with pytest.raises(TokenInvalid):
                    await dispatch.poll()

            nursery.start_soon(poll_with_old_key)
            await wait_all_tasks_blocked()
            await dispatch.backends.agents.rekey(A1, hash_key("another"))
            renewed = await dispatch.backends.agents.get(A1)
            assert renewed is not None
            new = caller(key_hash=renewed.key_hash)
            nursery.start_soon(partial(dispatch.service.poll, new, deadline=5.0))
            await trio.sleep(2)
            assert dispatch.service.parked == 1
            await trio.sleep(2)
            assert dispatch.service.parked == 1

    async def test_a_registry_that_is_away_ends_nothing(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            dispatch.backends.agents.faults.error = BackendUnavailable()
            assert await dispatch.poll(limit=10) is None


class TestOutages:
    async def test_looking_goes_on_when_the_store_is_back(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            store = dispatch.backends.commands
            await store.add([command("c1")])
            store.faults.error = BackendUnavailable()
            nursery.start_soon(dispatch.poll)
            await trio.sleep(30)
            assert dispatch.service.parked == 1
            store.faults.error = None
            await trio.sleep(2)
            assert dispatch.received == {A1: ["c1"]}

    async def test_a_delivery_is_marked_when_the_store_is_back(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            store = dispatch.backends.commands
            await store.add([command("c1")])
            delivery = await next_delivery(dispatch)
            store.faults.error = BackendUnavailable()
            await delivery.confirm()
            assert trio.current_time() == pytest.approx(5)
            assert await dispatch.poll(limit=30) is None
            store.faults.error = None
            await trio.sleep(3)
            assert store.stored["c1"].status == "sent"


class TestStop:
    async def test_parked_polls_are_answered(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            polls = [partial(dispatch.poll, agent_id) for agent_id in (A1, A1, A2)]

            async def stop() -> Sequence[str] | None:
                await trio.sleep(5)
                dispatch.service.close()
                return None

            assert await gather(*polls, stop) == [None] * 4
            assert trio.current_time() == 5
            assert await dispatch.poll() is None

    async def test_a_delivery_in_hand_is_waited_for(self, autojump_clock: MockClock) -> None:
        async with trio.open_nursery() as nursery:
            async with open_dispatch() as dispatch:
                await dispatch.backends.commands.add([command("c1"), command("c2", A2)])
                first, second = await next_delivery(dispatch), await next_delivery(dispatch, A2)

                async def decide() -> None:
                    await trio.sleep(3)
                    await first.confirm()
                    await second.release()

                nursery.start_soon(decide)
            assert trio.current_time() == 3
        statuses = [one.status for one in dispatch.backends.commands.stored.values()]
        assert statuses == ["sent", "pending"]
        assert not dispatch.backends.commands.claimed


async def test_ten_thousand_parked(autojump_clock: MockClock) -> None:
    fleet = [f"{A1[:-5]}{number:05x}" for number in range(10_000)]
    async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
        for agent_id in fleet:
            nursery.start_soon(dispatch.poll, agent_id)
        await wait_all_tasks_blocked()
        assert dispatch.service.parked == 10_000
        for agent_id in fleet[:3]:
            await dispatch.backends.commands.add([command(f"c_{agent_id}", agent_id)])
        await wait_all_tasks_blocked()
        assert dispatch.service.parked == 9997
        assert dispatch.backends.commands.faults.calls["claim"] < 100
        dispatch.service.close()
        await wait_all_tasks_blocked()
        assert dispatch.service.parked == 0
