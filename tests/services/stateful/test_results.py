"""From a body to its results: what is stored, what is refused, and what goes to the quarantine."""

from __future__ import annotations

import json

import pytest
from trio.testing import MockClock

from tests.services.bench import A1, A2, FIM, body, command, event, metadata, open_stateful, results
from wazuh_comms_trio.backends.interfaces import ItemResult, Outcome
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import BackendUnavailable, MalformedBody, StorageFull

REFUSED = ItemResult(400, "mapper_parsing_exception", Outcome.REFUSED)


class TestResults:
    async def test_one_of_each(self, autojump_clock: MockClock) -> None:
        async with open_stateful(events=Events(document_id="global")) as stateful:
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
                    "result": "[e1]: version conflict, document already exists (current version [1])",
                    "status": 409,
                },
                {"index": FIM, "id": "e1", "result": "updated", "status": 200},
                {"index": FIM, "id": "e2", "result": "[e2]: document missing", "status": 404},
                {"index": FIM, "id": "e1", "result": "deleted", "status": 200},
                {"index": FIM, "id": "e1", "result": "not_found", "status": 404},
            ]
            kept = [(rejected.reason, rejected.payload) for rejected in stateful.quarantine.rejected]
            assert kept == [
                (
                    "409: [e1]: version conflict, document already exists (current version [1])",
                    event("e1", data={"n": 2})[1:],
                ),
                ("404: [e2]: document missing", event("e2", "update")[1:]),
            ]

    async def test_one_of_each_of_ones_own(self, autojump_clock: MockClock) -> None:
        """The documents follow their agent, and nothing is put aside."""
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
            assert [(item["result"], item["status"]) for item in json.loads(reply)["results"]] == [
                ("created", 201),
                ("noop", 200),
                ("updated", 200),
                ("updated", 200),
                ("created", 201),
                ("deleted", 200),
                ("not_found", 404),
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
            assert results(reply) == [("c1", 200), ("e1", 201), ("c2", 400), ("nobody's", 404)]
            assert commands.stored["c1"].status == "success"
            assert commands.stored["c2"].status == "sent"
            assert [one.payload for one in stateful.quarantine.rejected] == [self.report("c2")[1:]]

    async def test_those_of_commands_that_arent_there_dont_fill_the_log(
        self, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
    ) -> None:
        async with open_stateful() as stateful:
            reply = await stateful.submit(body(*(self.report(f"c{number}") for number in range(100))))
            assert {status for _, status in results(reply)} == {404}
        assert len([record for record in caplog.records if "isn't there" in record.getMessage()]) == 1

    async def test_tried_again_alone(self, autojump_clock: MockClock) -> None:
        async with open_stateful() as stateful:
            commands = stateful.backends.commands
            await commands.add([command("c1")])
            await commands.claim([A1])
            commands.faults.next_errors.extend([BackendUnavailable(), BackendUnavailable()])
            assert results(await stateful.submit(body(self.report("c1"), event("e1")))) == [("c1", 200), ("e1", 201)]
            assert stateful.backends.events.batches == [1]
