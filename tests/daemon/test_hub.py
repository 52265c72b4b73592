"""Several workers of one node: any agent may be parked on any of them."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.hub import Hub, Member
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.testing.agent.client import AgentClient
from wazuh_comms_trio.testing.node.node import Node, open_node

numbers = count(1)


def command(document_id: str, agent_id: str, **fields: Any) -> Command:
    return Command(document_id, Target("agent", agent_id), Action("restart"), **fields)


async def enrolled(node: Node, worker: int) -> AgentClient:
    """An agent that is logged in, and talks to this worker only."""
    agent = await node.workers[worker].enrol_agent(str(UUID(int=next(numbers), version=4)))
    assert (await agent.authenticate()).status == 200
    return agent


async def polled(agent: AgentClient) -> list[str]:
    reply = await agent.poll()
    assert reply.status in (200, 408)
    return [each["document_id"] for each in reply.json().get("commands", [])]


async def parked(node: Node, number: int) -> None:
    while sum(daemon.worker.services.commands.parked for daemon in node.workers) < number:  # noqa: ASYNC110  # mock clock
        await trio.sleep(0.01)


@pytest.mark.parametrize("keeps_posted", [True, False], ids=["embedded", "posted only"])
@pytest.mark.parametrize("worker", [0, 1])
async def test_a_post_reaches_the_agent_wherever_it_is_parked(
    autojump_clock: MockClock, keeps_posted: bool, worker: int
) -> None:
    async with open_node(2) as node:
        node.backends.commands.keeps_posted = keeps_posted
        agent = await enrolled(node, worker)
        got: list[str] = []

        async def poll() -> None:
            got.extend(await polled(agent))

        for round_ in range(4):  # whichever worker is asked
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                await parked(node, 1)
                began = trio.current_time()
                answered = await node.post([command(f"c{round_}", agent.uuid)])
                assert [each.document_id for each in answered] == [f"c{round_}"]
                assert trio.current_time() - began < 0.2
        assert got == ["c0", "c1", "c2", "c3"]


@pytest.mark.parametrize("keeps_posted", [True, False], ids=["embedded", "posted only"])
async def test_nobody_is_there_and_the_poster_is_told_so(autojump_clock: MockClock, keeps_posted: bool) -> None:
    async with open_node(2) as node:
        node.backends.commands.keeps_posted = keeps_posted
        agent = await enrolled(node, 0)
        began = trio.current_time()
        assert await node.post([command("c1", agent.uuid)]) == []
        assert trio.current_time() - began <= 2
        # Stored, or the poster's again.
        assert await polled(agent) == (["c1"] if keeps_posted else [])


async def test_an_agent_that_parks_while_the_post_waits(autojump_clock: MockClock) -> None:
    async with open_node(3) as node:
        node.backends.commands.keeps_posted = False
        agent = await enrolled(node, 2)
        async with trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def post() -> None:
                answers.extend(await node.post([command("c1", agent.uuid)]))

            nursery.start_soon(post)
            await trio.sleep(1)
            assert await polled(agent) == ["c1"]
        assert [each.document_id for each in answers] == ["c1"]


async def test_a_delivered_command_is_not_delivered_again_by_any_worker(autojump_clock: MockClock) -> None:
    async with open_node(2) as node:
        node.backends.commands.keeps_posted = False
        agent = await enrolled(node, 0)
        again = node.workers[1].client(agent.uuid)
        await again.authenticate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(polled, agent)
            await parked(node, 1)
            assert len(await node.post([command("c1", agent.uuid, timeout=60)])) == 1
        got: list[str] = []

        async def poll() -> None:
            got.extend(await polled(again))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await parked(node, 1)
            for _ in range(2):  # both workers are asked
                answered = await node.post([command("c1", agent.uuid, timeout=60)])
                assert [(each.document_id, each.status) for each in answered] == [("c1", "sent")]
        assert got == []


async def test_two_polls_of_one_agent_on_two_workers_and_one_command(autojump_clock: MockClock) -> None:
    for keeps_posted in (True, False):
        async with open_node(2) as node:
            node.backends.commands.keeps_posted = keeps_posted
            agent = await enrolled(node, 0)
            other = node.workers[1].client(agent.uuid)
            await other.authenticate()
            got: list[str] = []

            async def poll(client: AgentClient, got: list[str] = got) -> None:
                got.extend(await polled(client))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll, agent)
                nursery.start_soon(poll, other)
                await parked(node, 2)
                assert len(await node.post([command("c1", agent.uuid)])) == 1
            assert got == ["c1"]


@pytest.mark.expects_errors
async def test_a_worker_that_dies_before_it_answers_a_post(autojump_clock: MockClock) -> None:
    async with open_node(2) as node:
        agent = await enrolled(node, 1)
        node.backends.commands.faults.delay = 0.5  # time to die in
        answers: list[Command] = []

        async def post() -> None:
            answers.extend(await node.post([command("c1", agent.uuid)]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(polled, agent)
            await parked(node, 1)
            nursery.start_soon(post)
            await trio.sleep(0.1)
            node.backends.commands.faults.delay = 0
            first = next(number for number, link in enumerate(node.links) if link is node.hub.members[-1].link)
            if first == 0:  # the one that was asked, and isn't the agent's
                await node.kill(0)
        assert [each.document_id for each in answers] == ["c1"]


@pytest.mark.expects_errors
async def test_a_worker_that_dies_with_the_right_to_offer(autojump_clock: MockClock) -> None:
    """What it had acquired is offered again, by another."""
    async with open_node(3) as node:
        node.backends.commands.keeps_posted = False
        agent = await enrolled(node, 2)
        doomed = node.hub.members[0]
        assert node.hub._grant(doomed, ["c1"]) == ["c1"]
        answers: list[Command] = []

        async def post() -> None:
            answers.extend(await node.post([command("c1", agent.uuid)]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(polled, agent)
            await parked(node, 1)
            node.hub.members.remove(doomed)
            node.hub.members.append(doomed)  # it isn't the one that is asked
            nursery.start_soon(post)
            await trio.sleep(0.5)
            assert answers == []
            await doomed.link.aclose()
        assert [each.document_id for each in answers] == ["c1"]


@pytest.mark.parametrize("keeps_posted", [True, False], ids=["embedded", "posted only"])
@pytest.mark.parametrize("slept", [0.0, 3.0], ids=["just now", "for some seconds"])
async def test_a_worker_that_hangs_is_passed_over(autojump_clock: MockClock, keeps_posted: bool, slept: float) -> None:
    """The other one delivers, within the poster's two seconds; and when the first wakes up, nothing comes twice."""
    async with open_node(2) as node:
        node.backends.commands.keeps_posted = keeps_posted
        agent = await enrolled(node, 1)
        again = node.workers[0].client(agent.uuid)
        await again.authenticate()
        got: list[str] = []

        async def poll() -> None:
            got.extend(await polled(agent))

        node.hang(0)
        await trio.sleep(slept)
        for round_ in range(2):  # whichever worker's turn it is
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                await parked(node, 1)
                began = trio.current_time()
                answered = await node.post([command(f"c{round_}", agent.uuid, timeout=300)])
                assert [each.document_id for each in answered] == [f"c{round_}"]
                assert trio.current_time() - began < 2
        node.wake(0)
        await trio.sleep(5)
        assert await polled(again) == []
        assert got == ["c0", "c1"]


