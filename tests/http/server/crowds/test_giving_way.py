"""What is urgent finds the event loop to itself: other requests stand still before their long steps."""

from __future__ import annotations

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.http.server.giving_way import BEGUN_WITHIN, CHECKED_WITHIN, LONGEST_HOLD, GivingWay

#: As a check's first bytes, and an agent's.
CHECK, HELLO = b"\x16\x03\x01\x08http/1.1", b"\x16\x03\x01"


@define
class Urgent:
    now: bool = False

    def __call__(self) -> bool:
        return self.now


@define
class Steps:
    """Long steps of some requests, in the order in which they were made."""

    giving_way: GivingWay
    made: list[int] = field(factory=list)

    async def make(self, number: int, *, urgent: bool = False) -> None:
        await self.giving_way.before_long_step(urgent=urgent)
        self.made.append(number)


async def test_without_a_crowd_nobody_waits() -> None:
    steps = Steps(GivingWay(lambda: True))
    await steps.make(1)
    assert not await steps.giving_way.before_handshake(CHECK)
    assert steps.made == [1]


async def test_beside_a_delivery_nothing_long_is_begun(mock_clock: MockClock) -> None:
    urgent = Urgent(now=True)
    steps = Steps(giving_way := GivingWay(urgent))
    async with trio.open_nursery() as nursery:
        with giving_way.crowded():
            for number in range(6):
                nursery.start_soon(steps.make, number)
                await wait_all_tasks_blocked()
            giving_way.go_on(holds=giving_way.holds(trio.current_time()))
            await steps.make(100, urgent=True)
            await wait_all_tasks_blocked()
            assert (steps.made, giving_way.waiting) == ([100], 6)
            urgent.now = False
            nursery.start_soon(steps.make, 6)  # behind those before it
            await wait_all_tasks_blocked()
            assert steps.made == [100]
            giving_way.go_on(holds=giving_way.holds(trio.current_time()))
            await wait_all_tasks_blocked()
            assert sorted(steps.made) == [0, 1, 2, 3, 100]
        await wait_all_tasks_blocked()
        assert sorted(steps.made) == [*range(7), 100]


async def test_deliveries_without_end_have_half_of_the_time(mock_clock: MockClock) -> None:
    giving_way = GivingWay(lambda: True)
    with giving_way.crowded():
        held = 0
        for _ in range(400):
            held += giving_way.holds(trio.current_time())
            mock_clock.jump(LONGEST_HOLD / 20)
    assert 0.4 * 400 < held <= 0.55 * 400


async def test_beside_a_check_one_goes_on_in_each_turn(mock_clock: MockClock) -> None:
    steps = Steps(giving_way := GivingWay(lambda: False))
    async with trio.open_nursery() as nursery:
        with giving_way.crowded():
            assert await giving_way.before_handshake(CHECK)
            for number in range(6):
                nursery.start_soon(steps.make, number)
                await wait_all_tasks_blocked()
            for turn in range(3):
                giving_way.go_on(holds=giving_way.holds(trio.current_time()))
                await wait_all_tasks_blocked()
                assert steps.made == list(range(turn + 1))
            giving_way.end_check()
            giving_way.go_on(holds=giving_way.holds(trio.current_time()))
            await wait_all_tasks_blocked()
            assert sorted(steps.made) == list(range(6))


@pytest.mark.parametrize("begins", [True, False])
async def test_a_check_that_doesnt_go_on_holds_up_nobody_for_long(begins: bool, mock_clock: MockClock) -> None:
    """It was seen, and is begun or not; then its peer is silent."""
    giving_way = GivingWay(lambda: False)
    with giving_way.crowded():
        assert not giving_way.holds(trio.current_time())
        giving_way.check_comes(trio.current_time())
        assert giving_way.holds(trio.current_time())
        if begins:
            assert await giving_way.before_handshake(CHECK)
        mock_clock.jump(CHECKED_WITHIN if begins else BEGUN_WITHIN)
        assert not giving_way.holds(trio.current_time())
        assert not await giving_way.before_handshake(HELLO)


async def test_who_leaves_stands_in_nobodys_way(mock_clock: MockClock) -> None:
    urgent = Urgent(now=True)
    steps = Steps(giving_way := GivingWay(urgent))
    async with trio.open_nursery() as nursery:
        with giving_way.crowded():
            with trio.CancelScope() as left:
                nursery.start_soon(steps.make, 1)
                left.cancel()
                await steps.make(0)
            await wait_all_tasks_blocked()
            urgent.now = False
            giving_way.go_on(holds=False)
            await wait_all_tasks_blocked()
    assert steps.made == [1]
