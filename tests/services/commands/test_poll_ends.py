"""When parked polls end: each at its own moment, while trio is told of few of them."""

from __future__ import annotations

from functools import partial
from math import inf
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, A2, open_dispatch
from wazuh_comms_trio.services.commands.poll_ends import PollEnds


class Poll:
    def __init__(self, end: float) -> None:
        self.scope = trio.CancelScope()
        self.end = end
        self.answered = trio.Event()
        self.ended: float | None = None


async def wait(ends: PollEnds, poll: Poll) -> None:
    ends.add(poll)
    with poll.scope:
        await poll.answered.wait()
    ends.remove(poll)
    poll.ended = trio.current_time()


def with_deadlines(polls: list[Poll]) -> int:
    return sum(poll.scope.deadline < inf for poll in polls if poll.ended is None)


class TestEnds:
    @pytest.mark.parametrize("seed", range(5))
    async def test_each_ends_at_its_own_moment(self, autojump_clock: MockClock, seed: int) -> None:
        """However they come, are answered and are shortened in between."""
        rng = Random(seed)
        ends, polls, answered = PollEnds(), list[Poll](), dict[Poll, float]()
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                now = trio.current_time()
                poll = Poll(now + rng.choice([rng.uniform(0, 3), rng.uniform(90, 110), 5.0]))
                polls.append(poll)
                nursery.start_soon(wait, ends, poll)
                await wait_all_tasks_blocked()
                chosen = rng.choice(polls)
                if chosen.ended is None and rng.random() < 0.3:
                    answered[chosen] = trio.current_time()
                    chosen.answered.set()
                elif chosen.ended is None and chosen.end - trio.current_time() > 1 and rng.random() < 0.3:
                    ends.shorten(chosen, trio.current_time() + rng.uniform(0, 1))
                await trio.sleep(rng.uniform(0, 0.5))
        assert len(answered) > 20
        assert [poll.ended for poll in polls] == pytest.approx([answered.get(poll, poll.end) for poll in polls])

    async def test_trio_is_told_of_those_that_end_next(self, autojump_clock: MockClock) -> None:
        ends, rng = PollEnds(), Random(1)
        polls = [Poll(rng.uniform(270, 330)) for _ in range(2000)]
        async with trio.open_nursery() as nursery:
            for poll in polls:
                nursery.start_soon(wait, ends, poll)
            await wait_all_tasks_blocked()
            assert 0 < with_deadlines(polls) < 300
            await trio.sleep_until(300)
            assert 0 < with_deadlines(polls) < 300
            for poll in polls:
                poll.answered.set()
        ended_by_themselves = [poll for poll in polls if poll.end < 300]
        assert len(ended_by_themselves) > 800
        assert all(poll.ended == poll.end for poll in ended_by_themselves)
        assert all(poll.ended == 300 for poll in polls if poll.end > 300)

    async def test_those_whose_time_is_over_end_together(self, mock_clock: MockClock) -> None:
        """After the process stood still."""
        ends = PollEnds()
        polls = [Poll(10 + number / 100) for number in range(200)]
        async with trio.open_nursery() as nursery:
            for poll in polls:
                nursery.start_soon(wait, ends, poll)
            await wait_all_tasks_blocked()
            mock_clock.jump(60)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            assert all(poll.ended == 60 for poll in polls)


async def test_parked_polls_have_no_deadlines_of_their_own(autojump_clock: MockClock) -> None:
    agents = [A1, A2, *(f"{number:08x}-39b5-7bfb-a7bc-c5c6835f03d1" for number in range(500))]
    async with open_dispatch(agents=agents) as dispatch, trio.open_nursery() as nursery:
        for number, agent_id in enumerate(agents):
            nursery.start_soon(partial(dispatch.poll, agent_id, limit=100.0 + number))
            await wait_all_tasks_blocked()
        parked = [dispatch.service._long_polls.newest(agent_id) for agent_id in agents]
        assert [poll is not None and poll.scope.deadline < inf for poll in parked].count(True) == 1
        await trio.sleep(350.5)
        assert dispatch.service.parked == len(agents) - 251
        nursery.cancel_scope.cancel()
    assert dispatch.service.parked == 0
