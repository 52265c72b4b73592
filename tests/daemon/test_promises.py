"""What an answer promises, on the whole daemon: events that can never be taken, failures that pass, commands, files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.e2e.in_memory import command, logged_in
from wazuh_comms_trio.backends.interfaces import Action, Command, DocumentOperation, ItemResult, Outcome, Target
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import Events, Files, Timeouts
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.testing import (
    AgentProgram,
    MemoryStream,
    Reply,
    daemon_config,
    exchange,
    open_daemon,
    request_head,
    stateful_event,
    stateless_event,
)

GOOD = stateful_event("good", "fim", "create", {"file": {"path": "/etc/passwd"}})
NEWS = stateless_event("logcollector", "file", {"n": 1})

#: What can never be taken, and what is said of it: id and index are null where they can't be told.
NEVER = {
    "an unknown operation": b'{"id":"x","module":"fim","operation":"upsert"}\n{"a":1}\n',
    "no operation": b'{"id":"x","module":"fim"}\n{"a":1}\n',
    "an unknown module": b'{"id":"x","module":"mystery","operation":"create"}\n{"a":1}\n',
    "an unknown collector": b'{"id":"x","module":"inventory","collector":"c","operation":"create"}\n{"a":1}\n',
    "no id": b'{"module":"fim","operation":"create"}\n{"a":1}\n',
    "an id that is too long": b'{"id":"%s","module":"fim","operation":"create"}\n{"a":1}\n' % (b"x" * 513),
    "data that is a list": b'{"id":"x","module":"fim","operation":"create"}\n[1]\n',
    "data that isn't JSON": b'{"id":"x","module":"fim","operation":"create"}\n{"a":\n',
    "data that isn't UTF-8": b'{"id":"x","module":"fim","operation":"create"}\n{"a":"\xff"}\n',
    "a header with a name twice": b'{"id":"x","id":"y","module":"fim","operation":"create"}\n{"a":1}\n',
}


def statuses(reply: Reply) -> list[int]:
    assert reply.status == 200
    return [result["status"] for result in reply.json()["results"]]


def rejected_by(daemon: Any) -> Sequence[Rejected]:
    return list(daemon.quarantine.rejected)


# --- what can never be taken


@pytest.mark.parametrize("name", NEVER)
async def test_an_event_that_can_never_be_taken_holds_up_nobody(name: str, autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        more = stateful_event("more", "sca", "create", {"n": 1})
        reply = await agent.post_stateful([GOOD, NEVER[name], more])
        assert statuses(reply) == [201, 400, 201]
        refused = reply.json()["results"][1]
        assert set(refused) == {"index", "id", "result", "status"}
        assert refused["result"]
        (rejected,) = rejected_by(daemon)
        assert (rejected.agent_id, rejected.kind) == (agent.uuid, "stateful")
        assert rejected.metadata == agent.metadata.rstrip(b"\n")
        assert rejected.payload.rstrip(b"\n") == NEVER[name].rstrip(b"\n")
        assert refused["result"] in rejected.reason or rejected.reason in refused["result"]


async def test_what_follows_lines_without_a_header_is_taken(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        stray = b'not a header\n{"stray":"data"}\n\n'
        reply = await agent.post_stateful([GOOD, stray, stateful_event("more", "sca", "create", {"n": 1})])
        assert statuses(reply) == [201, 400, 201]
        assert (reply.json()["results"][1]["index"], reply.json()["results"][1]["id"]) == (None, None)
        (rejected,) = rejected_by(daemon)
        assert rejected.payload == stray.rstrip(b"\n")
        # The same again is kept once.
        assert statuses(await agent.post_stateful([stray, stray, GOOD]))[-1] == 200
        assert (await daemon.quarantine.list())[0].count == 1
        assert statuses(await agent.post_stateful([stray, GOOD])) == [400, 200]
        assert (await daemon.quarantine.list())[0].count == 2


async def test_blank_lines_are_skipped_and_data_may_be_left_out(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        bare = b'{"id":"bare","module":"fim","operation":"create"}\n'
        for blank in (b"\n", b" \n", b"\r\n"):
            events = [blank, GOOD, blank, bare, stateful_event("more", "sca", "create", {"n": 1}), bare]
            reply = await agent.post_stateful(events)
            assert len(statuses(reply)) == 4
            assert set(statuses(reply)) <= {200, 201}
        assert not rejected_by(daemon)


async def test_a_document_that_the_index_refuses_goes_to_the_quarantine(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)

        def refuse_bad(operation: DocumentOperation) -> ItemResult | None:
            bad = operation.document_id.endswith("bad")
            return ItemResult(400, "mapper_parsing_exception", Outcome.REFUSED) if bad else None

        daemon.backends.events.judge = refuse_bad
        bad = stateful_event("bad", "fim", "create", {"n": "not a number"})
        assert statuses(await agent.post_stateful([bad, GOOD])) == [400, 201]
        assert [rejected.payload.rstrip(b"\n") for rejected in rejected_by(daemon)] == [bad.rstrip(b"\n")]


async def test_a_stateless_body_that_the_engine_refuses_goes_to_the_quarantine(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        daemon.backends.engine.refuse = "no"
        assert (await agent.post_stateless([NEWS])).status == 204
        (rejected,) = rejected_by(daemon)
        assert (rejected.kind, rejected.payload) == ("stateless", agent.metadata + NEWS)


async def test_with_refuse_the_whole_body_is_400(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(events=Events(invalid="refuse"))) as daemon:
        agent = await logged_in(daemon)
        reply = await agent.post_stateful([GOOD, NEVER["no id"]])
        assert (reply.status, reply.json()["code"]) == (400, 2709)
        assert not daemon.backends.events.documents
        daemon.backends.engine.refuse = "no"
        reply = await agent.post_stateless([NEWS])
        assert (reply.status, reply.json()["code"]) == (400, 2710)
        assert not rejected_by(daemon)


async def test_a_full_quarantine_is_a_503(autojump_clock: MockClock) -> None:
    async with open_daemon(quarantine=MemoryQuarantine(max_bytes=10)) as daemon:
        agent = await logged_in(daemon)
        reply = await agent.post_stateful([NEVER["no id"]])
        assert reply.status == 503


# --- failures that pass


async def test_an_item_that_fails_for_a_passing_reason_is_tried_again(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        busy = 3

        def judge(operation: DocumentOperation) -> ItemResult | None:
            nonlocal busy
            busy -= 1
            return ItemResult(429, "circuit_breaking_exception", Outcome.PASSING) if busy > 0 else None

        daemon.backends.events.judge = judge
        assert statuses(await agent.post_stateful([GOOD])) == [201]


async def test_one_that_goes_on_failing_makes_the_whole_request_a_503(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(timeouts=Timeouts(stateful=5))) as daemon:
        agent = await logged_in(daemon)

        def judge(operation: DocumentOperation) -> ItemResult | None:
            bad = operation.document_id.endswith("good")
            return ItemResult(429, "circuit_breaking_exception", Outcome.PASSING) if bad else None

        daemon.backends.events.judge = judge
        more = stateful_event("more", "sca", "create", {"n": 1})
        began = trio.current_time()
        reply = await agent.post_stateful([more, GOOD])
        assert reply.status == 503
        assert trio.current_time() - began < 5
        daemon.backends.events.judge = lambda operation: None
        # Sent again, unchanged: what is there already is a success.
        assert statuses(await agent.post_stateful([more, GOOD])) == [200, 201]


async def test_metadata_alone_is_an_ordinary_success(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        reply = await agent.post_stateful([])
        assert (reply.status, reply.body) == (200, b'{"results":[]}')
        assert (await agent.post_stateless([])).status == 204


# --- commands


async def test_a_command_waits_for_its_agent_and_ends_as_it_reports(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        for number, code in enumerate((0, 1, 2, 3, 4)):
            assert (await daemon.post_commands([command(agent, f"c{number}")])).json() == {"commands": []}
            (received,) = (await agent.poll()).json()["commands"]
            await wait_all_tasks_blocked()
            assert (await daemon.backends.commands.get(f"c{number}")).status == "sent"
            reply = await agent.report(received["document_id"], code, "words")
            assert statuses(reply) == [200]
            assert reply.json()["results"][0]["id"] == f"c{number}"
            ended = await daemon.backends.commands.get(f"c{number}")
            assert ended.status == {0: "success", 2: "sent"}.get(code, "failed")
            assert (ended.result.code, ended.result.message) == (code, "words")


async def test_a_command_that_nobody_fetches_or_answers_fails(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        await daemon.post_commands([command(agent, "unfetched", timeout=60)])
        await trio.sleep(90)
        unfetched = await daemon.backends.commands.get("unfetched")
        assert unfetched.status == "failed"
        assert unfetched.result.message
        await daemon.post_commands([command(agent, "unanswered", timeout=60)])
        assert (await agent.poll()).status == 200
        await trio.sleep(90)
        unanswered = await daemon.backends.commands.get("unanswered")
        assert (unanswered.status, unanswered.result.message) == ("failed", "no answer")


async def test_only_the_agent_it_was_sent_to_reports_a_command(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent, other = await logged_in(daemon), await logged_in(daemon)
        await daemon.post_commands([command(agent)])
        assert statuses(await agent.report("c1", 0)) == [400]  # it wasn't sent yet
        await agent.poll()
        await wait_all_tasks_blocked()
        assert statuses(await other.report("c1", 0)) == [400]
        for operation in ("create", "delete"):
            data = None if operation == "delete" else {"command": {"status": "success"}}
            assert statuses(await agent.post_stateful([stateful_event("c1", "command", operation, data)])) == [400]
        forged = stateful_event("c1", "command", "update", {"command": {"status": "success"}})
        assert statuses(await agent.post_stateful([forged])) == [400]
        assert (await daemon.backends.commands.get("c1")).status == "sent"
        assert statuses(await agent.report("c1", 0)) == [200]


async def test_a_poll_that_is_reset_gives_its_commands_back(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        stream = await daemon.connect()
        await stream.send_all(
            request_head("GET", "/api/v1/commands", [("Host", "h"), ("Authorization", f"Bearer {agent.token}")])
        )
        await wait_all_tasks_blocked()
        assert isinstance(stream.transport_stream, MemoryStream)
        stream.transport_stream.fall_silent()  # what is written to it isn't acknowledged
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.post_commands, [command(agent)])
            await wait_all_tasks_blocked()
            stream.transport_stream.reset()
        reply = await agent.poll()
        assert [received["document_id"] for received in reply.json()["commands"]] == ["c1"]


# --- documents and files belong to agents


async def test_agents_have_documents_of_their_own(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        one, other = await logged_in(daemon), await logged_in(daemon)
        assert statuses(await one.post_stateful([GOOD])) == [201]
        assert statuses(await other.post_stateful([GOOD])) == [201]
        assert statuses(await other.post_stateful([stateful_event("good", "fim", "delete")])) == [200]
        ids = [document_id for _, document_id in daemon.backends.events.documents]
        assert ids == [f"{one.uuid}_good"]


async def test_set_group_and_fetch_config_succeed_on_an_agent(autojump_clock: MockClock) -> None:
    backends = memory_backends(files={"web.yml": b"a: 1", "db.conf": b""})
    async with open_daemon(backends=backends) as daemon, trio.open_nursery() as nursery:
        agent = AgentProgram(await daemon.enrol_agent())
        await nursery.start(agent.run)
        uuid = agent.client.uuid
        ended: dict[str, str] = {}
        for document_id, name, groups in (
            ("c1", "set-group", ["web"]),
            ("c2", "fetch-config", None),
            ("c3", "set-group", ["db"]),  # of which there is only what agents don't ask for
        ):
            args = None if groups is None else {"groups": groups}
            await backends.commands.add([Command(document_id, Target("agent", uuid), Action(name, args=args))])
            await trio.sleep(30)
            command = await backends.commands.get(document_id)
            assert command is not None
            ended[document_id] = command.status
        nursery.cancel_scope.cancel()
    assert ended == {"c1": "success", "c2": "success", "c3": "failed"}


async def test_files_of_ones_own_groups_only(autojump_clock: MockClock) -> None:
    names = ("default.conf", "web.conf", "db.conf", "default.yml", "web.yml", "db.yml")
    backends = memory_backends(files={name: name.encode() for name in names})
    async with open_daemon(backends=backends) as daemon:
        agent = await logged_in(daemon, groups=["web"])
        found = {name: (await agent.get_file(name)).status for name in names}
        assert {name for name, status in found.items() if status == 404} == {"db.conf", "db.yml"}
        assert {name for name, status in found.items() if status == 200} == set(names) - {"db.conf", "db.yml"}
        assert (await agent.get_group_file("web")).body == b"web.yml"  # the exact name, never the other one
        for name in ("../default.conf", "a/b", "%2e%2e%2fx", "x%00"):
            reply = await agent.get_file(name)
            assert (reply.status, reply.json()["code"]) == (400, 2705)
    async with open_daemon(
        daemon_config(files=Files(scope="all")), backends=memory_backends(files={"db.conf": b""})
    ) as daemon:
        agent = await logged_in(daemon)
        assert (await agent.get_file("db.conf")).status == 200


# --- bad input, on the whole daemon


BAD_BODIES = {
    "not JSON": b"{",
    "a number": b"1",
    "NUL": b'{"agent":{"id":"\x00"}}\n',
    "nesting": b"[" * 8000,  # of a log-in no more than 8 KiB are read
    "nested objects": b'{"a":' * 1600,
    "not UTF-8": b"\xff\xfe\n",
    "a name twice": b'{"agent":{"id":"x"},"agent":{"id":"y"}}\n',
    "no agent": b"{}\n",
    "an agent that is a list": b'{"agent":[]}\n',
    "nothing": b"",
}


@pytest.mark.parametrize("path", ["events/stateful", "events/stateless", "authentication", "vulnerability/scan"])
@pytest.mark.parametrize("body", BAD_BODIES)
async def test_bad_bodies_are_400_in_the_one_shape(path: str, body: str, autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        reply = await agent.request("POST", f"/api/v1/{path}", BAD_BODIES[body])
        assert reply.status == 400
        assert set(reply.json()) == {"message", "code"}
        if path.startswith("events"):
            assert reply.json()["code"] == 2709
        assert (await agent.alive()).status == 200


async def test_odd_but_sound_bodies_are_taken(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        lines = (agent.metadata + GOOD).replace(b"\n", b"\r\n")
        for body in (lines, agent.metadata + GOOD + b"\n\n\r\n", (agent.metadata + GOOD).rstrip(b"\n")):
            assert statuses(await agent.request("POST", "/api/v1/events/stateful", body))[0] in (200, 201)
            assert (await agent.request("POST", "/api/v1/events/stateless", body)).status == 204


async def test_what_comes_before_tls_is_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\xff\xff"):
            stream = await daemon.listener.connect()
            await stream.send_all(garbage)
            await stream.send_eof()
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        prior_knowledge = await daemon.connect()
        await prior_knowledge.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await exchange(prior_knowledge, b"")).status == 400