async def test_a_post_that_hung_is_anothers_whatever_is_posted_besides(autojump_clock: MockClock) -> None:
    """Posts have the workers in turn: one more between each two tries, and it was the hanging one's turn again."""

    async def post(number: int) -> None:
        assert await node.post([command(f"c{number}", uuid)]) == []  # the agent isn't anywhere: no error

    uuid = str(UUID(int=next(numbers), version=4))
    async with open_node(2) as node:
        node.backends.commands.keeps_posted = False
        node.hang(0)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(post, number)
                await trio.sleep(0.2 if number == 0 else 0.4)


async def test_what_a_hanging_worker_was_posted_is_not_delivered_behind_the_posters_back(
    autojump_clock: MockClock,
) -> None:
    async with open_node(2) as node:
        node.backends.commands.keeps_posted = False
        agent = await enrolled(node, 0)
        node.hang(0)
        assert await node.post([command("c1", agent.uuid)]) == []  # the agent isn't anywhere
        node.wake(0)
        with trio.move_on_after(1.5):
            assert await polled(agent) == []


@pytest.mark.expects_errors
async def test_without_workers_a_post_is_refused_in_time(autojump_clock: MockClock) -> None:
    async with open_node(1) as node:
        await node.kill(0)
        began = trio.current_time()
        with pytest.raises(BackendUnavailable):
            await node.post([command("c1", "01a2054b-6d7e-7c3b-ae8c-801744614b42")])
        assert trio.current_time() - began <= 2


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("keeps_posted", [True, False], ids=["embedded", "posted only"])
async def test_many_agents_many_commands_each_once(autojump_clock: MockClock, workers: int, keeps_posted: bool) -> None:
    agents_count, rounds = 40, 3
    async with open_node(workers) as node:
        node.backends.commands.keeps_posted = keeps_posted
        agents = [await enrolled(node, number % workers) for number in range(agents_count)]
        got: Counter[str] = Counter()

        async def poll(agent: AgentClient) -> None:
            mine: list[str] = []
            while len(mine) < rounds:
                mine += await polled(agent)
            got.update(mine)

        answered: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)

            async def post(round_: int) -> None:
                commands = [command(f"{agent.uuid}/{round_}", agent.uuid) for agent in agents]
                while commands:  # as a poster does: what wasn't taken is offered again
                    taken = {each.document_id for each in await node.post(commands)}
                    answered.update(taken)
                    commands = [each for each in commands if each.document_id not in taken]

            for round_ in range(rounds):
                nursery.start_soon(post, round_)
        expected = {f"{agent.uuid}/{round_}" for agent in agents for round_ in range(rounds)}
        assert got == Counter(expected)
        assert answered == Counter(expected)


