"""Commands: what is delivered to whom and when, what a poster is told, and that nothing is lost or given twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, A2, EPOCH, Dispatch, agent, caller, command, gather, open_dispatch
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.errors import BackendUnavailable, TokenInvalid
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery
from wazuh_comms_trio.services.commands.posted_commands import DeliveredCommands
from wazuh_comms_trio.services.commands.posts import POST_LIMIT


def ids(commands: Sequence[Command]) -> list[str]:
    return [one.document_id for one in commands]


async def next_delivery(dispatch: Dispatch, agent_id: str = A1, *, limit: float = 300.0) -> CommandDelivery:
    delivery = await dispatch.service.poll(caller(agent_id), deadline=trio.current_time() + limit)
    assert delivery is not None
    return delivery


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


class TestPosts:
    @pytest.mark.parametrize("keeps_posted", [True, False])
    async def test_delivered_ones_are_listed(self, keeps_posted: bool, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=keeps_posted) as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            listed = await dispatch.service.posts.post([command("c1"), command("c2"), command("away", A2)])
            assert ids(listed) == ["c1", "c2"]
            assert {one.status for one in listed} == {"sent"}
            assert dispatch.received == {A1: ["c1", "c2"]}
            assert trio.current_time() == pytest.approx(POST_LIMIT)

    @pytest.mark.parametrize("keeps_posted", [True, False])
    async def test_the_answer_is_early_when_all_are_delivered(
        self, keeps_posted: bool, autojump_clock: MockClock
    ) -> None:
        async with open_dispatch(keeps_posted=keeps_posted) as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            assert ids(await dispatch.service.posts.post([command("c1", A1.upper())])) == ["c1"]
            assert trio.current_time() == 0

    @pytest.mark.parametrize("keeps_posted", [True, False])
    async def test_an_agent_that_comes_meanwhile(self, keeps_posted: bool, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=keeps_posted) as dispatch:

            async def poll() -> list[str]:
                await trio.sleep(1)
                return list(await dispatch.poll() or ())

            async def post() -> list[str]:
                return ids(await dispatch.service.posts.post([command("c1")]))

            assert await gather(poll, post) == [["c1"], ["c1"]]

    @pytest.mark.parametrize("keeps_posted", [True, False])
    async def test_confirmed_later_it_is_remembered(self, keeps_posted: bool, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=keeps_posted) as dispatch, trio.open_nursery() as nursery:
            deliveries: list[CommandDelivery] = []

            async def poll() -> None:
                deliveries.append(await next_delivery(dispatch))

            nursery.start_soon(poll)
            await wait_all_tasks_blocked()
            assert await dispatch.service.posts.post([command("c1")]) == []
            assert (
                await dispatch.service.posts.post([command("c1")]) == []
            )  # still being delivered: not delivered again
            await deliveries[0].confirm()
            nursery.start_soon(partial(dispatch.poll, limit=50))
            await wait_all_tasks_blocked()
            before = trio.current_time()
            assert ids(await dispatch.service.posts.post([command("c1")])) == ["c1"]
            assert trio.current_time() == before
            await trio.sleep(20)
            assert dispatch.received == {}

    async def test_without_a_store_for_them_the_rest_is_the_posters(self, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=False) as dispatch:
            assert await dispatch.service.posts.post([command("c1")]) == []
            assert not dispatch.backends.commands.stored
            assert await dispatch.poll(limit=10) is None
            assert not len(dispatch.service.posts.held)

    async def test_with_one_it_waits_for_its_agent(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            assert await dispatch.service.posts.post([command("c1")]) == []
            assert await dispatch.poll(limit=10) == ["c1"]
            assert ids(await dispatch.service.posts.post([command("c1")])) == ["c1"]

    async def test_not_delivered_it_is_delivered_again_while_the_post_waits(self, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=False) as dispatch, trio.open_nursery() as nursery:

            async def poll() -> None:
                delivery = await next_delivery(dispatch)
                await trio.sleep(0.5)
                await delivery.release()
                await dispatch.poll()

            nursery.start_soon(poll)
            await wait_all_tasks_blocked()
            assert ids(await dispatch.service.posts.post([command("c1")])) == ["c1"]
            assert dispatch.received == {A1: ["c1"]}

    async def test_released_after_the_answer_it_is_gone(self, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=False) as dispatch, trio.open_nursery() as nursery:

            async def poll() -> None:
                delivery = await next_delivery(dispatch)
                await trio.sleep(10)
                await delivery.release()

            nursery.start_soon(poll)
            await wait_all_tasks_blocked()
            assert await dispatch.service.posts.post([command("c1")]) == []
            await trio.sleep(20)
            assert not len(dispatch.service.posts.held)
            assert await dispatch.poll(limit=5) is None

    async def test_posted_and_found_in_the_store_it_is_delivered_once(self, autojump_clock: MockClock) -> None:
        async with open_dispatch(keeps_posted=False) as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            assert ids(await dispatch.service.posts.post([command("c1")])) == ["c1"]
            await dispatch.backends.commands.add([command("c1")])
            assert await dispatch.poll(limit=20) is None
            assert dispatch.received == {A1: ["c1"]}
            assert dispatch.backends.commands.stored["c1"].status == "sent"

    @pytest.mark.parametrize("keeps_posted", [True, False])
    async def test_a_group_is_listed_once_its_children_are_stored(
        self, keeps_posted: bool, autojump_clock: MockClock
    ) -> None:
        async with open_dispatch(keeps_posted=keeps_posted) as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll, A2)
            await wait_all_tasks_blocked()
            group = Command("g1", Target("group", "web"), Action("restart"))
            assert ids(await dispatch.service.posts.post([group])) == ["g1"]
            assert trio.current_time() == 0
            await wait_all_tasks_blocked()
            assert dispatch.received == {A2: [f"g1_{A2}"]}
            assert await dispatch.poll() == [f"g1_{A1}"]

    async def test_servers_commands_and_old_ones_are_left_alone(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            server = Command("s1", Target("server", "x"), Action("restart"))
            assert await dispatch.service.posts.post([server, command("done", status="success")]) == []
            assert not dispatch.backends.commands.stored
            assert trio.current_time() == 0

    async def test_twice_in_one_post(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            assert ids(await dispatch.service.posts.post([command("c1"), command("c1")])) == ["c1"]
            assert dispatch.received == {A1: ["c1"]}

    async def test_a_store_that_hangs_or_is_away(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch:
            dispatch.backends.commands.faults.error = BackendUnavailable()
            with pytest.raises(BackendUnavailable):
                await dispatch.service.posts.post([command("c1")])
            dispatch.backends.commands.faults.error = None
            dispatch.backends.commands.faults.hang()
            with pytest.raises(BackendUnavailable):
                await dispatch.service.posts.post([command("c1")])
            assert trio.current_time() <= 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wazuh_comms_trio.services.commands.posted_commands._MAX_REMEMBERED", 10)

    async def main() -> None:
        delivered = DeliveredCommands()
        for number in range(100):
            delivered.note(command(f"c{number}", timeout=1000 + number))
        assert len(delivered) == 10
        assert "c99" in delivered
        await trio.sleep(2000)
        assert "c99" not in delivered
        delivered.forget()
        assert not len(delivered)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("keeps_posted", [True, False])
@pytest.mark.parametrize("seed", range(4))
async def test_each_command_reaches_its_agent_once(seed: int, keeps_posted: bool, autojump_clock: MockClock) -> None:
    """Agents poll, leave, get cut off; posters post again what wasn't delivered: once each, whatever the order."""
    rng = Random(seed)
    fleet = [f"{A1[:-3]}{number:03x}" for number in range(30)]
    received: dict[str, list[str]] = {agent_id: [] for agent_id in fleet}
    async with open_dispatch(keeps_posted=keeps_posted, agents=()) as dispatch:
        for agent_id in fleet:
            await dispatch.backends.agents.add(agent(agent_id))

        async def live(agent_id: str) -> None:
            while True:
                with trio.move_on_after(rng.uniform(0.01, 20) if rng.random() < 0.3 else 300):
                    delivery = await dispatch.service.poll(caller(agent_id), deadline=trio.current_time() + 30)
                    if delivery is not None:
                        try:
                            await trio.sleep(rng.uniform(0, 0.5))
                        except trio.Cancelled:
                            delivery.release_nowait()
                            raise
                        if rng.random() < 0.2:
                            await delivery.release()
                        else:
                            received[agent_id] += ids(delivery.commands)
                            await delivery.confirm()
                await trio.sleep(rng.uniform(0, 2))

        async def post(batch: list[Command]) -> None:
            left = batch
            while left:
                listed = set(ids(await dispatch.service.posts.post(left)))
                left = [one for one in left if one.document_id not in listed]
                await trio.sleep(10)

        async with trio.open_nursery() as nursery:
            for agent_id in fleet:
                nursery.start_soon(live, agent_id)
            async with trio.open_nursery() as posters:
                for number in range(20):
                    batch = [command(f"c{number}_{index}", rng.choice(fleet), timeout=100_000) for index in range(10)]
                    posters.start_soon(post, batch)
                    await trio.sleep(rng.uniform(0, 3))
            nursery.cancel_scope.cancel()
    everything = [one for some in received.values() for one in some]
    assert len(everything) == len(set(everything)) == 200


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
