"""The lookup queue: who is looked up, how many at a time, and whether commands for few are on their way."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

import trio
from trio.testing import MockClock

from tests.services.bench import A1
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue

FLEET = [f"agent {number}" for number in range(400)]


def _queue(parked: Collection[str] = (A1, *FLEET)) -> LookupQueue:
    return LookupQueue(frozenset(parked))


async def _all_taken(queue: LookupQueue) -> list[set[str]]:
    taken: list[set[str]] = []
    with trio.move_on_after(0.1):
        while True:
            taken.append(await queue.take(frozenset()))
    return taken


async def test_each_of_two_posts_for_an_agent_is_looked_up_as_it_is_stored(autojump_clock: MockClock) -> None:
    queue = _queue()
    with trio.fail_after(1), queue.expecting([A1], kept=True):
        assert await queue.take(frozenset()) == {A1}
        with queue.expecting([A1], kept=True):
            assert await queue.take(frozenset()) == {A1}


async def test_what_comes_while_an_agent_is_looked_up_is_looked_for_after_it(autojump_clock: MockClock) -> None:
    """Also where nothing was found, so that no delivery ends."""
    queue = _queue()
    with trio.fail_after(1):
        queue.schedule([A1])
        assert await queue.take(frozenset()) == {A1}
        queue.schedule([A1, FLEET[0]])
        assert await queue.take({A1}) == {FLEET[0]}
        queue.handed_out([A1])
        assert await queue.take(frozenset()) == {A1}


async def test_of_two_posts_for_an_agent_the_one_that_is_stored_last_is_urgent_too() -> None:
    queue = _queue()
    first = ExitStack()
    first.enter_context(queue.expecting([A1]))
    with queue.expecting([A1]):
        first.close()
        assert queue.is_urgent
    assert not queue.is_urgent


async def test_those_to_whom_commands_go_and_those_they_are_stored_for_are_many_together() -> None:
    queue = _queue()
    queue.schedule(FLEET[:10], new=True)
    with queue.expecting(FLEET[:10]):
        assert queue.is_urgent
    with queue.expecting(FLEET[10:20]):
        assert not queue.is_urgent
    assert queue.is_urgent


async def test_a_posted_command_waits_for_no_fleet_that_is_looked_up(autojump_clock: MockClock) -> None:
    """One claim is one transaction, with what is posted in it."""
    queue = _queue()
    queue.schedule(FLEET)
    with queue.expecting([A1], kept=True):
        first = await queue.take(frozenset())
        assert A1 in first
        assert len(first) <= 16
        assert set().union(*await _all_taken(queue)) == set(FLEET) - first


async def test_posts_without_end_keep_nobody_from_being_looked_up(autojump_clock: MockClock) -> None:
    queue = _queue()
    queue.schedule(FLEET)
    left = set(FLEET)
    for _ in range(len(FLEET)):
        with queue.expecting([A1], kept=True):
            left -= await queue.take(frozenset())
    assert not left


async def test_one_that_is_posted_for_and_busy_is_left_out_until_its_delivery_is_decided(
    autojump_clock: MockClock,
) -> None:
    queue = _queue()
    queue.schedule(FLEET[:1])
    with queue.expecting([A1], kept=True):
        assert await queue.take(frozenset({A1})) == set(FLEET[:1])
        queue.delivery_decided(A1)
        assert await queue.take(frozenset()) == {A1}
