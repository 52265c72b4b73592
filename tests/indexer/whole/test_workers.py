"""Several workers of one node on the fake OpenSearch: one of them looks for commands, and all of them deliver."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import fake, stores_of, wall_clock
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.harness import as_backends
from tests.indexer.stores.commands.nodes import put, source
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, Target
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import Timeouts
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import stateless_event
from wazuh_comms_trio.testing.agent.client import AgentClient
from wazuh_comms_trio.testing.node.daemon import daemon_config
from wazuh_comms_trio.testing.node.node import Node, open_node

EVENTS = [stateless_event("m", "c", {"n": 1})]
CONFIG = daemon_config(timeouts=Timeouts(commands=60))


@asynccontextmanager
async def node_of(server: FakeOpenSearch, workers: int, **settings: Any) -> AsyncIterator[Node]:
    """One node; each of its workers has a client and stores of its own, as processes have."""

    def stores(leadership: Leadership) -> AbstractAsyncContextManager[Backends]:
        return backends_of(server, leadership, **settings)

    async with open_node(workers, CONFIG, open_stores=stores, clock=wall_clock) as node:
        yield node


@asynccontextmanager
async def backends_of(server: FakeOpenSearch, leadership: Leadership, **settings: Any) -> AsyncIterator[Backends]:
    others = memory_backends(wall_clock=wall_clock)
    async with stores_of(server, leadership=leadership, **settings) as stores:
        yield as_backends(stores, others.engine, others.files)


async def enrolled(node: Node, number: int, groups: tuple[str, ...] = ()) -> AgentClient:
    """Agent number so and so, logged in, on the worker whose turn it is."""
    uuid = str(UUID(int=number + 1, version=4))
    daemon = node.workers[number % len(node.workers)]
    agent = await daemon.enrol_agent(uuid, groups=groups)
    assert (await agent.authenticate()).status == 200
    return agent


def searches(server: FakeOpenSearch) -> list[str]:
    return [path for _, path in server.requests if path.endswith("wazuh-commands/_search")]


async def deliver(agent: AgentClient, got: Counter[str], wanted: int) -> None:
    """Polls until so many commands have come in all."""
    while got.total() < wanted:
        reply = await agent.poll()
        assert reply.status in (200, 408)
        got.update(each["document_id"] for each in reply.json().get("commands", []))


async def test_one_query_an_interval_however_many_workers(autojump_clock: MockClock) -> None:
    async with fake() as server:
        counts = {}
        for workers in (1, 4):
            async with node_of(server, workers) as node, trio.open_nursery() as nursery:
                for number in range(8):
                    agent = await enrolled(node, number + 100 * workers)
                    nursery.start_soon(deliver, agent, Counter[str](), 1)
                before = len(searches(server))
                await trio.sleep(120)
                counts[workers] = len(searches(server)) - before
                nursery.cancel_scope.cancel()
        assert counts[1] > 60
        assert abs(counts[4] - counts[1]) <= 3


async def test_commands_reach_agents_on_every_worker_once(autojump_clock: MockClock) -> None:
    async with fake() as server, node_of(server, 3) as node:
        agents = [await enrolled(node, number) for number in range(12)]
        got: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(deliver, agent, got, 36)
            for round_ in range(3):
                await trio.sleep(7 * round_)
                for number, agent in enumerate(agents):
                    put(server, f"{round_}/{number}", agent.uuid)
        assert got == Counter(f"{round_}/{number}" for round_ in range(3) for number in range(12))
        await trio.sleep(1)
        assert {source(server, name)["command"]["status"] for name in got} == {"sent"}


async def test_one_found_late_by_the_agent_is_known_to_its_worker(autojump_clock: MockClock) -> None:
    """The command was found while nobody polled; the agent comes to a worker that isn't the leader."""
    async with fake() as server, node_of(server, 2) as node:
        for number in range(4):
            agent = await enrolled(node, number)
            put(server, f"c{number}", agent.uuid)
            await trio.sleep(20)
            before = trio.current_time()
            got: Counter[str] = Counter()
            await deliver(agent, got, 1)
            assert set(got) == {f"c{number}"}
            assert trio.current_time() - before < 0.5


async def test_more_than_a_page_of_others_does_not_hide_ours(autojump_clock: MockClock) -> None:
    """What the agents of all workers want is looked for, where there is too much to see it all."""
    async with fake() as server, node_of(server, 3) as node:
        for number in range(3000):
            put(server, f"old-{number}", f"absent-{number}")
        await trio.sleep(10)
        agents = [await enrolled(node, number) for number in range(6)]
        got: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(deliver, agent, got, 6)
            await trio.sleep(8)
            for number, agent in enumerate(agents):
                put(server, f"ours-{number}", agent.uuid)
            with trio.fail_after(30):
                while got.total() < 6:  # noqa: ASYNC110  # mock clock
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert got == Counter(f"ours-{number}" for number in range(6))


