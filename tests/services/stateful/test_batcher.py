"""Batches, the order within an agent, big packets, and how the batcher ends."""

from __future__ import annotations

import json
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, A2, A3, FIM, body, event, gather, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.config.models import Batcher
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.services.stateful.batcher import MAX_WAITING

PASSING = ItemResult(429, "busy", Outcome.PASSING)


class TestBatches:
    async def test_alone_an_event_goes_at_once(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(wait_time=10)) as stateful:
            start = trio.current_time()
            await stateful.submit(body(event()))
            assert trio.current_time() == start

    async def test_not_eager_it_waits(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(wait_time=10, eager=False)) as stateful:
            start = trio.current_time()
            await stateful.submit(body(event()))
            assert trio.current_time() - start == pytest.approx(10)

    async def submit_many(self, stateful: Any, count: int, *, size: int = 1) -> None:
        agents = [f"{A1[:-3]}{number:03x}" for number in range(count)]
        for reply in await gather(
            *(
                partial(stateful.submit, body(*(event(f"e{n}") for n in range(size)), agent_id=one), one)
                for one in agents
            )
        ):
            assert results(reply) == [(f"e{n}", 201) for n in range(size)]

    async def test_under_load_batches_form_by_themselves(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(max_elements=100, max_size=10**6, wait_time=60)) as stateful:
            stateful.backends.events.faults.delay = 0.1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stateful.submit, body(event()))
                await trio.sleep(0.05)  # the first is in flight by then
                await self.submit_many(stateful, 49)
            assert stateful.backends.events.batches == [1, 49]
            assert trio.current_time() < 1

    async def test_max_elements_is_soft_and_packets_stay_whole(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(max_elements=5, max_size=10**6, eager=False)) as stateful:
            await self.submit_many(stateful, 6, size=3)
            assert stateful.backends.events.batches == [6, 6, 6]

    async def test_max_size(self, autojump_clock: MockClock) -> None:
        size = len(body(event("e0")))
        async with open_stateful(
            batcher=Batcher(max_elements=1000, max_size=2 * size, wait_time=5, eager=False)
        ) as stateful:
            await self.submit_many(stateful, 6)
            assert stateful.backends.events.batches == [2, 2, 2]
            assert trio.current_time() < 5

    async def test_wait_time_counts_from_the_first(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(max_elements=1000, wait_time=1, eager=False)) as stateful:
            start = trio.current_time()

            async def later(pause: float, agent_id: str) -> float:
                await trio.sleep(pause)
                await stateful.submit(body(event(), agent_id=agent_id), agent_id)
                return trio.current_time() - start

            assert await gather(partial(later, 0, A1), partial(later, 0.9, A2), partial(later, 1.1, A3)) == [
                pytest.approx(1.0),
                pytest.approx(1.0),
                pytest.approx(2.1),
            ]

    async def test_only_so_many_calls_at_a_time(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(max_elements=1)) as stateful:
            events = stateful.backends.events
            events.faults.hang()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.submit_many, stateful, 40)
                await wait_all_tasks_blocked()
                assert 2 <= events.faults.calls["bulk"] <= 9
                statistics = stateful.service.statistics()
                assert statistics.waiting == 40
                assert statistics.batches_in_flight == events.faults.calls["bulk"]
                events.faults.release()
            assert stateful.service.statistics().waiting == 0


