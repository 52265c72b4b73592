"""From a body to its results: batches, order, retries, the quarantine, and who waits for whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, A2, A3, FIM, body, command, event, gather, metadata, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.config.models import Batcher, Events
from wazuh_comms_trio.errors import BackendUnavailable, MalformedBody, StorageFull

PASSING = ItemResult(429, "busy", Outcome.PASSING)
REFUSED = ItemResult(400, "mapper_parsing_exception", Outcome.REFUSED)


class TestResults:
    async def test_one_of_each(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            reply = await stateful.submit(
                body(
                    event("e1", data={"n": 1}),
                    event("e1", data={"n": 1}),
                    event("e1", data={"n": 2}),
                    event("e1", "update", {"m": 3}),
                    event("e2", "update"),
                    event("e1", "delete"),
                    event("e1", "delete"),
                )
            )
            assert json.loads(reply)["results"] == [
                {"index": FIM, "id": "e1", "result": "created", "status": 201},
                {"index": FIM, "id": "e1", "result": "noop", "status": 200},
                {
                    "index": FIM,
                    "id": "e1",
                    "result": f"[{A1}_e1]: version conflict, document already exists (current version [1])",
                    "status": 409,
                },
                {"index": FIM, "id": "e1", "result": "updated", "status": 200},
                {"index": FIM, "id": "e2", "result": f"[{A1}_e2]: document missing", "status": 404},
                {"index": FIM, "id": "e1", "result": "deleted", "status": 200},
                {"index": FIM, "id": "e1", "result": "not_found", "status": 404},
            ]
            assert stateful.quarantine.rejected == []

    async def test_a_metadata_line_alone(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            assert await stateful.submit(metadata()) == b'{"results":[]}'
            assert not stateful.backends.events.batches

    async def test_documents_are_the_agents_own(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            await stateful.submit(body(event("e")))
            await stateful.submit(body(event("e"), agent_id=A2), A2)
            assert set(stateful.backends.events.documents) == {(FIM, f"{A1}_e"), (FIM, f"{A2}_e")}

    async def test_bad_events_go_to_quarantine_and_the_others_on(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            bad = event("e2", "upsert")
            reply = await stateful.submit(body(event("e1"), bad, event("e3")))
            assert results(reply) == [("e1", 201), ("e2", 400), ("e3", 201)]
            assert json.loads(reply)["results"][1]["result"] == "Unknown operation"
            (rejected,) = stateful.quarantine.rejected
            assert rejected.agent_id == A1
            assert rejected.kind == "stateful"
            assert rejected.reason == "Unknown operation"
            assert rejected.metadata == metadata()
            assert rejected.payload == bad[1:]

    async def test_nothing_but_bad_events_needs_no_index(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.faults.hang()
            assert results(await stateful.submit(body(b"\nnonsense\n{}"))) == [(None, 400)]
            assert stateful.quarantine.rejected[0].payload == b"nonsense\n{}"

    async def test_what_the_index_refuses_goes_to_quarantine(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            stateful.backends.events.judge = lambda one: REFUSED if one.document_id.endswith("bad") else None
            packet = body(event("good"), event("bad"))
            assert results(await stateful.submit(packet)) == [("good", 201), ("bad", 400)]
            (rejected,) = stateful.quarantine.rejected
            assert (rejected.reason, rejected.payload) == (REFUSED.result, event("bad")[1:])

    async def test_a_full_quarantine_is_a_passing_failure(self, autojump_clock: MockClock) -> None:
        async with open_stateful(max_bytes=10_000) as stateful:
            with pytest.raises(StorageFull):
                await stateful.submit(body(event("e"), *(event(f"x{n}", "upsert") for n in range(9))))
            assert results(await stateful.submit(body(event("e2")))) == [("e2", 201)]

    async def test_an_ill_quarantine_is_tried_again(
        self, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
    ) -> None:
        async with open_stateful() as stateful:
            stateful.quarantine.faults.next_errors.extend([BackendUnavailable()] * 3)
            assert results(await stateful.submit(body(event("e", "upsert")))) == [("e", 400)]
            assert len(stateful.quarantine.rejected) == 1

    @pytest.mark.parametrize("packet", [b"", b"nonsense", body(event(), agent_id=A2)])
    async def test_malformed_bodies(self, packet: bytes, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            with pytest.raises(MalformedBody):
                await stateful.submit(packet)


class TestRefuse:
    """``events.invalid: refuse``"""

    @pytest.mark.parametrize("padding", [0, 100_000])
    async def test_one_bad_event_refuses_the_whole(self, padding: int, autojump_clock: MockClock) -> None:
        async with open_stateful(events=Events(invalid="refuse")) as stateful:
            packet = body(event("e1", data={"x": "x" * padding}), event("e2", "upsert"))
            with pytest.raises(MalformedBody, match="Unknown operation"):
                await stateful.submit(packet)
            assert not stateful.backends.events.documents
            assert not stateful.quarantine.rejected

    async def test_what_the_index_refuses(self, autojump_clock: MockClock) -> None:
        async with open_stateful(events=Events(invalid="refuse")) as stateful:
            stateful.backends.events.judge = lambda one: REFUSED
            with pytest.raises(MalformedBody, match="mapper_parsing_exception"):
                await stateful.submit(body(event("e1")))
            assert not stateful.quarantine.rejected

    async def test_sound_ones_pass(self, autojump_clock: MockClock) -> None:
        async with open_stateful(events=Events(invalid="refuse")) as stateful:
            big = body(*(event(f"e{n}", data={"x": "x" * 1000}) for n in range(100)))
            assert len(results(await stateful.submit(big))) == 100


class TestCommandReports:
    def report(self, document_id: str, code: int = 0) -> bytes:
        return event(document_id, "update", {"command": {"result": {"code": code, "message": "m"}}}, module="command")

    async def test_beside_documents(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            commands = stateful.backends.commands
            await commands.add([command("c1"), command("c2", A2)])
            await commands.claim([A1, A2])
            await commands.mark_sent(["c1", "c2"])
            reply = await stateful.submit(
                body(self.report("c1"), event("e1"), self.report("c2"), self.report("nobody's"))
            )
            assert results(reply) == [("c1", 200), ("e1", 201), ("c2", 400), ("nobody's", 400)]
            assert commands.stored["c1"].status == "success"
            assert commands.stored["c2"].status == "sent"
            assert [one.payload for one in stateful.quarantine.rejected] == [
                self.report("c2")[1:],
                self.report("nobody's")[1:],
            ]

    async def test_tried_again_alone(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            commands = stateful.backends.commands
            await commands.add([command("c1")])
            await commands.claim([A1])
            commands.faults.next_errors.extend([BackendUnavailable(), BackendUnavailable()])
            assert results(await stateful.submit(body(self.report("c1"), event("e1")))) == [("c1", 200), ("e1", 201)]
            assert stateful.backends.events.batches == [1]


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
            await self.submit_many(stateful, 50)
            assert sum(stateful.backends.events.batches) == 50
            assert len(stateful.backends.events.batches) == 2
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
                operations: Sequence[DocumentOperation], *, boundaries: Sequence[int] = ()
            ) -> Sequence[ItemResult]:
                events.bulk = complete  # type: ignore[method-assign]
                assert list(boundaries) == [0]
                return (await complete(operations))[:-1]

            events.bulk = cut  # type: ignore[method-assign]
            assert results(await stateful.submit(body(event("e1"), event("e2")))) == [("e1", 200), ("e2", 200)]


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
            assert results(replies[1])[0] == ("e0", 409)
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
                stateful.service._nursery.cancel_scope.cancel()  # type: ignore[union-attr]
        assert trio.current_time() == 0
