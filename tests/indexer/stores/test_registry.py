"""The registry on the mock clock: a cache that is fresh enough, outages, log-ins, agents that are away."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from tests.indexer.bench import A1, A2, EPOCH, fake, stores_of, wall_clock
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.fake_bodies import error
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.opensearch.agents.documents import to_agent, to_document
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores
from wazuh_comms_trio.errors import AgentExists, BackendUnavailable, MalformedRequest

AGENT = Agent(A1, "a1", "hash-1", groups=("web",), host={"ip": ["10.0.0.5"]})
INDEX = "wazuh-agents"


def document(node: FakeOpenSearch, agent_id: str = A1) -> dict[str, Any]:
    fields: dict[str, Any] = node.indices[INDEX].documents[agent_id].source["agent"]
    return fields


def reads(node: FakeOpenSearch) -> int:
    return sum(path.endswith("_mget") for _, path in node.requests)


async def let_down(node: FakeOpenSearch) -> None:
    """Hangs from now on."""

    async def hang(method: str, path: str) -> None:
        await trio.sleep_forever()

    node.faults.before = hang


async def test_a_fleet_that_reconnects_is_read_together(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        node.requests.clear()

        async def slowly(method: str, path: str) -> None:
            await trio.sleep(0.01)

        node.faults.before = slowly
        seen: list[Agent | None] = []

        async def get(agent_id: str) -> None:
            seen.append(await stores.agents.get(agent_id))

        async with trio.open_nursery() as nursery:
            for number in range(3000):
                nursery.start_soon(get, A1 if number % 3 == 0 else f"nobody-{number}")
        assert seen.count(AGENT) == 1000
        assert seen.count(None) == 2000
        assert reads(node) <= 8


async def test_a_reader_that_leaves_takes_nobody_along(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)

        async def slowly(method: str, path: str) -> None:
            await trio.sleep(1)

        node.faults.before = slowly
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                with trio.move_on_after(0.5):
                    await stores.agents.get(A1)

            nursery.start_soon(leave)
            assert await stores.agents.get(A1) == AGENT


async def test_lookups_are_from_memory_and_fresh_enough(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node, revocation=10) as stores:
        await stores.agents.add(AGENT)
        before = reads(node)
        for _ in range(600):
            assert await stores.agents.lookup(A1) == AGENT
            await trio.sleep(0.1)
        assert reads(node) - before <= 60 / 6 + 1
        node.indices[INDEX].update(A1, {"agent": {"key": "another"}}, None)  # by another node
        began = trio.current_time()
        while (agent := await stores.agents.lookup(A1)) is None or agent.key_hash != "another":  # noqa: ASYNC110
            await trio.sleep(0.1)
        assert trio.current_time() - began <= 10
        node.indices[INDEX].delete(A1)
        began = trio.current_time()
        while not await stores.agents.revoked({A1: agent.fingerprint}):  # noqa: ASYNC110
            await trio.sleep(0.5)
        assert trio.current_time() - began <= 10
        assert await stores.agents.lookup(A1) is None


async def test_who_only_looks_makes_no_registry(autojump_clock: MockClock) -> None:
    """It may have vanished: those who know it must go on missing it."""
    async with fake() as node, stores_of(node) as stores:
        assert await stores.agents.lookup(A1) is None
        assert await stores.agents.list() == []
        assert await stores.agents.members("all") == []
        assert not await stores.agents.remove(A1)
        assert not await stores.agents.rekey(A1, "k")
        await trio.sleep(100)  # agents that are away are looked for, too
        assert INDEX not in node.indices
        await stores.agents.add(AGENT)
        assert await stores.agents.list() == [AGENT]


async def test_revocation_zero_reads_each_time(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node, revocation=0) as stores:
        await stores.agents.add(AGENT)
        assert await stores.agents.lookup(A1) == AGENT
        fingerprints = {A1: AGENT.fingerprint}
        assert await stores.agents.revoked(fingerprints) == []
        node.indices[INDEX].delete(A1)
        assert await stores.agents.lookup(A1) is None
        node.index(INDEX).write(A2, b'{"agent":{"key":"k"}}')
        fingerprints = {A2: evolve(AGENT, key_hash="k").fingerprint}
        assert await stores.agents.revoked(fingerprints) == []
        node.index(INDEX).delete(A2)
        await trio.sleep(1.5)
        assert await stores.agents.revoked(fingerprints) == [A2]  # a parked poll


async def test_one_who_was_unknown_is_found_soon(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        assert await stores.agents.lookup(A1) is None
        before = reads(node)
        for _ in range(50):
            assert await stores.agents.lookup(A1) is None
        assert reads(node) == before
        async with stores_of(node) as others:
            await others.agents.add(AGENT)
        await trio.sleep(1.1)
        assert await stores.agents.lookup(A1) == AGENT


async def test_ten_thousand_parked_agents_cost_few_reads(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node, revocation=10) as stores:
        index = node.index(INDEX)
        agents = [evolve(AGENT, id=f"agent-{number}", key_hash=f"h{number}") for number in range(10_000)]
        for agent in agents:
            index.write(agent.id, b'{"agent":{"key":"%b"}}' % agent.key_hash.encode())
        fingerprints = {agent.id: agent.fingerprint for agent in agents}
        assert await stores.agents.revoked(fingerprints) == []
        before = reads(node)
        for _ in range(60):
            assert await stores.agents.revoked(fingerprints) == []
            await trio.sleep(1)
        assert reads(node) - before <= 20 * 11  # 500 each, every 6 s
        index.delete("agent-77")
        await trio.sleep(10)
        assert await stores.agents.revoked(fingerprints) == ["agent-77"]


@pytest.mark.parametrize("how", ["down", "hang"])
async def test_an_outage_stops_nobody_who_is_known(autojump_clock: MockClock, how: str) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        assert await stores.agents.lookup(A1) == AGENT
        if how == "down":
            node.go_down()
        else:
            await let_down(node)
        slowest = 0.0
        for _ in range(600):
            began = trio.current_time()
            assert await stores.agents.lookup(A1) == AGENT
            slowest = max(slowest, trio.current_time() - began)
            assert await stores.agents.revoked({A1: AGENT.fingerprint}) == []
            await trio.sleep(0.5)
        assert slowest <= 2.0
        with trio.move_on_after(20):
            with pytest.raises(BackendUnavailable):
                await stores.agents.get(A2)
        node.faults.before, node.up = None, True
        node.indices[INDEX].delete(A1)
        await trio.sleep(15)
        assert await stores.agents.lookup(A1) is None


async def test_an_outage_that_begins_between_two_requests(autojump_clock: MockClock) -> None:
    """Known, but long ago: one request waits a little, the others not at all."""
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        await stores.agents.lookup(A1)
        await trio.sleep(120)
        await let_down(node)
        began = trio.current_time()
        for _ in range(100):
            assert await stores.agents.lookup(A1) == AGENT
        assert trio.current_time() - began <= 2.5


async def test_a_registry_that_vanished_makes_nobody_unknown(autojump_clock: MockClock) -> None:
    """An agent that is told that it doesn't exist ends. So a missing index is an outage, and isn't made anew."""
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        await stores.agents.record_login(A1, EPOCH)
        del node.indices[INDEX]
        with pytest.raises(BackendUnavailable):
            await stores.agents.get(A1)
        with pytest.raises(BackendUnavailable):
            await stores.agents.flush_logins()
        with pytest.raises(BackendUnavailable):
            await stores.agents.rekey(A1, "x")
        await trio.sleep(30)
        assert INDEX not in node.indices
        assert await stores.agents.lookup(A1) == AGENT


async def test_one_that_vanished_is_missed_by_a_node_that_starts_later(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake() as node:
        async with stores_of(node, key="k") as stores:  # there is none yet
            assert await stores.agents.get(A1) is None
            await stores.agents.add(AGENT)
            await trio.sleep(70)
        del node.indices[INDEX]
        async with stores_of(node, key="k") as stores:
            for _ in range(3):
                with pytest.raises(BackendUnavailable):
                    await stores.agents.get(A1)
                await trio.sleep(70)
            assert INDEX not in node.indices
        (line,) = [record.getMessage() for record in caplog.records if "can't be read" in record.getMessage()]
        assert line.startswith("the registry: can't be read: the index of agents has vanished")
        async with stores_of(node) as tool:  # the operator's, who knows what to do
            await tool.agents.add(AGENT)
        async with stores_of(node, key="k") as stores:
            assert await stores.agents.get(A1) == AGENT
            assert await stores.agents.get("another") is None


async def test_one_that_vanished_is_not_made_anew_for_a_newcomer(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        del node.indices[INDEX]
        with pytest.raises(BackendUnavailable):
            await stores.agents.add(evolve(AGENT, id="another"))
        assert INDEX not in node.indices


async def test_which_index(autojump_clock: MockClock) -> None:
    async with fake() as node:
        node.index(".agents").write(A1, b'{"agent":{"key":"k","name":"there"}}')
        async with stores_of(node) as stores:
            agent = await stores.agents.get(A1)
            assert agent is not None
            assert agent.name == "there"
            assert await stores.commands.list() == []
            assert set(node.indices) == {".agents", ".commands"}  # of the same generation
        node.index(INDEX)
        async with stores_of(node) as stores:
            assert await stores.agents.get(A1) is None
    async with fake() as node, stores_of(node) as stores:
        assert await stores.agents.get(A1) is None
        await stores.agents.add(AGENT)
        assert node.indices[INDEX].mappings["properties"]["agent"]["properties"]["id"] == {"type": "keyword"}


async def test_log_ins_are_written_together_and_hold_up_nobody(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        for number in range(300):
            await stores.agents.add(evolve(AGENT, id=f"agent-{number}"))
        node.bulks.clear()
        began = trio.current_time()
        for number in range(300):
            await stores.agents.record_login(f"agent-{number}", EPOCH + number)
        assert trio.current_time() == began
        await trio.sleep(1)
        assert len(node.bulks) <= 2
        assert document(node, "agent-7")["status"] == "active"
        assert document(node, "agent-7")["last_login"] == "2025-06-15T15:06:47.000Z"


async def test_log_ins_outlive_an_outage(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        node.go_down()
        for number in range(5):
            await stores.agents.record_login(A1, EPOCH + number)
        await stores.agents.record_login("removed", EPOCH)
        await trio.sleep(60)
        node.up = True
        await trio.sleep(20)
        agent = await stores.agents.get(A1)
        assert agent is not None
        assert (agent.status, agent.last_login) == ("active", EPOCH + 4)
        assert list(node.indices[INDEX].documents) == [A1]  # a log-in makes nobody an agent again


async def test_a_log_in_that_conflicts_is_forgotten(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.add(AGENT)
        conflict = {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "x"}}
        answer = 200, {"items": [{"update": conflict}]}
        node.faults.whole = lambda method, path: answer if path == "/_bulk" else None
        await stores.agents.record_login(A1, EPOCH)
        await stores.agents.flush_logins()


async def test_enrolment_that_was_written_twice_by_the_indexer(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.false_conflicts = 1
        await stores.agents.add(AGENT)
        with pytest.raises(AgentExists):
            await stores.agents.add(evolve(AGENT, key_hash="another"))


async def test_an_agent_that_the_index_refuses(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.agents.get(A1)
        reason = "mapping set to strict, dynamic introduction of [x] within [agent.host] is not allowed"
        refusal = {"error": {"type": "strict_dynamic_mapping_exception", "reason": reason}, "status": 400}
        node.faults.whole = lambda method, path: (400, refusal) if "_create" in path else None
        with pytest.raises(MalformedRequest, match="strict"):
            await stores.agents.add(AGENT)
        # Not so a closed index (OPENSEARCH.md, section 4), nor what a proxy says.
        for passing in (error(400, "index_closed_exception", "closed"), (400, "<html>Bad Request</html>")):
            node.faults.whole = partial(lambda answer, method, path: answer if "_create" in path else None, passing)
            with pytest.raises(BackendUnavailable):
                await stores.agents.add(AGENT)


# --- who is away ---


async def active(stores: OpenSearchStores, agent_id: str) -> bool:
    agent = await stores.agents.get(agent_id)
    assert agent is not None
    return agent.status == "active"


async def log_in(stores: OpenSearchStores, agent_id: str) -> None:
    await stores.agents.record_login(agent_id, wall_clock())
    await stores.agents.flush_logins()


async def test_agents_that_went_become_disconnected(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node, disconnected_after=60.0) as stores:
        for agent_id in (A1, A2):
            await stores.agents.add(evolve(AGENT, id=agent_id))
            await log_in(stores, agent_id)
        for _ in range(200):
            await trio.sleep(1)
            await stores.agents.lookup(A2)  # it is here, and needs no new token yet
        assert document(node, A1)["status"] == "disconnected"
        assert document(node, A2)["status"] == "active"
        await log_in(stores, A1)
        assert await active(stores, A1)


async def test_one_that_is_on_another_node_is_active_again(autojump_clock: MockClock) -> None:
    async with (
        fake() as node,
        stores_of(node, disconnected_after=60.0) as here,
        stores_of(node, disconnected_after=60.0) as elsewhere,
    ):
        await here.agents.add(AGENT)
        await log_in(here, A1)
        assert await elsewhere.agents.lookup(A1) is not None
        for _ in range(100):
            await trio.sleep(1)
            await elsewhere.agents.lookup(A1)
        await trio.sleep(1)
        seen = []
        for _ in range(60):
            await trio.sleep(1)
            await elsewhere.agents.lookup(A1)
            seen.append(document(node)["status"])
        assert set(seen) == {"active"}
        await trio.sleep(100)  # it goes away there, and the node that knew it notices
        assert document(node)["status"] == "disconnected"


# --- documents of other writers ---


def test_agents_of_any_writer() -> None:
    whole = to_document(evolve(AGENT, type="Endpoint", version="5", last_login=EPOCH, status="active"))
    assert to_agent(A1, whole) == evolve(AGENT, type="Endpoint", version="5", last_login=EPOCH, status="active")
    for login in (EPOCH, EPOCH * 1000, "2025-06-15T15:06:40Z", "2025-06-15T17:06:40+02:00", str(EPOCH)):
        agent = to_agent(A1.upper(), {"agent": {"key": "k", "last_login": login, "groups": "one"}})
        assert agent is not None
        assert (agent.id, agent.last_login, agent.groups) == (A1, EPOCH, ("one",))
    for nothing in (None, [], {}, {"agent": []}, {"agent": {}}, {"agent": {"key": 5}}):
        assert to_agent(A1, nothing) is None
    odd = to_agent(A1, {"agent": {"key": "k", "host": "h", "last_login": "never", "name": None, "type": 5}})
    assert odd == Agent(A1, "", "k", type="5")
