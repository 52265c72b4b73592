"""A pool's turns: first come first served, and nothing lost to those who give up waiting."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wazuh_comms_trio.transport.pool.turns import Turns


async def test_in_the_order_of_coming() -> None:
    turns = Turns(2)
    got: list[int] = []

    async def worker(number: int) -> None:
        await turns.take()
        got.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(worker, number)
            await trio.testing.wait_all_tasks_blocked()
        assert (got, turns.free, turns.waiting) == ([0, 1], 0, 4)
        assert not turns.take_nowait()
        for count in range(3, 7):
            turns.give_back()
            assert not turns.take_nowait(), "it is the next one's already"
            await trio.testing.wait_all_tasks_blocked()
            assert got == list(range(count))
    assert (turns.free, turns.waiting) == (0, 0)
    turns.give_back()
    assert turns.take_nowait()


@pytest.mark.parametrize("given_back_first", [False, True])
async def test_a_task_that_is_cancelled_while_it_waits(given_back_first: bool) -> None:
    """With the turn given to it at the same moment, it has it: the caller gives it back."""
    turns = Turns(1)
    assert turns.take_nowait()
    had = []

    async def worker() -> None:
        await turns.take()
        had.append(True)
        turns.give_back()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        await trio.testing.wait_all_tasks_blocked()
        if given_back_first:
            turns.give_back()
        nursery.cancel_scope.cancel()
    assert (had, turns.waiting, turns.free) == ([True] * given_back_first, 0, int(given_back_first))