class TestOrder:
    @pytest.mark.parametrize("seed", range(5))
    async def test_an_agents_packets_are_applied_in_the_order_they_came(
        self, seed: int, autojump_clock: MockClock
    ) -> None:
        rng = Random(seed)
        async with open_stateful(batcher=Batcher(max_elements=3, eager=rng.random() < 0.5), seed=seed) as stateful:
            applied: list[DocumentOperation] = []

            def judge(one: DocumentOperation) -> ItemResult | None:
                applied.append(one)
                if rng.random() < 0.1:
                    return PASSING
                return None

            async def agent_sends(agent_id: str) -> None:
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        pad = "x" * (70_000 if rng.random() < 0.2 else 1)
                        packet = body(event("e", "update", {"n": number, "pad": pad}), agent_id=agent_id)
                        nursery.start_soon(stateful.submit, packet, agent_id)
                        await trio.sleep(0.003)

            for agent_id in (A1, A2):
                document = f'{{"agent":{{"id":"{agent_id}"}},"n":-1}}'.encode()
                await stateful.backends.events.bulk([DocumentOperation("create", FIM, f"{agent_id}_e", document)])
            stateful.backends.events.judge = judge
            stateful.backends.events.faults.delay = 0.01
            await gather(partial(agent_sends, A1), partial(agent_sends, A2))
            assert len(applied) >= 40
            for agent_id in (A1, A2):
                stored = await stateful.backends.events.get(FIM, f"{agent_id}_e")
                assert stored is not None
                assert json.loads(stored)["n"] == 19

    async def test_a_packet_that_overtook_an_earlier_one_goes_again_after_it(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:
            verdicts = iter([PASSING])
            stateful.backends.events.judge = lambda one: next(verdicts, None) if one.action == "create" else None
            replies: dict[str, bytes] = {}

            async def send(operation: str) -> None:
                replies[operation] = await stateful.submit(body(event("e", operation)))

            async with trio.open_nursery() as nursery:
                for operation in ("create", "delete"):
                    nursery.start_soon(send, operation)
                    await wait_all_tasks_blocked()
            assert (results(replies["create"]), results(replies["delete"])) == ([("e", 201)], [("e", 200)])
            assert stateful.backends.events.batches == [2, 2]

    async def test_a_retry_waits_for_what_is_in_flight_of_its_earlier_try(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            events = stateful.backends.events
            events.faults.hang()
            with trio.move_on_after(1):
                await stateful.submit(body(event("e")))  # the client leaves
            async with trio.open_nursery() as nursery:
                replies: list[bytes] = []

                async def again() -> None:
                    replies.append(await stateful.submit(body(event("e"))))

                nursery.start_soon(again)
                await trio.sleep(1)
                assert events.faults.calls["bulk"] == 1
                events.faults.release()
            assert results(replies[0]) == [("e", 200)]
            assert json.loads(replies[0])["results"][0]["result"] == "noop"

    async def test_another_agent_doesnt_wait_for_that(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            events = stateful.backends.events
            events.faults.hang()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stateful.submit, body(event("e")))
                await wait_all_tasks_blocked()
                nursery.start_soon(partial(stateful.submit, body(event("e"), agent_id=A2), A2))
                await trio.sleep(1)
                assert events.faults.calls["bulk"] == 2
                events.faults.release()


class TestBigPackets:
    def big(self, agent_id: str = A1, *, count: int = 60_000) -> bytes:
        return body(*(event(f"e{number}", data={"pad": "x" * 200}) for number in range(count)), agent_id=agent_id)

    async def test_in_pieces_and_in_order(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            reply = await stateful.submit(self.big(count=50_000) + event("bad", "upsert"))
            assert results(reply) == [*((f"e{number}", 201) for number in range(50_000)), ("bad", 400)]
            assert len(stateful.backends.events.batches) > 2
            assert sum(stateful.backends.events.batches) == 50_000
            assert len(stateful.quarantine.rejected) == 1

    async def test_small_ones_dont_wait_for_it(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.delay = 0.5
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stateful.submit, self.big())
                await trio.sleep(0.1)
                start = trio.current_time()
                for number in range(3):
                    await stateful.submit(body(event(f"e{number}"), agent_id=A2), A2)
                assert trio.current_time() - start == pytest.approx(1.5)
                assert stateful.service.statistics().pieces_in_flight == 1

    async def test_several_share_the_index_evenly(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.delay = 0.1
            agents = [f"{A1[:-3]}{number:03x}" for number in range(8)]
            packets = {
                agent_id: self.big(agent_id, count=4000 * (1 + 9 * (agent_id == agents[0]))) for agent_id in agents
            }
            done: dict[str, float] = {}

            async def send(agent_id: str) -> None:
                await stateful.submit(packets[agent_id], agent_id)
                done[agent_id] = trio.current_time()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, agents[0])
                await trio.sleep(0.01)
                for agent_id in agents[1:]:
                    nursery.start_soon(send, agent_id)
            assert max(done[agent_id] for agent_id in agents[1:]) < done[agents[0]]

    async def test_an_agents_packets_stay_in_order_around_it(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.delay = 0.1
            first, big, last = body(event("e0")), self.big(), body(event("e1", "delete"))
            async with trio.open_nursery() as nursery:
                replies: dict[int, bytes] = {}

                async def send(number: int, packet: bytes) -> None:
                    replies[number] = await stateful.submit(packet)

                for number, packet in enumerate((first, big, last)):
                    nursery.start_soon(send, number, packet)
                    await trio.sleep(0.001)
            assert results(replies[0]) == [("e0", 201)]
            assert results(replies[1])[0] == ("e0", 200)  # replaced
            assert results(replies[2]) == [("e1", 200)]

    async def test_a_hanging_index(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.hang()
            with pytest.raises(BackendUnavailable):
                await stateful.submit(self.big())
            assert trio.current_time() == pytest.approx(29.5)

    async def test_the_client_leaves_in_the_middle(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.delay = 1
            with trio.move_on_after(2.5):
                await stateful.submit(self.big())
            applied = sum(stateful.backends.events.batches)
            assert 0 < applied < 60_000
            start = trio.current_time()
            await stateful.submit(body(event("after")))  # waits for the piece in flight
            assert trio.current_time() - start == pytest.approx(1.5)
            assert stateful.service.statistics().waiting == 0

    async def test_the_client_leaves_before_its_turn(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.delay = 5
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stateful.submit, body(event()))
                await trio.sleep(1)
                with trio.move_on_after(1):
                    await stateful.submit(self.big())
                assert results(await stateful.submit(body(event("e2")))) == [("e2", 201)]
            assert stateful.service.statistics().waiting == 0

    async def test_hundreds_of_unusable_lines(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            packet = body(*(b'\n{"id":"x%d","id":"x","module":"fim","operation":"delete"}' % n for n in range(500)))
            assert results(await stateful.submit(packet)) == [("x", 400)] * 500
            assert len(stateful.quarantine.rejected) == 500


class TestStop:
    async def test_what_is_there_is_finished(self, autojump_clock: MockClock) -> None:
        replies: list[bytes] = []
        async with trio.open_nursery() as outer:
            async with open_stateful(batcher=Batcher(wait_time=60, eager=False)) as stateful:
                stateful.backends.events.faults.delay = 0.5

                async def send(agent_id: str) -> None:
                    replies.append(await stateful.submit(body(event(), agent_id=agent_id), agent_id))

                outer.start_soon(send, A1)
                outer.start_soon(send, A2)
                await wait_all_tasks_blocked()
            assert trio.current_time() == pytest.approx(0.5)
            with pytest.raises(BackendUnavailable):
                await stateful.submit(body(event()))
        assert len(replies) == 2

    async def test_cancelled_it_leaves_nobody_waiting(self, autojump_clock: MockClock) -> None:
        async with trio.open_nursery() as outer:

            async def send(stateful: Any, packet: bytes, agent_id: str) -> None:
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(packet, agent_id)

            async with open_stateful() as stateful:
                stateful.backends.events.faults.hang()
                big = body(*(event(f"e{number}") for number in range(2000)), agent_id=A2)
                for packet, agent_id in ((body(event()), A1), (body(event("e2")), A1), (big, A2), (big, A2)):
                    outer.start_soon(send, stateful, packet, agent_id)
                await wait_all_tasks_blocked()
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
                stateful.batcher.cancel()
        assert trio.current_time() == 0

    async def test_a_request_that_waits_for_room_is_told(self, autojump_clock: MockClock) -> None:
        failures: list[str] = []
        async with trio.open_nursery() as outer, open_stateful() as stateful:
            stateful.backends.events.faults.hang()

            async def send(number: int) -> None:
                try:
                    await stateful.submit(body(event(f"e{number}")))
                except BackendUnavailable:
                    failures.append(f"e{number}")

            for number in range(1, MAX_WAITING + 4):  # one in flight, and two for whom there is no room
                outer.start_soon(send, number)
                await wait_all_tasks_blocked()
            stateful.service.close()
            await wait_all_tasks_blocked()
            assert set(failures) == {f"e{MAX_WAITING + 2}", f"e{MAX_WAITING + 3}"}
            stateful.backends.events.faults.release()
        assert len(failures) == 2
        assert len(stateful.backends.events.documents) == MAX_WAITING + 1

    async def test_cancelled_nobody_waits_for_room(self, autojump_clock: MockClock) -> None:
        failures = 0
        async with trio.open_nursery() as outer, open_stateful() as stateful:
            stateful.backends.events.faults.hang()

            async def send(number: int) -> None:
                nonlocal failures
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event(f"e{number}")))
                failures += 1

            for number in range(MAX_WAITING + 100):
                outer.start_soon(send, number)
            await wait_all_tasks_blocked()
            stateful.batcher.cancel()
        assert failures == MAX_WAITING + 100
        assert trio.current_time() == 0


class TestRoom:
    async def test_one_agents_flood_is_bounded_and_in_order(self, autojump_clock: MockClock) -> None:
        count = MAX_WAITING + 200
        async with open_stateful() as stateful:
            events = stateful.backends.events
            applied: list[str] = []

            def note(one: DocumentOperation) -> None:
                applied.append(one.document_id)

            events.judge = note
            events.faults.hang()
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(stateful.submit, body(event(f"e{number}")))
                    await wait_all_tasks_blocked()
                assert events.faults.calls["bulk"] == 1
                assert stateful.service.statistics().waiting == count
                events.faults.release()
            assert applied == [f"{A1}_e{number}" for number in range(count)]
            assert stateful.service.statistics().waiting == 0

    async def test_a_request_that_gives_up_waiting_for_room_leaves_nothing(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            events = stateful.backends.events
            events.faults.hang()
            async with trio.open_nursery() as nursery:
                for number in range(MAX_WAITING + 1):
                    nursery.start_soon(stateful.submit, body(event(f"e{number}")))
                await wait_all_tasks_blocked()
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event("late")), limit=10)
                assert trio.current_time() == pytest.approx(9.5)
                events.faults.release()
            assert len(events.documents) == MAX_WAITING + 1
