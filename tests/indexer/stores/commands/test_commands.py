"""Commands on the fake OpenSearch and the mock clock: several nodes, leases, lost answers, documents of others."""

from __future__ import annotations

import json
import logging
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import A1, A2, fake, stores_of, wall_clock
from tests.indexer.stores.commands.nodes import INDEX, LEASE, command, ids, news, nodes, put, source
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, CommandReport, CommandResult, Outcome, Target
from wazuh_comms_trio.backends.opensearch.commands.documents import Document, ended, to_document
from wazuh_comms_trio.errors import BackendUnavailable, MalformedRequest
from wazuh_comms_trio.foundation.timestamps import to_iso

# --- finding ---


async def test_what_others_write_is_found_within_a_second_or_five(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        assert await news(node.commands, within=1) == {A1}
        assert ids(await node.commands.claim([A1])) == ["c1"]
        await node.commands.mark_sent(["c1"])
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for _ in range(10):  # busy: a second or little more
                    await trio.sleep(1)
                    put(server, f"{trio.current_time():09.3f}")
                await trio.sleep(300)  # idle
                put(server, f"{trio.current_time():09.3f}")

            nursery.start_soon(write)
            delays: list[float] = []
            while len(delays) < 11:
                await news(node.commands, within=400)
                claimed = ids(await node.commands.claim([A1]))
                await node.commands.mark_sent(claimed)
                delays += [trio.current_time() - float(document_id) for document_id in claimed]
            assert max(delays[:10]) < 1.7
            assert delays[10] < 5.6


async def test_one_query_an_interval_however_many_wait(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.commands.wait_news)
            for _ in range(60):
                for start in range(0, 5000, 500):
                    assert await node.commands.claim([f"agent-{n}" for n in range(start, start + 500)]) == []
                await node.commands.expire()
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
        searches = [path for _, path in server.requests if path.endswith("_search")]
        assert len(searches) < 20 + 31  # discovery slows down to 5 s; expiry every 2 s


async def test_more_than_a_page_of_others_does_not_hide_ours(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        for number in range(3000):
            put(server, f"old-{number}", f"absent-{number}")
        await trio.sleep(10)
        put(server, "ours", A1.upper())
        assert await node.commands.claim([A1]) == []
        with trio.fail_after(30):
            while A1 not in await node.commands.wait_news():
                pass
        assert ids(await node.commands.claim([A1])) == ["ours"]


async def test_more_than_a_page_for_one_who_went_does_not_hide_ours(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        assert await node.commands.claim([A2]) == []
        for number in range(3000):
            put(server, f"old-{number}", A2)
        await trio.sleep(10)
        put(server, "ours", A1)
        assert await node.commands.claim([A1]) == []
        with trio.fail_after(30):
            while A1 not in await node.commands.wait_news():
                pass
        assert ids(await node.commands.claim([A1])) == ["ours"]
        server.requests.clear()
        await trio.sleep(60)
        assert sum(path.endswith("_search") for _, path in server.requests) <= 60 / 0.9 + 1  # and one query an interval


async def test_thousands_for_one_agent_come_in_order(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        for number in range(2500):
            put(server, f"{number:04}")
            await trio.sleep(0.001)
        got: list[str] = []
        with trio.fail_after(60):
            while len(got) < 2500:
                await node.commands.wait_news()
                while claimed := ids(await node.commands.claim([A1])):
                    assert len(claimed) <= 100
                    got += claimed
                    await node.commands.mark_sent(claimed)
        assert got == sorted(got)


@pytest.mark.parametrize("explicit", [True, False])
async def test_statuses_and_targets_of_any_spelling(autojump_clock: MockClock, explicit: bool) -> None:
    async with fake() as server, nodes(server) as (node,):
        if explicit:
            await node.commands.get("nothing")  # makes the index
        put(server, "c1", status="PENDING")
        put(server, "c2", status="Pending", target={"type": "Agent", "id": A1.upper()})
        put(server, "c3", status="pending retry")
        put(server, "c4", status="success")
        put(server, "c5", target={"type": "server", "id": A1})
        put(server, "c6", target={"type": "agent", "id": f"{A1}-longer"})
        assert A1 in await news(node.commands)
        assert sorted(ids(await node.commands.claim([A1]))) == ["c1", "c2"]
        assert ids(await node.commands.list(status="pending", agent_id=A1)) in (["c1", "c2"], ["c2", "c1"])


async def test_documents_without_a_time(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        bare = {"command": {"status": "pending", "target": {"type": "agent", "id": A1}, "timeout": 50}}
        deadline = {**bare, "delivery_timestamp": to_iso(wall_clock() + 20)}
        server.index(INDEX).write("bare", json.dumps(bare).encode())
        server.index(INDEX).write("deadline", json.dumps(deadline).encode())
        await news(node.commands)
        await trio.sleep(30)
        await node.commands.expire()
        assert source(server, "deadline")["command"]["status"] == "failed"
        assert source(server, "bare")["command"]["status"] == "pending"
        await trio.sleep(30)
        await node.commands.expire()
        assert source(server, "bare")["command"]["status"] == "failed"


async def test_documents_that_make_no_sense_disturb_nobody(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        for number, odd in enumerate(
            [
                {},
                {"command": []},
                {"command": {"status": "pending"}},
                {"command": {"status": "pending", "target": "x", "action": 5, "timeout": "soon"}},
                {"command": {"status": "pending", "target": {"id": None, "type": 7}, "result": []}, "delivery": 1},
                {"@timestamp": "never", "command": {"status": ["pending", "sent"], "target": {"type": "agent"}}},
            ]
        ):
            server.index(INDEX).write(f"odd-{number}", json.dumps(odd).encode())
        put(server, "c1")
        with trio.fail_after(30):
            while A1 not in await node.commands.wait_news():
                pass
        assert ids(await node.commands.claim([A1])) == ["c1"]
        await node.commands.expire()
        assert len(await node.commands.list()) == 7


# --- groups ---


async def test_a_groups_command_that_others_write_is_expanded_once(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server, 3) as all_nodes:
        for agent_id in (A1, A2):
            await all_nodes[0].agents.add(Agent(agent_id, "a", f"hash-{agent_id}", groups=("web",)))
        put(server, "p", target={"type": "group", "id": "web"}, order_id="o", request_id="r")
        made = source(server, "p")["@timestamp"]
        async with trio.open_nursery() as nursery:
            for node in all_nodes:
                nursery.start_soon(node.commands.wait_news)
        children = await all_nodes[0].commands.claim([A1, A2])
        children = [*children, *await all_nodes[1].commands.claim([A1, A2])]
        assert sorted(ids(children)) == [f"p_{A1}", f"p_{A2}"]
        assert {(child.order_id, child.request_id) for child in children} == {("o", "r")}
        assert source(server, "p")["command"]["status"] == "sent"
        assert source(server, f"p_{A1}")["@timestamp"] == made
        assert len(server.indices[INDEX].documents) == 3


async def test_a_groups_command_is_pending_until_its_expander_is_done(autojump_clock: MockClock) -> None:
    """Whatever another node that found it at the same moment makes of it."""
    async with fake() as server, nodes(server, 2) as both:
        await both[0].agents.add(Agent(A1, "a", "hash", groups=("web",)))
        put(server, "p", target={"type": "group", "id": "web"})
        asked, answered = trio.Event(), trio.Event()

        async def before(method: str, path: str) -> None:
            if "agents" in path and path.endswith("/_search"):  # who the group's members are
                asked.set()
                await answered.wait()

        server.faults.before = before
        async with trio.open_nursery() as nursery:
            for node in both:
                nursery.start_soon(node.commands.wait_news)
            await asked.wait()
            await trio.sleep(LEASE / 2)
            assert source(server, "p")["command"]["status"] == "pending"
            answered.set()
        assert source(server, "p")["command"]["status"] == "sent"
        assert f"p_{A1}" in server.indices[INDEX].documents


async def test_an_expander_that_died_is_continued(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        for agent_id in (A1, A2):
            await node.agents.add(Agent(agent_id, "a", f"hash-{agent_id}"))
        put(server, "p", target={"type": "group", "id": "all"})
        put(server, f"p_{A1}")
        server.indices[INDEX].update("p", {"delivery": {"token": "dead.1"}}, None)
        began = trio.current_time()
        while await news(node.commands) != {A2}:
            pass
        assert LEASE <= trio.current_time() - began < LEASE + 6
        assert sorted(ids(await node.commands.claim([A1, A2]))) == [f"p_{A1}", f"p_{A2}"]


# --- reports ---


async def test_reports_survive_false_conflicts(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        for number in range(20):
            put(server, f"c{number}", status="sent")
        server.faults.false_conflicts = 7
        reports = [CommandReport(A1, f"c{n}", CommandResult(n % 2, "m", {"n": n})) for n in range(20)]
        results = await node.commands.report(reports)
        assert {result.status for result in results} == {200}
        for number in range(20):
            stored = await node.commands.get(f"c{number}")
            assert stored is not None
            assert stored.result == CommandResult(number % 2, "m", {"n": number})


async def test_what_a_keyword_cannot_hold_is_kept(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        values: list[Any] = ["x", "x" * 100_000, 5, 1.5, True, None, {"a": [1, {"b": None}]}, [], "5", "ü" * 20_000]
        for number, _ in enumerate(values):
            put(server, f"c{number}", status="sent")
        await node.commands.report([CommandReport(A1, f"c{n}", CommandResult(0, "m", v)) for n, v in enumerate(values)])
        for number, value in enumerate(values):
            stored = await node.commands.get(f"c{number}")
            assert stored is not None
            assert stored.result is not None
            assert stored.result.data == value
            assert type(stored.result.data) is type(value)
            shown = source(server, f"c{number}")["command"]["result"]["data"]
            assert shown is None or (isinstance(shown, str) and len(shown.encode()) < 32_766)


async def test_a_command_that_another_program_marked(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1", status="SENT", timeout=50)
        put(server, "c2", status="failure", result={"code": 1, "message": "no"})
        put(server, "c3", status="failed", result={"message": "not delivered in time"})
        (first, second, third) = await node.commands.report(
            [CommandReport(A1, f"c{n}", CommandResult(0, "late")) for n in (1, 2, 3)]
        )
        assert [first.outcome, second.outcome, third.outcome] == [Outcome.DONE, Outcome.DONE, Outcome.REFUSED]
        put(server, "c4", status="sent", timeout=50)
        await trio.sleep(60)
        await node.commands.expire()
        assert source(server, "c4")["command"]["result"]["message"] == "no answer"
        assert source(server, "c1")["command"]["status"] == "success"


async def test_a_clock_that_was_ahead_keeps_nothing_from_expiring(autojump_clock: MockClock) -> None:
    ahead = 3600.0
    async with fake() as server, nodes(server, wall_clock=lambda: wall_clock() + ahead) as (node,):
        await node.commands.expire()
        ahead = 0.0
        put(server, "c1", status="sent", timeout=50)
        await trio.sleep(60)
        await node.commands.expire()
        assert source(server, "c1")["command"]["result"]["message"] == "no answer"


# --- an index that doesn't want it ---


async def test_an_index_that_refuses_our_field(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        await node.commands.get("nothing")
        refused = {"status": 400, "error": {"type": "strict_dynamic_mapping_exception", "reason": "strict"}}
        server.faults.whole = lambda method, path: (200, {"items": [{"create": refused}]}) if path == "/_bulk" else None
        with pytest.raises(MalformedRequest, match="strict"):
            await node.commands.add([command("c1")])


async def test_an_index_that_cannot_be_sorted(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        bad = {
            "error": {"type": "illegal_argument_exception", "reason": "Text fields are not optimised"},
            "status": 400,
        }
        answers = iter([(400, bad)])
        server.faults.whole = lambda method, path: next(answers, None) if path.endswith("_search") else None
        assert await news(node.commands) == {A1}
        assert "can't be sorted" in caplog.text


# --- documents, pure ---


@pytest.mark.parametrize(
    "whole",
    [
        Command("c", Target("agent", A1), Action("restart"), created_at=5.0),
        Command(
            "c",
            Target("group", "Web"),
            Action("set-group", "5", {"groups": ["a"], "x": {"y": None}}),
            timeout=0.5,
            request_id="r",
            order_id="o",
            source="s",
            user="u",
            created_at=1.5,
        ),
    ],
)
def test_a_command_there_and_back(whole: Command) -> None:
    document = Document("c", json.loads(json.dumps(to_document(whole))), 1, 1, 0.0)
    assert document.command == whole
    done = attrs.evolve(whole, status="success", result=CommandResult(0, "m", [1]), sent_at=7.25)
    assert document.after(ended(done), 2, 1).command == done


async def test_a_refresh_that_failed_is_no_look(autojump_clock: MockClock) -> None:
    """A search after it would show too little, and what isn't found is taken to be over."""
    async with fake() as node, stores_of(node) as stores:
        await stores.commands.add([Command("c", Target("agent", A1), Action("restart"))])
        refreshed = {"_shards": {"total": 2, "successful": 1, "failed": 1}}
        node.faults.whole = lambda method, path: (200, refreshed) if path.endswith("/_refresh") else None
        assert await stores.commands.wait_news() == {A1}
        await trio.sleep(10)
        with pytest.raises(BackendUnavailable, match="can't be refreshed"):
            await stores.commands.list()
        assert [command.document_id for command in await stores.commands.claim([A1])] == ["c"]


async def test_the_right_to_refresh_is_noticed_when_it_is_given(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with fake() as node, stores_of(node) as stores:
        await stores.commands.list()
        denied = {"error": {"type": "security_exception", "reason": "no permissions"}, "status": 403}
        node.faults.whole = lambda method, path: (403, denied) if path.endswith("/_refresh") else None
        for _ in range(10):
            await stores.commands.list()
        assert caplog.text.count("no right to refresh") == 1
        node.faults.whole = lambda method, path: None
        asked = [path for _, path in node.requests].count("/wazuh-commands/_refresh")
        await trio.sleep(301)
        await stores.commands.list()
        await stores.commands.list()
        assert [path for _, path in node.requests].count("/wazuh-commands/_refresh") == asked + 2


async def test_a_group_whose_members_cannot_be_read_keeps_nobody_waiting(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        members = node.commands._groups._members

        async def unreadable(group: str) -> list[str]:
            raise BackendUnavailable

        node.commands._groups._members = unreadable
        put(server, "g1", "web", target={"type": "group", "id": "web"})
        put(server, "c1")
        assert await news(node.commands) == {A1}
        node.commands._groups._members = members
        await trio.sleep(2 * LEASE)
        assert source(server, "g1")["command"]["status"] == "sent"
