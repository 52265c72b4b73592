"""How many calls a backend is given at a time follows from how promptly it answers; on the mock clock, with a fake one
whose speed changes."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.http.client.adaptive_places import NEWEST_FIRST_AFTER, AdaptivePlaces

TIMEOUT = 10.0


@define
class Backend:
    """``parallel`` calls at a time, each for ``takes`` seconds; more wait in its queue, in order, and are done also
    when their caller has given up."""

    parallel: int
    takes: float
    done: int = 0
    under_way: int = 0
    most_under_way: int = 0
    _free: trio.Semaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free = trio.Semaphore(self.parallel)

    @property
    def capacity(self) -> float:
        return self.parallel / self.takes

    async def work(self, answer: trio.Event) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        async with self._free:
            await trio.sleep(self.takes)
        self.under_way -= 1
        self.done += 1
        answer.set()


@define
class Run:
    """Calls of callers that give up after ``TIMEOUT``: how they ended, by the second in which they did."""

    backend: Backend
    places: AdaptivePlaces | None
    good: Counter[int] = field(factory=Counter)
    given_up: Counter[int] = field(factory=Counter)
    slowest: float = 0.0

    async def call(self, nursery: trio.Nursery) -> None:
        began = trio.current_time()
        answer = trio.Event()
        with trio.move_on_after(TIMEOUT):
            place = await self.places.acquire() if self.places else began
            try:
                nursery.start_soon(self.backend.work, answer)
                await answer.wait()
            finally:
                if self.places:
                    self.places.release(place, answered=answer.is_set() or False)
        now = trio.current_time()
        (self.good if answer.is_set() else self.given_up)[int(now)] += 1
        if answer.is_set():
            self.slowest = max(self.slowest, now - began)

    async def offer(self, rate: float, seconds: float) -> None:
        """In an open loop."""
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for number in range(int(rate * seconds)):
                await trio.sleep_until(began + number / rate)
                nursery.start_soon(self.call, nursery)

    def goodput(self, start: int, end: int) -> float:
        return sum(self.good[second] for second in range(start, end)) / (end - start)


def places() -> AdaptivePlaces:
    return AdaptivePlaces(least=4, first=16, most=128)


@pytest.mark.parametrize(("parallel", "takes"), [(4, 0.4), (8, 0.4), (16, 2.0), (1, 0.1)])
async def test_half_as_fast_in_the_middle_of_a_run(parallel: int, takes: float, autojump_clock: MockClock) -> None:
    """Offered all that it could do at first: afterwards twice what it can."""
    backend = Backend(parallel, takes)
    run = Run(backend, places())
    start = int(trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.offer, 0.95 * backend.capacity, 240)
        await trio.sleep(60)
        assert run.goodput(start + 20, start + 60) >= 0.9 * 0.95 * backend.capacity
        assert not run.given_up
        backend.takes *= 2
    assert run.goodput(start + 80, start + 240) >= 0.9 * backend.capacity
    assert run.slowest <= TIMEOUT


async def test_without_it_a_slow_backend_does_what_nobody_waits_for(autojump_clock: MockClock) -> None:
    """The same run, with as many calls at a time as there are: why there are places."""
    backend = Backend(4, 0.4)
    run = Run(backend, None)
    start = int(trio.current_time())
    with trio.move_on_after(240):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.offer, 0.95 * backend.capacity, 240)
            await trio.sleep(60)
            backend.takes *= 2
    assert run.goodput(start + 120, start + 230) < 0.2 * backend.capacity


async def test_half_as_fast_and_still_fast_enough_refuses_nothing(autojump_clock: MockClock) -> None:
    """Offered 90 % of what it can do afterwards: no storm."""
    backend = Backend(8, 0.1)
    run = Run(backend, places())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.offer, 36, 120)
        await trio.sleep(60)
        backend.takes *= 2
    assert not run.given_up
    assert sum(run.good.values()) == 36 * 120
    assert run.slowest < 2


async def test_as_many_as_there_may_be_when_all_are_prompt(autojump_clock: MockClock) -> None:
    backend = Backend(1000, 1.0)
    run = Run(backend, places())
    await run.offer(95, 20)
    assert backend.most_under_way >= 95
    assert backend.most_under_way <= 128
    assert not run.given_up


async def test_one_slow_round_counts_once(autojump_clock: MockClock) -> None:
    limit = places()
    began = [await limit.acquire() for _ in range(16)]
    await trio.sleep(5)
    for moment in began:
        limit.release(moment, answered=False)
    assert limit.limit == pytest.approx(16 * 0.8)
    for _ in range(100):
        limit.release(await limit.acquire(), answered=False)
    assert limit.limit == limit.least == 4
    assert limit.in_use == 0


async def test_what_says_nothing_of_the_backend_changes_nothing(autojump_clock: MockClock) -> None:
    limit = places()
    began = await limit.acquire()
    await trio.sleep(100)
    limit.release(began, answered=None)
    assert (limit.limit, limit.in_use) == (16, 0)


class TestWaiting:
    async def test_the_oldest_first_then_the_newest(self, autojump_clock: MockClock) -> None:
        limit = AdaptivePlaces(least=1, first=1, most=1)
        order: list[int] = []

        async def call(number: int) -> None:
            began = await limit.acquire()
            order.append(number)
            await trio.sleep(0.4)
            limit.release(began, answered=True)

        async with trio.open_nursery() as nursery:
            for number in range(7):
                nursery.start_soon(call, number)
                await wait_all_tasks_blocked()
        first = int(NEWEST_FIRST_AFTER / 0.4) + 1
        assert order == [*range(first), *reversed(range(first, 7))]
        assert (limit.waiting, limit.in_use) == (0, 0)

    async def test_who_is_cancelled_takes_no_place(self, autojump_clock: MockClock) -> None:
        limit = AdaptivePlaces(least=1, first=1, most=1)
        began = await limit.acquire()
        with trio.move_on_after(1) as scope:
            await limit.acquire()
        assert scope.cancelled_caught
        assert limit.waiting == 0
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as late:

                async def end() -> None:
                    await wait_all_tasks_blocked()
                    limit.release(began, answered=True)  # the place is the other's now
                    late.cancel()

                nursery.start_soon(end)
                again = await limit.acquire()
        assert limit.in_use == 1
        limit.release(again, answered=True)
        assert limit.in_use == 0
