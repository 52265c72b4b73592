"""A nursery beside a block: whose errors come out how, and who ends when."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.foundation.nurseries import BackgroundNursery


async def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("wait", [False, True])
async def test_the_blocks_error_comes_out_as_it_is(wait: bool) -> None:
    error = LookupError("ours")
    with pytest.raises(LookupError) as caught:
        async with BackgroundNursery(wait=wait):
            raise error
    assert caught.value is error


async def test_a_tasks_error_comes_out_in_a_group_and_cancels_the_block() -> None:
    with pytest.RaisesGroup(LookupError):
        async with BackgroundNursery() as nursery:
            nursery.start_soon(fail, LookupError("the task's"))
            await trio.sleep_forever()


async def test_both_errors_come_out() -> None:
    with pytest.RaisesGroup(LookupError, ValueError):
        async with BackgroundNursery(wait=True) as nursery:
            nursery.start_soon(fail, LookupError("the task's"))
            raise ValueError("the block's")


@pytest.mark.parametrize("fails", [False, True])
async def test_tasks_are_cancelled_at_the_end(autojump_clock: MockClock, fails: bool) -> None:
    began = trio.current_time()
    try:
        async with BackgroundNursery() as nursery:
            nursery.start_soon(trio.sleep, 100)
            if fails:
                raise LookupError
    except LookupError:
        assert fails
    assert trio.current_time() == began


@pytest.mark.parametrize("fails", [False, True])
async def test_tasks_are_waited_for(autojump_clock: MockClock, fails: bool) -> None:
    began = trio.current_time()
    try:
        async with BackgroundNursery(wait=True) as nursery:
            nursery.start_soon(trio.sleep, 100)
            if fails:
                raise LookupError
    except LookupError:
        assert fails
    assert trio.current_time() == began + 100


@pytest.mark.parametrize("wait", [False, True])
async def test_cancelling_it_from_within_ends_the_block_and_nothing_else(autojump_clock: MockClock, wait: bool) -> None:
    async with BackgroundNursery(wait=wait) as nursery:
        nursery.start_soon(trio.sleep, 100)
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()
    assert nursery.cancel_scope.cancelled_caught


@pytest.mark.parametrize("wait", [False, True])
async def test_cancelled_from_outside(autojump_clock: MockClock, wait: bool) -> None:
    began = trio.current_time()
    with trio.move_on_after(5) as scope:
        async with BackgroundNursery(wait=wait) as nursery:
            nursery.start_soon(trio.sleep, 100)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == began + 5


async def test_the_blocks_error_is_not_lost_when_the_wait_is_cancelled(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(LookupError), trio.move_on_after(5):
        async with BackgroundNursery(wait=True) as nursery:
            nursery.start_soon(trio.sleep, 100)
            raise LookupError
    assert trio.current_time() == pytest.approx(5, abs=1e-6)
