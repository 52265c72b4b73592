"""What ``sent`` means behind a balancer: its kernel acknowledges, whatever has become of the agent."""

from __future__ import annotations

from collections.abc import Awaitable

import trio
from trio.testing import MockClock

from tests.balancers.relay import Relay
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.testing import AgentClient, Reply
from wazuh_comms_trio.testing.node.daemon import KEY, Daemon, open_daemon


def command(number: int, agent: AgentClient) -> Command:
    return Command(f"c{number}", Target("agent", agent.uuid), Action("restart"), timeout=100)


async def behind(daemon: Daemon, relay: Relay) -> AgentClient:
    """An agent that is logged in, and reaches the daemon through the relay alone."""
    enrolled = await daemon.enrol_agent()
    agent = AgentClient(relay.connect, uuid=enrolled.uuid, key=KEY, wall_clock=daemon.clock)
    assert (await agent.authenticate()).status == 200
    return agent


async def parked(daemon: Daemon, count: int) -> None:
    with trio.fail_after(60):
        while daemon.worker.services.commands.parked != count:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def state(daemon: Daemon, number: int) -> tuple[str, object]:
    found = await daemon.backends.commands.get(f"c{number}")
    assert found is not None
    return found.status, None if found.result is None else found.result.message


class Polls:
    """What each poll was answered."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    async def poll(self, call: Awaitable[Reply]) -> None:
        self.replies.append(await call)

    @property
    def commands(self) -> list[str]:
        return [
            each["document_id"] for reply in self.replies if reply.status == 200 for each in reply.json()["commands"]
        ]


async def test_a_relay_that_acknowledges_and_drops(autojump_clock: MockClock) -> None:
    """The command is ``sent`` and never comes; it ends as ``failed`` with its timeout, and isn't pending for ever."""
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        relay = Relay(nursery, daemon.listener.connect)
        agent = await behind(daemon, relay)
        polls = Polls()
        nursery.start_soon(polls.poll, agent.poll())
        await parked(daemon, 1)
        relay.dropping = True
        await daemon.backends.commands.add([command(1, agent)])
        await trio.sleep(5)
        assert (await state(daemon, 1))[0] == "sent"
        await trio.sleep(110)
        assert await state(daemon, 1) == ("failed", "no answer")
        assert polls.replies == []
        nursery.cancel_scope.cancel()


async def test_one_that_has_noticed_before_loses_nothing(autojump_clock: MockClock) -> None:
    """Keepalive towards the agents narrows it: once their side has ended, so has the poll, and commands wait."""
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        relay = Relay(nursery, daemon.listener.connect)
        agent = await behind(daemon, relay)
        lost, next_one = Polls(), Polls()
        nursery.start_soon(lost.poll, agent.poll())
        await parked(daemon, 1)
        relay.dropping = True
        await trio.sleep(100)
        await relay.notice()
        await parked(daemon, 0)
        await daemon.backends.commands.add([command(1, agent)])
        await trio.sleep(5)
        assert await state(daemon, 1) == ("pending", None)
        relay.dropping = False
        await next_one.poll(agent.poll())
        assert next_one.commands == ["c1"]
        await trio.sleep(1)  # it is noted once the agent has it
        assert (await state(daemon, 1))[0] == "sent"
        assert lost.replies == []
        nursery.cancel_scope.cancel()


async def test_a_relay_that_does_not_pass_on_a_close(autojump_clock: MockClock) -> None:
    """The poll that its agent closed stays parked at the node, until the agent's next one comes there: that one gets
    every command.
    """
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        relay = Relay(nursery, daemon.listener.connect, passes_closes=False)
        agent = await behind(daemon, relay)
        with trio.move_on_after(10):
            await agent.poll()
        await trio.sleep(1)
        assert daemon.worker.services.commands.parked == 1  # nobody is there any more
        polls = Polls()

        async def go_on_polling() -> None:
            while True:
                await polls.poll(agent.poll())

        nursery.start_soon(go_on_polling)
        await trio.sleep(1)
        for number in range(1, 11):
            await daemon.backends.commands.add([command(number, agent)])
            await trio.sleep(6)
        assert polls.commands == [f"c{number}" for number in range(1, 11)]
        nursery.cancel_scope.cancel()


async def test_a_relay_that_passes_it_on(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        relay = Relay(nursery, daemon.listener.connect)
        agent = await behind(daemon, relay)
        with trio.move_on_after(10):
            await agent.poll()
        await trio.sleep(1)
        assert daemon.worker.services.commands.parked == 0
        await daemon.backends.commands.add([command(1, agent)])
        await trio.sleep(1)
        assert await state(daemon, 1) == ("pending", None)
        nursery.cancel_scope.cancel()