@pytest.mark.expects_errors
async def test_the_supervisors_end_stops_a_worker(autojump_clock: MockClock, unexpected_errors: list[str]) -> None:
    async with open_node(2) as node:
        agent = await enrolled(node, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.poll)
            await parked(node, 1)
            for link in node.links:
                await link.aclose()
            with trio.fail_after(2):
                for daemon in node.workers:
                    await daemon.ended.wait()
    assert unexpected_errors == ["wazuh_comms_trio.daemon.worker.hub_client: the supervisor is gone; stopping"] * 2


async def test_a_stop_may_answer_polls_over_time(autojump_clock: MockClock) -> None:
    async with open_node(1) as node:
        agents = [await enrolled(node, 0) for _ in range(20)]
        ends: list[float] = []

        async def poll(agent: AgentClient) -> None:
            reply = await agent.poll()
            assert reply.status == 408
            assert json.loads(reply.body)["code"] == 408
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await parked(node, 20)
            began = trio.current_time()
            node.links[0].send_nowait(messages.Stop(spread=10.0))
        assert ends[0] - began < 2
        assert 8 < ends[-1] - began <= 10.1
        middle = sum(end - began < 5 for end in ends)
        assert 7 <= middle <= 13


async def test_a_worker_of_an_older_version_is_never_the_leader(autojump_clock: MockClock) -> None:
    """The worker would search for itself alone, and publish nothing of what it finds."""
    async with trio.open_nursery() as nursery:
        hub = Hub()
        duties: dict[str, list[bool]] = {}

        async def listen(name: str, link: Link) -> None:
            while True:
                message = await link.receive()
                if isinstance(message, messages.LeaderChange):
                    duties.setdefault(name, []).append(message.leader)

        async def join(name: str, generation: int, *, duty: bool = False) -> Member:
            ours, theirs = map(Link, memory_stream_pair())
            member = Member(name, ours, generation)
            for link in (ours, theirs):
                nursery.start_soon(link.run)
            nursery.start_soon(hub.serve, member)
            nursery.start_soon(listen, name, theirs)
            theirs.send_nowait(messages.Ready(public_key="", duty=duty))
            await member.ready.wait()
            return member

        await join("older", 3)
        first = await join("first", 1, duty=True)
        await join("second", 1, duty=True)
        await trio.sleep(0.1)
        assert (duties["first"], duties["second"]) == ([True], [False])
        hub.dismiss(first)
        await trio.sleep(0.1)
        assert duties["second"][-1]
        assert True not in duties.get("older", [])
        nursery.cancel_scope.cancel()


async def test_that_there_is_no_leader_is_said_once(autojump_clock: MockClock) -> None:
    """While all are stopping, and the one that was has left."""
    async with trio.open_nursery() as nursery:
        hub = Hub()
        nursery.start_soon(hub.run)
        said: list[bool] = []

        async def listen(link: Link) -> None:
            with suppress(LinkBroken):
                while True:
                    message = await link.receive()
                    if isinstance(message, messages.LeaderChange):
                        said.append(message.leader)

        members = []
        for name in ("one", "two"):
            ours, theirs = map(Link, memory_stream_pair())
            members.append(Member(name, ours))
            for link in (ours, theirs):
                nursery.start_soon(link.run)
            nursery.start_soon(hub.serve, members[-1])
            nursery.start_soon(listen, theirs)
            theirs.send_nowait(messages.Ready(public_key="", duty=True))
            await members[-1].ready.wait()
        for member in members:
            hub.dismiss(member)
        await members[1].link.aclose()
        await members[1].left.wait()
        await trio.sleep(0.1)
        said.clear()
        await trio.sleep(10)
        assert said == []
        nursery.cancel_scope.cancel()
