"""Posts: what a poster is told, and that nothing is lost or given twice."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import (
    A1,
    A2,
    agent,
    caller,
    command,
    gather,
    ids,
    next_delivery,
    open_dispatch,
)
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery
from wazuh_comms_trio.services.commands.other_workers import NoOtherWorkers
from wazuh_comms_trio.services.commands.posted_commands import DeliveredCommands
from wazuh_comms_trio.services.commands.posts import POST_LIMIT


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

    @pytest.mark.parametrize("delay", [0.0, 0.6])
    @pytest.mark.parametrize("keeps_posted", [True, False])
    async def test_one_is_urgent_until_its_poll_is_answered(
        self, keeps_posted: bool, delay: float, autojump_clock: MockClock
    ) -> None:
        async with open_dispatch(keeps_posted=keeps_posted) as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            assert not dispatch.service.is_urgent()
            faults = dispatch.backends.commands.faults
            faults.delay, faults.only = delay, frozenset({"add", "claim"})
            seen: list[bool] = []

            async def look() -> None:
                while A1 not in dispatch.received:
                    seen.append(dispatch.service.is_urgent() or not dispatch.service.parked)
                    await trio.sleep(0.1 if delay else 0)

            nursery.start_soon(look)
            await trio.lowlevel.checkpoint()
            await dispatch.service.posts.post([command("c1")])
            await wait_all_tasks_blocked()
            assert len(seen) > 2
            assert all(seen[2:])
            assert not dispatch.service.is_urgent()

    async def test_one_for_an_agent_that_is_not_parked_is_not_urgent(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            dispatch.backends.commands.faults.delay = 0.5
            nursery.start_soon(dispatch.service.posts.post, [command("c1")])
            for _ in range(30):
                assert not dispatch.service.is_urgent()
                await trio.sleep(0.1)

    async def test_what_the_store_cannot_take_is_not_urgent_any_more(self, autojump_clock: MockClock) -> None:
        async with open_dispatch() as dispatch, trio.open_nursery() as nursery:
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            dispatch.backends.commands.faults.only = frozenset({"add"})
            dispatch.backends.commands.faults.error = BackendUnavailable()
            with pytest.raises(BackendUnavailable):
                await dispatch.service.posts.post([command("c1")])
            assert not dispatch.service.is_urgent()
            nursery.cancel_scope.cancel()

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


class _Node(NoOtherWorkers):
    """Grants every right, and knows which are out."""

    def __init__(self) -> None:
        self.granted: set[str] = set()

    async def acquire(self, document_ids: Collection[str]) -> Collection[str]:
        self.granted.update(document_ids)
        await trio.lowlevel.checkpoint()
        return document_ids

    def returned(self, document_ids: Collection[str]) -> None:
        self.granted.difference_update(document_ids)


@pytest.mark.parametrize("answer", [None, BackendUnavailable()], ids=["late answer", "late failure"])
async def test_a_right_that_outlives_its_post_goes_back(answer: Exception | None, autojump_clock: MockClock) -> None:
    """The store takes longer to say what it has than the post waits."""
    node = _Node()
    async with open_dispatch(keeps_posted=False, other_workers=node) as dispatch, trio.open_nursery() as nursery:
        nursery.start_soon(dispatch.poll)
        await wait_all_tasks_blocked()
        faults = dispatch.backends.commands.faults
        faults.only, faults.delay, faults.error = frozenset({"claim"}), 5.0, answer
        assert await dispatch.service.posts.post([command("c1")]) == []
        assert node.granted == {"c1"}
        await trio.sleep(5)
        assert node.granted == set()
        nursery.cancel_scope.cancel()


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