async def test_a_groups_command_reaches_its_members_everywhere_at_once(autojump_clock: MockClock) -> None:
    async with fake() as server, node_of(server, 3) as node:
        agents = [await enrolled(node, number, groups=("web",)) for number in range(6)]
        got: Counter[str] = Counter()
        ends: list[float] = []

        async def poll(agent: AgentClient) -> None:
            reply = await agent.poll()
            got.update(each["document_id"] for each in reply.json().get("commands", []))
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await trio.sleep(20)
            put(server, "g1", "web", target={"type": "group", "id": "web"})
        assert got.total() == 6
        assert len(got) == 6
        assert max(ends) - min(ends) < 0.5
        assert source(server, "g1")["command"]["status"] == "sent"


@pytest.mark.expects_errors
async def test_another_worker_looks_when_the_one_on_duty_dies(autojump_clock: MockClock) -> None:
    async with fake() as server, node_of(server, 3) as node:
        agents = [await enrolled(node, number) for number in range(3)]
        leading = [daemon.backends.commands._leadership.is_leader for daemon in node.workers]
        assert sum(leading) == 1
        first = leading.index(True)
        await node.kill(first)
        await trio.sleep(0.1)
        leading = [daemon.backends.commands._leadership.is_leader for daemon in node.workers]
        assert sum(on for number, on in enumerate(leading) if number != first) == 1
        for number, agent in enumerate(agents):
            if number != first:
                put(server, f"c{number}", agent.uuid)
                got: Counter[str] = Counter()
                with trio.fail_after(10):
                    await deliver(agent, got, 1)
                assert set(got) == {f"c{number}"}


async def test_another_worker_looks_when_the_one_on_duty_hangs(autojump_clock: MockClock) -> None:
    async with fake() as server, node_of(server, 2) as node:
        first = next(n for n, daemon in enumerate(node.workers) if daemon.backends.commands._leadership.is_leader)
        other = 1 - first
        node.hang(first)
        agent = await enrolled(node, other)
        put(server, "c1", agent.uuid)
        got: Counter[str] = Counter()
        with trio.fail_after(10):
            await deliver(agent, got, 1)
        assert node.workers[other].backends.commands._leadership.is_leader
        node.wake(first)
        await trio.sleep(2)
        assert not node.workers[first].backends.commands._leadership.is_leader
        put(server, "c2", agent.uuid)
        with trio.fail_after(10):
            await deliver(agent, got, 2)
        assert got == Counter(["c1", "c2"])


async def test_one_that_is_gone_is_forgotten_everywhere(autojump_clock: MockClock) -> None:
    """Cancelled by another program: no worker offers it any more."""
    async with fake() as server, node_of(server, 2) as node:
        agents = [await enrolled(node, number) for number in range(2)]
        for number, agent in enumerate(agents):
            put(server, f"c{number}", agent.uuid)
        await trio.sleep(10)
        for number in range(2):
            node_document = server.index("wazuh-commands").documents[f"c{number}"]
            cancelled = {**node_document.source["command"], "status": "failed"}
            put(server, f"c{number}", **{name: cancelled[name] for name in ("status", "target", "action")})
        await trio.sleep(10)
        assert [len(daemon.backends.commands._pending._known) for daemon in node.workers] == [0, 0]
        for agent in agents:
            assert (await agent.poll()).status == 408


async def test_an_agent_that_one_worker_sees_is_there_for_all(autojump_clock: MockClock) -> None:
    """Its log-in is long ago, and the worker that looks who is away has never heard of it."""
    async with fake() as server, node_of(server, 3, disconnected_after=20.0) as node:
        agents = [await enrolled(node, number) for number in range(3)]
        gone = await enrolled(node, 4)
        seen: list[set[str]] = []

        def states() -> set[str]:
            return {source(server, agent.uuid, "wazuh-agents")["agent"]["status"] for agent in agents}

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(deliver, agent, Counter[str](), 1)
            for _ in range(100):
                await trio.sleep(1)
                seen.append(states())
            assert all(state == {"active"} for state in seen)
            assert source(server, gone.uuid, "wazuh-agents")["agent"]["status"] == "disconnected"
            nursery.cancel_scope.cancel()


def known(node: Node) -> list[int]:
    return [len(daemon.backends.commands._pending._known) for daemon in node.workers]


