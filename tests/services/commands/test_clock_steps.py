"""A wall clock that is ahead and set back, also within a second, between two looks at it."""

from __future__ import annotations

from random import Random

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, Dispatch, agent, command, trio_wall_clock
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.foundation.environment import WallClock
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher


async def dispatcher_of(wall_clock: WallClock) -> tuple[CommandDispatcher, Dispatch]:
    """On memory backends with one agent. It isn't run yet."""
    backends = memory_backends(wall_clock=wall_clock)
    await backends.agents.add(agent())
    service = CommandDispatcher(
        backends.commands, backends.agents, poll_timeout=300.0, wall_clock=wall_clock, rng=Random(0)
    )
    return service, Dispatch(service, backends)


async def test_what_looked_overdue_for_a_moment_reaches_the_poll_that_is_parked(autojump_clock: MockClock) -> None:
    """Whether it came meanwhile, or its agent's poll. Found by the simulator."""
    ahead = 0.0
    service, dispatch = await dispatcher_of(lambda: trio_wall_clock() + ahead)
    backends = dispatch.backends

    async def have(document_id: str) -> None:
        await backends.commands.add([command(document_id, created_at=trio_wall_clock(), timeout=60)])

    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        for number, comes_first in enumerate((True, False)):
            await trio.sleep_until(2 * number + 0.2)
            ahead = 1000.0
            if comes_first:
                await have(f"c{number}")
            nursery.start_soon(dispatch.poll)
            await wait_all_tasks_blocked()
            if not comes_first:
                await have(f"c{number}")
            await trio.sleep(0.5)
            assert len(dispatch.received.get(A1, ())) == number
            ahead = 0.0
            await trio.sleep(0.5)
            assert dispatch.received == {A1: [f"c{each}" for each in range(number + 1)]}
        service.close()


async def test_a_clock_that_was_ahead_and_is_set_back(autojump_clock: MockClock) -> None:
    """What looked overdue meanwhile reaches the poll that is parked."""
    ahead = 1000.0
    service, dispatch = await dispatcher_of(lambda: trio_wall_clock() + ahead)
    backends = dispatch.backends
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        await trio.sleep(0.5)
        nursery.start_soon(dispatch.poll)
        await wait_all_tasks_blocked()
        await backends.commands.add([command("c1", created_at=trio_wall_clock(), timeout=60)])
        await wait_all_tasks_blocked()
        assert dispatch.received == {}
        ahead = 0.0
        await trio.sleep(1)
        assert dispatch.received == {A1: ["c1"]}
        service.close()
