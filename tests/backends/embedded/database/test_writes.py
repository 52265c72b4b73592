"""Group commit: many callers share one, and none undoes another's."""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import apsw
import outcome
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backends.embedded.conftest import NOTES
from tests.backends.embedded.notes import insert, read, write
from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
from wazuh_comms_trio.backends.embedded.database.group_commit import KEPT_SECONDS, GroupCommit, Job
from wazuh_comms_trio.errors import BackendUnavailable

pytestmark = pytest.mark.real_clock


class OwnError(Exception):
    pass


async def test_many_callers_share_few_commits(notes: Database) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(write, notes, str(number))
    assert len(await read(notes)) == 200
    jobs, groups = notes.commits
    assert jobs == 200
    assert groups <= 10


async def test_an_error_undoes_its_own_part_only(notes: Database) -> None:
    errors = 0

    def fail(connection: apsw.Connection) -> None:
        insert(connection, "half done")
        raise OwnError

    def misspelt(connection: apsw.Connection) -> None:
        insert(connection, "half done too")
        connection.execute("INSERT INTO notes VALUES ('once'), ('once')")

    async def run(number: int) -> None:
        nonlocal errors
        if number % 3 == 0:
            with pytest.raises(OwnError):
                await notes.write(fail)
            errors += 1
        elif number % 3 == 1:
            with pytest.raises(apsw.ConstraintError):
                await notes.write(misspelt)
            errors += 1
        else:
            await write(notes, str(number))

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(run, number)
    assert await read(notes) == {str(number) for number in range(2, 60, 3)}
    assert errors == 40
    assert notes.commits[1] < 20


async def test_who_is_cancelled_takes_nobody_along(notes: Database) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(write, notes, f"kept {number}")
        with trio.move_on_after(0) as scope:
            await write(notes, "cancelled")
        assert scope.cancelled_caught
    assert {f"kept {number}" for number in range(100)} <= await read(notes)