async def test_what_is_delivered_before_a_search_shows_it_is_forgotten_everywhere(autojump_clock: MockClock) -> None:
    """Each worker is told of a group's new children; one delivers them at once, and no search ever finds them."""
    async with fake() as server, node_of(server, 3) as node:
        agents = [await enrolled(node, number, groups=("web",)) for number in range(3)]
        got: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(deliver, agent, got, 9)
            for number in range(3):
                await trio.sleep(20)
                for daemon in node.workers:
                    parent = Command(f"g{number}", Target("group", "web"), Action("restart"), timeout=100_000)
                    await daemon.worker.services.commands.posts.post([parent], within=0.5)
            with trio.fail_after(30):
                while got.total() < 9:  # noqa: ASYNC110  # mock clock
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        await trio.sleep(120)
        assert known(node) == [0, 0, 0]


@pytest.mark.expects_errors
async def test_what_ends_while_the_duty_changes_is_forgotten_everywhere(autojump_clock: MockClock) -> None:
    async with fake() as server, node_of(server, 3) as node:
        put(server, "c1", "absent", timeout=100_000)
        await trio.sleep(10)
        assert known(node) == [1, 1, 1]
        first = next(n for n, daemon in enumerate(node.workers) if daemon.backends.commands._leadership.is_leader)
        put(server, "c1", "absent", status="failed")
        await node.kill(first)
        await trio.sleep(120)
        assert [count for number, count in enumerate(known(node)) if number != first] == [0, 0]


async def test_followers_forget_what_is_overdue_where_there_is_too_much_to_see(autojump_clock: MockClock) -> None:
    """Nobody can say what is gone as long as there is more than a page: what nobody may be offered goes by itself."""
    async with fake() as server, node_of(server, 2) as node:
        for number in range(3000):
            put(server, f"old-{number}", f"absent-{number}", timeout=100_000)
        agents = [await enrolled(node, number) for number in range(2)]
        got: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(deliver, agent, got, 20)
            await trio.sleep(8)
            for number in range(20):
                put(server, f"c{number}", agents[number % 2].uuid, timeout=30)
                await trio.sleep(2)
            await trio.sleep(20)
            nursery.cancel_scope.cancel()
        assert got.total() == 20
        await trio.sleep(120)
        left = [daemon.backends.commands._pending._known.keys() for daemon in node.workers]
        assert not [name for ids in left for name in ids if name.startswith("c")]


async def test_a_worker_that_knows_nothing_is_told_at_once(autojump_clock: MockClock) -> None:
    """Also when nothing has happened for long, and the next look is seconds away."""
    async with fake() as server, node_of(server, 2) as node:
        put(server, "c1", "absent", timeout=100_000)
        for _ in range(5):
            await trio.sleep(20.3)
            assert known(node) == [1, 1]
            commands = next(d.backends.commands for d in node.workers if not d.backends.commands._leadership.is_leader)
            commands._pending.drop("c1")
            commands._leadership.set_leader(False)  # as a worker hears when it comes
            await trio.sleep(0.3)
            assert known(node) == [1, 1]


@pytest.mark.parametrize("change", ["removed", "rekeyed"])
async def test_what_one_worker_knows_of_revocations_all_know(change: str, autojump_clock: MockClock) -> None:
    """Also one that hadn't seen the agent: while the registry can't be read it would take its token. So does a worker
    that comes later."""
    async with fake() as server, node_of(server, 3) as node:
        agent = await enrolled(node, 0)
        await trio.sleep(30)
        on = [daemon.client(agent.uuid) for daemon in node.workers]
        for each in on:
            each.token = agent.token
        assert (await on[0].post_stateless(EVENTS)).status == 204
        async with backends_of(server, Leadership()) as tool:  # a process of its own
            if change == "removed":
                assert await tool.agents.remove(agent.uuid)
            else:
                assert await tool.agents.rekey(agent.uuid, hash_key("k" * 32))
        await trio.sleep(10)  # the worker that it speaks to reads it again
        server.go_down()
        assert [(await each.post_stateless(EVENTS)).status in (403, 503) for each in on] == [True] * 3


async def test_who_was_removed_and_is_enrolled_again_goes_on_in_an_outage(autojump_clock: MockClock) -> None:
    """All workers know that it was removed; one that enrolled it again told nobody."""
    async with fake() as server, node_of(server, 3) as node:
        agent = await enrolled(node, 0)
        async with backends_of(server, Leadership()) as tool:
            assert await tool.agents.remove(agent.uuid)
        await trio.sleep(30)
        assert (await agent.post_stateless(EVENTS)).status == 403
        await node.workers[0].enrol_agent(agent.uuid)
        await trio.sleep(1)
        assert (await agent.authenticate()).status == 200
        server.go_down()
        for daemon in node.workers:
            each = daemon.client(agent.uuid)
            each.token = agent.token
            assert (await each.post_stateless(EVENTS)).status == 204
