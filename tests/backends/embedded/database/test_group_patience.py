"""Group commit: while several callers hand in jobs, a group waits for those that are about to."""

from collections.abc import Sequence
from functools import partial

import outcome
import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.backends.embedded.database.group_commit import GroupCommit, Job
from wazuh_comms_trio.backends.loop_turns import MOST_TURNS, PATIENCE, SHORT_TURN, SHORT_TURNS


@define(eq=False)
class Turns(trio.abc.Instrument):
    """Each turn of the event loop takes so many seconds."""

    clock: MockClock
    seconds: float

    def before_io_wait(self, timeout: float) -> None:
        self.clock.jump(self.seconds)


class Commits:
    """A ``commit`` that notes its groups, and when each began."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.began: list[float] = []
        self.group_commit = GroupCommit[str](self, name="a test")

    async def __call__(self, jobs: Sequence[Job[str]]) -> None:
        self.groups.append([job.work for job in jobs])
        self.began.append(trio.current_time())
        for job in jobs:
            job.outcome = outcome.Value(None)

    async def run(self, callers: Sequence[tuple[int, str]], clock: MockClock, turn: float, *, urgent: str = "") -> None:
        """Jobs are handed in, each in its turn of the event loop; a turn takes so many seconds."""
        turns = Turns(clock, turn)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.group_commit.run)
            await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(turns)
            for number in range(max(number for number, _ in callers) + 1):
                for due, work in callers:
                    if due == number:
                        nursery.start_soon(partial(self.group_commit.submit, work, urgent=work == urgent))
                await trio.lowlevel.checkpoint()
            trio.lowlevel.remove_instrument(turns)
            await wait_all_tasks_blocked()
            self.group_commit.close()


BUSY = 5 * SHORT_TURN


async def test_several_are_joined_by_those_that_come_in_the_next_turns(mock_clock: MockClock) -> None:
    commits = Commits()
    await commits.run([(0, "a"), (0, "b"), (0, "c"), (2, "d"), (4, "e")], mock_clock, BUSY)
    assert [sorted(group) for group in commits.groups] == [["a", "b", "c", "d", "e"]]


async def test_one_that_comes_alone_begins_at_once(mock_clock: MockClock) -> None:
    commits = Commits()
    await commits.run([(0, "a"), (3, "b"), (6, "c")], mock_clock, BUSY)
    assert commits.groups == [["a"], ["b"], ["c"]]


async def test_after_a_group_of_several_one_alone_is_waited_with(mock_clock: MockClock) -> None:
    commits = Commits()
    await commits.run([(0, "a"), (0, "b"), (0, "c"), (14, "d"), (16, "e")], mock_clock, BUSY)
    assert [sorted(group) for group in commits.groups] == [["a", "b", "c"], ["d", "e"]]


async def test_an_event_loop_with_nothing_to_do_isnt_waited_for(mock_clock: MockClock) -> None:
    commits = Commits()
    await commits.run([(0, "a"), (0, "b"), (0, "c"), (SHORT_TURNS + 8, "d")], mock_clock, SHORT_TURN / 10)
    assert [sorted(group) for group in commits.groups] == [["a", "b", "c"], ["d"]]


async def test_callers_without_end_are_waited_for_no_longer_than_the_limits(mock_clock: MockClock) -> None:
    for turn in (2 * SHORT_TURN, PATIENCE / 2, 10 * PATIENCE):
        commits = Commits()
        began = trio.current_time()
        await commits.run([(0, "x"), (0, "y"), *((number, str(number)) for number in range(40))], mock_clock, turn)
        # A few turns until the first are seen, and one that is under way when the time is up.
        assert turn < commits.began[0] - began < 6 * turn + min(PATIENCE, MOST_TURNS * turn)


async def test_an_urgent_one_ends_the_waiting(mock_clock: MockClock) -> None:
    commits = Commits()
    jobs = [(0, "a"), (0, "b"), (0, "c"), (2, "command"), (5, "late")]
    began = trio.current_time()
    await commits.run(jobs, mock_clock, BUSY, urgent="command")
    assert commits.groups[0] == ["command"]
    assert commits.began[0] - began < MOST_TURNS * BUSY


async def test_those_that_others_follow_are_waited_for_a_turn_however_many_come(mock_clock: MockClock) -> None:
    commits = Commits()
    group_commit, turns = commits.group_commit, Turns(mock_clock, BUSY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group_commit.run)
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(turns)
        began = trio.current_time()
        for _ in range(20):
            for number in range(50):  # so many that the writer's task, whichever its place, finds new ones each turn
                nursery.start_soon(partial(group_commit.submit, f"post {number}", urgent=True, followed=True))
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(turns)
        await wait_all_tasks_blocked()
        group_commit.close()
    assert commits.began[0] - began < 6 * BUSY


async def test_those_that_nobody_waits_for_begin_together_when_the_first_ones_time_is_over(
    autojump_clock: MockClock,
) -> None:
    commits = Commits()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.group_commit.run)
        began = trio.current_time()
        for number in range(3):
            commits.group_commit.submit_soon(f"patient {number}", within=3.0)
            await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert commits.groups == [["patient 0", "patient 1", "patient 2"]]
        assert [moment - began for moment in commits.began] == [3.0]
        late = commits.group_commit.submit_soon("patient 3", within=3.0)
        await late.done.wait()
        assert trio.current_time() - began == 6.0
        commits.group_commit.close()
    assert commits.groups[1:] == [["patient 3"]]


async def test_those_that_nobody_waits_for_go_with_others_but_not_with_urgent_ones(autojump_clock: MockClock) -> None:
    commits = Commits()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.group_commit.run)
        commits.group_commit.submit_soon("patient", within=60.0)
        assert not commits.group_commit.others_wait
        await commits.group_commit.submit("urgent", urgent=True)
        await commits.group_commit.submit("other")
        assert not commits.group_commit.others_wait
        commits.group_commit.close()
    assert commits.groups == [["urgent"], ["patient", "other"]]


async def test_those_that_nobody_waits_for_are_done_at_the_end(autojump_clock: MockClock) -> None:
    commits = Commits()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.group_commit.run)
        await wait_all_tasks_blocked()
        commits.group_commit.submit_soon("patient", within=60.0)
        await wait_all_tasks_blocked()
        commits.group_commit.submit_soon("another", within=60.0)
        commits.group_commit.close()
    assert [sorted(group) for group in commits.groups] == [["another", "patient"]]
    assert trio.current_time() == began