async def test_what_was_accepted_is_written_before_closing(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, open_database(tmp_path / "notes.db", NOTES) as database:
        for number in range(50):
            nursery.start_soon(write, database, str(number))
        await trio.testing.wait_all_tasks_blocked()
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        assert len(await read(database)) == 50


async def test_a_closed_one_is_unavailable(tmp_path: Path) -> None:
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        pass
    with pytest.raises(BackendUnavailable):
        await write(database, "x")
    with pytest.raises(BackendUnavailable):
        await read(database)
    assert database.write_soon(lambda connection: None) is None


async def test_the_bodys_error_comes_out_as_it_is(tmp_path: Path) -> None:
    async def fail() -> None:
        async with open_database(tmp_path / "notes.db", NOTES) as database:
            await write(database, "x")
            raise OwnError

    with pytest.raises(OwnError):
        await fail()
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        assert await read(database) == {"x"}


async def test_cancelling_everything_ends_at_once(tmp_path: Path) -> None:
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with open_database(tmp_path / "notes.db", NOTES) as database:
            await write(database, "x")
            scope.cancel()
            await trio.sleep_forever()
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        assert await read(database) == {"x"}


async def test_lesser_writes_are_not_waited_for(notes: Database) -> None:
    done = notes.write_soon(lambda connection: insert(connection, "soon"))
    assert done is not None
    await done.wait()
    assert await read(notes) == {"soon"}


async def test_a_cancelled_opening_leaves_no_thread(tmp_path: Path) -> None:
    for turns in range(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_for_ever, tmp_path / "notes.db")
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    for thread in threading.enumerate():
        if thread.name.startswith("notes-"):  # it was told to end, and takes its time
            await trio.to_thread.run_sync(thread.join, 5)
            assert not thread.is_alive()


async def open_for_ever(path: Path) -> None:
    async with open_database(path, NOTES):
        await trio.sleep_forever()


# --- preemptible jobs, the parts of something big; and urgent ones ---


class Commits:
    """A ``commit`` that notes its groups, and before each job lets in others if they hurry, as ``transact`` does.
    ``during`` is called with each job, ``before`` before a group. ``in_thread``: a group sees what is handed in."""

    def __init__(self, during: Callable[[str], None] = lambda work: None, *, in_thread: bool = False) -> None:
        self.groups: list[list[str]] = []
        self.during = during
        self.before: Callable[[], None] = lambda: None
        self.in_thread = in_thread
        self.group_commit = GroupCommit[str](self, name="a test")

    async def __call__(self, jobs: Sequence[Job[str]]) -> None:
        group: list[str] = []
        self.before()
        for position, job in enumerate(jobs):
            if self.group_commit.lets_in(job) and position:
                for rest in jobs[position:]:
                    rest.postponed = True
                break
            group.append(job.work)
            job.outcome = outcome.Value(job.work)
            self.during(job.work)
            for _ in range(5 * self.in_thread):
                await trio.lowlevel.checkpoint()
        self.groups.append(group)
        for _ in range(3):  # whoever was woken has run
            await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as runs, trio.open_nursery() as callers:
            yield callers
            await wait_all_tasks_blocked()  # all have handed in
            runs.start_soon(self.group_commit.run)
            await wait_all_tasks_blocked()
            self.group_commit.close()


MEBIBYTE = 1024 * 1024


def parts(name: str, count: int) -> list[tuple[str, int]]:
    return [(f"{name}{number}", MEBIBYTE) for number in range(count)]


async def test_big_callers_parts_share_transactions_of_8_mebibytes() -> None:
    commits = Commits()
    async with commits.running() as callers:
        for name in "abcd":
            callers.start_soon(commits.group_commit.submit_parts, parts(name, 5))
    assert [len(group) for group in commits.groups] == [8, 8, 4]
    works = [work for group in commits.groups for work in group]
    for name in "abcd":
        assert [work for work in works if work.startswith(name)] == [f"{name}{number}" for number in range(5)]


async def test_a_small_write_waits_for_one_part_and_no_more() -> None:
    def during(work: str) -> None:
        if work in ("a1", "a2"):
            commits.group_commit.submit_soon(f"small, beside {work}")

    commits = Commits(during)
    async with commits.running() as callers:
        callers.start_soon(commits.group_commit.submit_parts, parts("a", 6))
    assert commits.groups == [["a0", "a1"], ["small, beside a1"], ["a2"], ["small, beside a2"], ["a3", "a4", "a5"]]


async def test_small_writes_without_end_leave_big_ones_their_turn() -> None:
    def during(work: str) -> None:
        if work != "a5" and ["a5"] not in commits.groups:
            commits.group_commit.submit_soon("small")

    commits = Commits(during)
    async with commits.running() as callers:
        commits.group_commit.submit_soon("small")
        callers.start_soon(commits.group_commit.submit_parts, parts("a", 6))
    big = [position for position, group in enumerate(commits.groups) if group[0].startswith("a")]
    assert big == [1, 3, 5, 7, 9, 11]
    assert [group for group in commits.groups if group[0].startswith("a")] == [[f"a{number}"] for number in range(6)]


async def test_an_urgent_write_waits_for_one_other_and_no_more() -> None:
    def during(work: str) -> None:
        if work in ("small 1", "a1"):
            for _ in range(2):
                callers.start_soon(partial(commits.group_commit.submit, "urgent", urgent=True))

    commits = Commits(during, in_thread=True)
    async with commits.running() as callers:
        for number in range(4):
            commits.group_commit.submit_soon(f"small {number}")
        callers.start_soon(commits.group_commit.submit_parts, parts("a", 3))
    assert commits.groups == [
        ["small 0", "small 1"],
        ["urgent", "urgent"],
        ["a0"],
        ["small 2", "small 3"],
        ["a1"],
        ["urgent", "urgent"],
        ["a2"],
    ]


async def test_urgent_writes_without_end_leave_others_their_turn() -> None:
    def during(work: str) -> None:
        if len(commits.groups) < 8:
            callers.start_soon(partial(commits.group_commit.submit, "urgent", urgent=True))

    commits = Commits(during)
    async with commits.running() as callers:
        callers.start_soon(partial(commits.group_commit.submit, "urgent", urgent=True))
        for number in range(3):
            commits.group_commit.submit_soon(f"small {number}")
    others = [group for group in commits.groups if "urgent" not in group]
    assert [work for group in others for work in group] == ["small 0", "small 1", "small 2"]
    assert commits.groups.index(others[-1]) <= 5


async def test_urgent_writes_without_end_leave_others_some_of_each_commit(mock_clock: MockClock) -> None:
    """As a fleet's claims, or a program's posts: with each answer the next one comes."""
    waiting: list[str] = []

    def during(work: str) -> None:
        if work == "urgent":
            waiting.clear()
        elif not waiting:
            waiting.append("urgent")
            callers.start_soon(partial(commits.group_commit.submit, "urgent", urgent=True))

    works = [f"small {number}" for number in range(100)]
    commits = Commits(during, in_thread=True)
    async with commits.running() as callers:
        for work in works:
            commits.group_commit.submit_soon(work)
    others = [group for group in commits.groups if group != ["urgent"]]
    assert [work for group in others for work in group] == works
    assert [len(group) for group in others] == [1, 4, 16, 16, 16, 16, 16, 15]
    assert [len(group) for group in commits.groups[1::2]] == [1] * 8


async def test_urgent_writes_without_end_wait_for_little_where_others_take_long(mock_clock: MockClock) -> None:
    """A packet of a hundred events takes as long as ten small jobs: sixteen of them were 30 ms."""

    def during(work: str) -> None:
        if work != "urgent":
            mock_clock.jump(0.6 * KEPT_SECONDS)
            callers.start_soon(partial(commits.group_commit.submit, "urgent", urgent=True))

    commits = Commits(during, in_thread=True)
    async with commits.running() as callers:
        for number in range(12):
            commits.group_commit.submit_soon(f"packet {number}")
    others = [group for group in commits.groups if "urgent" not in group]
    assert [len(group) for group in others] == [1, 2, 2, 2, 2, 2, 1]


async def test_what_a_group_waits_for_before_it_begins_takes_nothing_of_its_time(mock_clock: MockClock) -> None:
    """Beside another worker each transaction waits for the other's, which has the file's lock until it is on disk."""

    def during(work: str) -> None:
        if work != "urgent":
            callers.start_soon(partial(commits.group_commit.submit, "urgent", urgent=True))

    commits = Commits(during, in_thread=True)
    commits.before = lambda: mock_clock.jump(5 * KEPT_SECONDS)
    async with commits.running() as callers:
        for number in range(40):
            commits.group_commit.submit_soon(f"small {number}")
    others = [group for group in commits.groups if "urgent" not in group]
    assert [len(group) for group in others] == [1, 4, 16, 16, 3]


async def test_parts_are_answered_together_when_all_are_durable() -> None:
    commits = Commits()
    answers: list[object] = []

    async def submit() -> None:
        made = await commits.group_commit.submit_parts(parts("a", 20))
        answers.append((len(commits.groups), [each.unwrap() for each in made]))

    async with commits.running() as callers:
        callers.start_soon(submit)
    assert answers == [(3, [f"a{number}" for number in range(20)])]


async def test_parts_of_a_caller_that_left_are_dropped() -> None:
    commits = Commits(lambda work: scope.cancel())
    scope = trio.CancelScope()

    async def submit() -> None:
        with scope:
            await commits.group_commit.submit_parts(parts("a", 20))

    async with commits.running() as callers:
        callers.start_soon(submit)
    assert commits.groups == [[f"a{number}" for number in range(8)]]


async def test_a_stopped_writer_leaves_no_part_waiting() -> None:
    async def never_ends(jobs: Sequence[Job[str]]) -> None:
        await trio.sleep_forever()

    group_commit = GroupCommit[str](never_ends, name="a test")
    async with trio.open_nursery() as writers, trio.open_nursery() as callers:

        async def submit() -> None:
            made = await group_commit.submit_parts(parts("a", 20))
            assert len(made) == 20
            for each in made:
                with pytest.raises(BackendUnavailable):
                    each.unwrap()

        callers.start_soon(submit)
        writers.start_soon(group_commit.run)
        await wait_all_tasks_blocked()
        writers.cancel_scope.cancel()


async def test_a_part_that_fails_undoes_itself_alone(notes: Database) -> None:
    def fail(connection: apsw.Connection) -> None:
        insert(connection, "half done")
        raise BackendUnavailable("not this one")

    def insert_b(connection: apsw.Connection) -> None:
        insert(connection, "b")

    made = await notes.write_parts([(lambda connection: insert(connection, "a"), 1), (fail, 1), (insert_b, 1)])
    assert [type(each) for each in made] == [type(None), BackendUnavailable, type(None)]
    assert await read(notes) == {"a", "b"}
    assert notes.commits == (3, 1)


async def test_a_small_write_beside_parts(notes: Database) -> None:
    begun, handed_in = threading.Event(), threading.Event()

    def first(connection: apsw.Connection) -> None:
        begun.set()
        assert handed_in.wait(10)
        insert(connection, "part 1")

    rest = [(lambda connection, text=text: insert(connection, text), 1) for text in ("part 2", "part 3")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notes.write_parts, [(first, 1), *rest])
        assert await trio.to_thread.run_sync(begun.wait, 10)
        nursery.start_soon(write, notes, "small")
        await wait_all_tasks_blocked()
        handed_in.set()
    in_order = await notes.read(
        lambda connection: [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY rowid")]
    )
    assert in_order == ["part 1", "small", "part 2", "part 3"]
    assert notes.commits == (4, 3)
