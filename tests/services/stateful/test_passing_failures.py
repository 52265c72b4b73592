"""What passes: stores that fail, hang or are full, and who is told what meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.services.bench import A1, A2, A3, Stateful, body, event, gather, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.config.models import Batcher
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.services.stateful.submission import LOOK_AFTER

SCA = "wazuh-states-sca"
PASSING = ItemResult(429, "busy", Outcome.PASSING)


class TestPassingFailures:
    async def test_a_failing_call_is_tried_again(
        self, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
    ) -> None:
        caplog.set_level("INFO")
        async with open_stateful() as stateful:
            stateful.backends.events.faults.next_errors.extend([BackendUnavailable()] * 4)
            assert results(await stateful.submit(body(event()))) == [("e1", 201)]
            assert 0.5 < trio.current_time() < 5
        lines = [record.getMessage() for record in caplog.records if "stored" in record.getMessage()]
        assert len(lines) == 2  # one when it began, one when it was over

    async def test_a_failing_item_is_tried_again_alone(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            verdicts = iter([None, PASSING, None, PASSING])
            stateful.backends.events.judge = lambda one: next(verdicts, None)
            reply = await stateful.submit(body(event("e1"), event("e2"), event("e3")))
            assert results(reply) == [("e1", 201), ("e2", 201), ("e3", 201)]
            assert stateful.backends.events.batches == [3, 1, 1]

    async def test_what_follows_it_on_the_same_document_is_applied_again_after_it(
        self, autojump_clock: MockClock
    ) -> None:
        async with open_stateful() as stateful:
            verdicts = iter([None, PASSING])
            stateful.backends.events.judge = lambda one: next(verdicts, None)
            packet = body(event("e", data={"n": 1}), event("e", "update", {"n": 2}), event("e", "update", {"n": 3}))
            assert results(await stateful.submit(packet)) == [("e", 201), ("e", 200), ("e", 200)]
            assert stateful.backends.events.batches == [3, 2]
            (document,) = stateful.backends.events.documents.values()
            assert b'"n":3' in document.body

    async def test_it_is_known_which_requests_are_still_open(self, autojump_clock: MockClock) -> None:
        """A store that takes a second step asks before it."""
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:
            events = stateful.backends.events
            complete = events.bulk
            seen: list[list[bool]] = []

            async def bulk(
                operations: Sequence[DocumentOperation],
                *,
                boundaries: Sequence[int] = (),
                is_open: Callable[[int], bool] | None = None,
            ) -> Sequence[ItemResult]:
                assert is_open is not None
                for _ in range(3):
                    seen.append([is_open(position) for position in range(len(operations))])
                    await trio.sleep(2)
                return await complete(operations)

            events.bulk = bulk  # type: ignore[method-assign]

            async def leave() -> None:
                with trio.move_on_after(1):
                    await stateful.submit(body(event("e1"), event("e2")))

            async def give_up() -> None:
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event("e1"), agent_id=A2), A2, limit=3.5)

            async def stay() -> None:
                await stateful.submit(body(event("e1"), agent_id=A3), A3)

            await gather(leave, give_up, stay)
        first, second, third = (sorted(each) for each in seen[:3])
        assert (first, second, third) == ([True] * 4, [False, False, True, True], [False, False, False, True])

    async def test_nothing_is_begun_for_one_that_has_left(self, autojump_clock: MockClock) -> None:
        """Once it has taken a second; and of one that has left within it the first try is made."""
        async with open_stateful() as stateful:
            stateful.backends.events.faults.next_errors.extend([BackendUnavailable()] * 20)
            began = trio.current_time()
            with pytest.raises(BackendUnavailable):
                await stateful.submit(body(event("e1")), has_left=lambda: True)
            assert LOOK_AFTER <= trio.current_time() - began < 10
            stateful.backends.events.faults.next_errors.clear()
            assert results(await stateful.submit(body(event("e2")), has_left=lambda: True)) == [("e2", 201)]
            with pytest.raises(BackendUnavailable):  # it was held up before
                await stateful.submit(body(event("e4")), has_left=lambda: True, came=trio.current_time() - 1.1)
            stateful.backends.events.faults.next_errors.extend([BackendUnavailable()] * 3)
            assert results(await stateful.submit(body(event("e3")), has_left=lambda: False)) == [("e3", 201)]
            assert {key[1] for key in stateful.backends.events.documents} == {f"{A1}_e2", f"{A1}_e3"}

    async def test_an_item_that_goes_on_failing_fails_its_packet_and_no_other(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:
            stateful.backends.events.judge = lambda one: PASSING if one.document_id == f"{A1}_e2" else None

            async def unlucky() -> float:
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event("e1"), event("e2")))
                return trio.current_time()

            async def lucky() -> float:
                await stateful.submit(body(event("e1"), agent_id=A2), A2)
                return trio.current_time()

            assert await gather(unlucky, lucky) == [pytest.approx(29.5), pytest.approx(0.15)]

    async def test_a_hanging_index_settles_everyone_in_time(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.hang()
            agents = [f"{A1[:-3]}{number:03x}" for number in range(100)]

            async def send(agent_id: str) -> float:
                start = trio.current_time()
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event(), agent_id=agent_id), agent_id, limit=30)
                return trio.current_time() - start

            assert max(await gather(*(partial(send, agent_id) for agent_id in agents))) == pytest.approx(29.5)
            stateful.backends.events.faults.release()
            assert results(await stateful.submit(body(event("e2")))) == [("e2", 201)]

    async def test_each_by_its_own_deadline(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:
            stateful.backends.events.faults.hang()

            async def send(agent_id: str, limit: float) -> float:
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event(), agent_id=agent_id), agent_id, limit=limit)
                return trio.current_time()

            assert await gather(partial(send, A1, 2), partial(send, A2, 20)) == [
                pytest.approx(1.8),
                pytest.approx(19.5),
            ]

    async def test_a_full_disk_is_said_soon(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.error = StorageFull()
            with pytest.raises(StorageFull):
                await stateful.submit(body(event()))
            assert 1 < trio.current_time() < 6
            stateful.backends.events.faults.error = None
            assert results(await stateful.submit(body(event()))) == [("e1", 201)]

    async def test_recovery_by_itself(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.error = BackendUnavailable("no route to the indexer")
            agents = [f"{A1[:-3]}{number:03x}" for number in range(100)]

            async def recover() -> bytes:
                await trio.sleep(20)
                stateful.backends.events.faults.error = None
                return b""

            replies = await gather(
                recover, *(partial(stateful.submit, body(event(), agent_id=one), one) for one in agents)
            )
            assert all(results(reply) == [("e1", 201)] for reply in replies[1:])
            assert trio.current_time() < 25

    @pytest.mark.expects_errors
    async def test_an_error_of_ours_fails_the_packet_that_makes_it(
        self, unexpected_errors: list[str], autojump_clock: MockClock
    ) -> None:
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:

            def judge(one: DocumentOperation) -> ItemResult | None:
                if one.document_id == f"{A1}_e1":
                    raise ZeroDivisionError
                return None

            stateful.backends.events.judge = judge

            async def unlucky() -> bytes:
                with pytest.raises(BackendUnavailable):
                    await stateful.submit(body(event()))
                return b""

            _, reply = await gather(unlucky, partial(stateful.submit, body(event(), agent_id=A2), A2))
            assert results(reply) == [("e1", 201)]
        assert len(unexpected_errors) == 2

    async def test_an_incomplete_answer_is_no_answer(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            events = stateful.backends.events
            complete = events.bulk

            async def cut(
                operations: Sequence[DocumentOperation], *, boundaries: Sequence[int] = (), **more: object
            ) -> Sequence[ItemResult]:
                events.bulk = complete  # type: ignore[method-assign]
                assert list(boundaries) == [0]
                return (await complete(operations))[:-1]

            events.bulk = cut  # type: ignore[method-assign]
            assert results(await stateful.submit(body(event("e1"), event("e2")))) == [("e1", 200), ("e2", 200)]


class TestOneIndexThatTakesNothing:
    """It is read-only, or its shard is on no node, while the store answers and takes what is for others."""

    @staticmethod
    def close(stateful: Stateful, *, waits: float = 0.0) -> Callable[[], None]:
        """Of an index without its shard the indexer says so after ``waits`` seconds. Returns what opens it again."""
        events = stateful.backends.events
        complete = events.bulk
        closed = [True]

        async def bulk(operations: Sequence[DocumentOperation], **more: Any) -> Sequence[ItemResult]:
            if closed[0] and any(one.index == SCA for one in operations):
                await trio.sleep(waits)
            return await complete(operations, **more)

        events.bulk = bulk  # type: ignore[method-assign]
        events.judge = lambda one: PASSING if closed[0] and one.index == SCA else None
        return lambda: closed.__setitem__(0, False)

    @staticmethod
    def others(stateful: Stateful, seconds: float, data: Any = None) -> Sequence[Callable[[], Awaitable[float]]]:
        """Ten agents, each with a packet a second. Each returns how long its slowest one took."""

        async def send(number: int) -> float:
            agent_id, worst, packet = f"{A1[:-3]}{number:03x}", 0.0, 0
            end = trio.current_time() + seconds
            while (began := trio.current_time()) < end:
                reply = await stateful.submit(body(event(f"e{packet}", data=data), agent_id=agent_id), agent_id)
                assert results(reply) == [(f"e{packet}", 201)]
                worst = max(worst, trio.current_time() - began)
                packet += 1
                await trio.sleep(1)
            return worst

        return [partial(send, number) for number in range(10)]

    @staticmethod
    def hopeless(stateful: Stateful, count: int, *events: bytes) -> Sequence[Callable[[], Awaitable[float]]]:
        async def send(number: int) -> float:
            agent_id, began = f"{A1[:-4]}f{number:03x}", trio.current_time()
            with pytest.raises(BackendUnavailable):
                await stateful.submit(body(*(events or (event("s", module="sca"),)), agent_id=agent_id), agent_id)
            return trio.current_time() - began

        return [partial(send, number) for number in range(count)]

    @pytest.mark.parametrize("size", [1, 100_000])
    async def test_no_other_events_wait_for_it(self, size: int, autojump_clock: MockClock) -> None:
        """Of packets that share calls, and of those that go in pieces."""
        async with open_stateful() as stateful:
            self.close(stateful)
            data = {"text": "x" * size}
            hopeless = self.hopeless(stateful, 50, event("s", data=data, module="sca"))
            both = [*self.others(stateful, 25, data), *hopeless]
            took = await gather(*both)
            assert max(took[:10]) < 1
            assert {round(seconds, 1) for seconds in took[10:]} == {29.5}

    async def test_nor_once_it_is_known_when_it_takes_long_to_say_so(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            self.close(stateful, waits=10)
            async with trio.open_nursery() as nursery:
                for each in self.hopeless(stateful, 50):
                    nursery.start_soon(each)
                await trio.sleep(11)
                assert max(await gather(*self.others(stateful, 15))) < 1

    async def test_an_agent_that_shared_a_call_with_it_goes_on(self, autojump_clock: MockClock) -> None:
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:
            self.close(stateful)

            async def lucky() -> float:
                for number in range(3):
                    await stateful.submit(body(event(f"e{number}"), agent_id=A2), A2)
                return trio.current_time()

            (_, took) = await gather(*self.hopeless(stateful, 1), lucky)
            assert stateful.backends.events.batches[0] == 2
            assert took < 1

    async def test_nor_for_the_store_of_commands(self, autojump_clock: MockClock) -> None:
        """Results of commands are in the same bodies."""
        async with open_stateful() as stateful:
            stateful.backends.commands.faults.error = BackendUnavailable("The commands can't be written")
            report = event("c", "update", {"command": {"result": {"code": 0}}}, module="command")
            took = await gather(*self.others(stateful, 25), *self.hopeless(stateful, 50, report))
            assert max(took[:10]) < 1

    async def test_nor_once_it_is_known_that_it_hangs(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.commands.faults.hang()
            report = event("c", "update", {"command": {"result": {"code": 0}}}, module="command")
            await gather(*self.hopeless(stateful, 1, report))
            took = await gather(*self.others(stateful, 25), *self.hopeless(stateful, 50, report))
            assert max(took[:10]) < 1

    async def test_a_disk_without_room_for_results_is_said_soon(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.commands.faults.error = StorageFull()
            report = event("c", "update", {"command": {"result": {"code": 0}}}, module="command")
            with pytest.raises(StorageFull):
                await stateful.submit(body(report))
            assert trio.current_time() < 6

    async def test_what_else_is_in_its_packets_is_taken(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            self.close(stateful)
            await gather(*self.hopeless(stateful, 20, event("s", module="sca"), event("f")))
            assert len(stateful.backends.events.documents) == 20

    async def test_once_it_is_well_all_is_taken_and_shares_calls_again(
        self, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
    ) -> None:
        caplog.set_level("INFO")
        async with open_stateful(batcher=Batcher(eager=False)) as stateful:
            reopen = self.close(stateful)
            agents = [f"{A1[:-3]}{number:03x}" for number in range(100)]

            async def send(agent_id: str) -> float:
                for number in range(3):
                    packet = body(event("s", "update", {"n": number}, module="sca"), agent_id=agent_id)
                    await stateful.submit(packet, agent_id)
                return trio.current_time()

            async def recover() -> float:
                await trio.sleep(20)
                reopen()
                return 0.0

            assert max(await gather(recover, *(partial(send, agent_id) for agent_id in agents))) < 24
            assert all(b'"n":2' in document.body for document in stateful.backends.events.documents.values())
            before = len(stateful.backends.events.batches)
            await gather(*(partial(stateful.submit, body(event("f"), agent_id=one), one) for one in agents[:5]))
            assert stateful.backends.events.batches[before:] == [5]
        lines = [record.getMessage() for record in caplog.records if SCA in record.getMessage()]
        assert len(lines) == 2  # one when it began, one when it was over
        assert lines[0].endswith(f"{SCA} can't be stored: busy")

    async def test_an_agents_packets_keep_their_order(self, autojump_clock: MockClock) -> None:
        """Also when the first of them is tried apart, and the others come meanwhile."""
        async with open_stateful() as stateful:
            reopen = self.close(stateful)
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    packet = body(
                        event("s", "update", {"n": number}, module="sca"), event("f", "update", {"n": number})
                    )
                    nursery.start_soon(stateful.submit, packet)
                    await trio.sleep(1)
                reopen()
            documents = stateful.backends.events.documents.values()
            assert [b'"n":4' in document.body for document in documents] == [True, True]

    async def test_of_too_many_the_newest_are_refused_at_once(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            self.close(stateful)
            took = sorted(await gather(*self.hopeless(stateful, 600)))
            assert took[-1] == pytest.approx(29.5)
            assert took[len(took) // 4] < 3

    async def test_the_end_waits_for_what_is_tried_apart(self, autojump_clock: MockClock) -> None:
        took: list[float] = []
        async with trio.open_nursery() as nursery, open_stateful() as stateful:
            self.close(stateful)

            async def send(each: Callable[[], Awaitable[float]]) -> None:
                took.append(await each())

            for each in self.hopeless(stateful, 20):
                nursery.start_soon(send, each)
            await trio.sleep(5)
        assert took == [pytest.approx(29.5)] * 20

    async def test_it_is_settled_when_the_batcher_is_cancelled(self, autojump_clock: MockClock) -> None:
        async with trio.open_nursery() as nursery, open_stateful() as stateful:
            self.close(stateful)
            for each in self.hopeless(stateful, 20):
                nursery.start_soon(each)
            await trio.sleep(5)
            stateful.batcher.cancel()
        assert trio.current_time() < 6
