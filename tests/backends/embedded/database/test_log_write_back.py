"""The log is written back while others write, and begins anew; big writes wait for it, small ones don't."""

import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import apsw
import outcome
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.backends.embedded.notes import insert, read, write
from wazuh_comms_trio.backends.embedded.database import connections
from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.group_commit import GroupCommit, Job
from wazuh_comms_trio.backends.embedded.database.log import write_back
from wazuh_comms_trio.backends.embedded.database.log.write_back import LogWriteBack, write_log_back

BIG = "x" * 8000


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Which thread has written the log back how often; a log of 20 pages is long."""
    found: Counter[str] = Counter()

    def noted(connection: apsw.Connection, how: str) -> int:
        found[threading.current_thread().name] += 1
        return write_log_back(connection, how)

    monkeypatch.setattr(write_back, "PAGES", 20)
    monkeypatch.setattr(write_back, "REST", 5)
    monkeypatch.setattr(write_back, "write_log_back", noted)
    monkeypatch.setattr(connections, "write_log_back", noted)
    return found


async def idle(log: LogWriteBack) -> None:
    while log._under_way:  # noqa: ASYNC110  # another thread works, and the product has no use for an event
        await trio.sleep(0.001)


@pytest.mark.real_clock
async def test_another_thread_writes_it_back_and_a_new_log_begins(notes: Database, threads: Counter[str]) -> None:
    log = notes._connections.log
    threads.clear()  # without the opening's
    lengths = []
    for number in range(100):
        await write(notes, f"{number} {BIG}")
        await idle(log)
        lengths.append(log._pages)
    assert max(lengths) < 40
    assert sum(after < before for before, after in pairwise(lengths)) >= 3
    assert threads["notes-log"] >= 3
    assert threads["notes-writes"] == 0  # nothing was committed meanwhile
    assert len(await read(notes)) == 100


@pytest.mark.real_clock
async def test_the_writer_writes_back_what_came_meanwhile(
    notes: Database, threads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = notes._connections.log
    threads.clear()  # without the opening's
    begun, may_end = trio.Event(), trio.Event()
    in_background = log._in_background

    async def slow() -> int:
        written = await in_background()
        begun.set()
        await may_end.wait()
        return written

    monkeypatch.setattr(write_back, "ROUNDS", 1)
    monkeypatch.setattr(log, "_in_background", slow)
    for number in range(40):
        await write(notes, f"{number} {BIG}")
        if log._under_way:
            await begun.wait()
    longest = log._pages
    assert longest > 40
    assert threads["notes-writes"] == 0
    may_end.set()
    await idle(log)
    monkeypatch.setattr(write_back, "REST", 1000)
    await write(notes, "one more")  # the log is whole in the file before it: a new one begins
    assert log._pages < 20
    assert threads["notes-writes"] == 1


@pytest.mark.real_clock
async def test_what_cannot_be_written_back_is_tried_again(
    notes: Database, threads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = notes._connections.log
    in_background, failures = log._in_background, 0

    async def failing() -> int:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise apsw.IOError("disk I/O error")
        return await in_background()

    monkeypatch.setattr(log, "_in_background", failing)
    for number in range(60):
        await write(notes, f"{number} {BIG}")
        await idle(log)
    assert failures > 3
    assert log._pages < 20 + 10
    assert len(await read(notes)) == 60


@pytest.mark.real_clock
async def test_too_long_a_log_is_the_writers(
    notes: Database, threads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> int:
        return 0

    log = notes._connections.log
    threads.clear()  # without the opening's
    monkeypatch.setattr(write_back, "TOO_MANY", 60)
    monkeypatch.setattr(write_back, "REST", 0)
    monkeypatch.setattr(log, "_in_background", nothing)
    for number in range(100):
        await write(notes, f"{number} {BIG}")
        await idle(log)
        assert log._pages < 80
    assert threads["notes-writes"] >= 1


@pytest.mark.real_clock
async def test_a_big_write_goes_on_when_it_is_written_back(notes: Database, threads: Counter[str]) -> None:
    def part(number: int) -> tuple[object, int]:
        return lambda connection: insert(connection, f"{number} {BIG}" * 4), 9 << 20  # a group each

    results = await notes.write_parts([part(number) for number in range(60)])  # type: ignore[misc]
    assert len(results) == 60
    assert not any(isinstance(result, Exception) for result in results)
    assert threads["notes-log"] >= 1
    assert len(await read(notes)) == 60


class Commits:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.group_commit: GroupCommit[str] = GroupCommit(self._commit, name="test")

    async def _commit(self, jobs: Sequence[Job[str]]) -> None:
        await trio.lowlevel.checkpoint()
        for job in jobs:
            job.outcome = outcome.Value(job.work)
            self.done.append(job.work)


@pytest.fixture
async def commits() -> AsyncIterator[Commits]:
    commits = Commits()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.group_commit.run)
        yield commits
        nursery.cancel_scope.cancel()


async def test_big_writes_are_held_and_small_ones_are_not(commits: Commits) -> None:
    async with trio.open_nursery() as nursery:
        commits.group_commit.hold()
        nursery.start_soon(commits.group_commit.submit_parts, [("big 1", 1), ("big 2", 1)])
        await wait_all_tasks_blocked()
        assert commits.done == []
        assert await commits.group_commit.submit("small") == "small"
        assert await commits.group_commit.submit("small too") == "small too"
        assert commits.done == ["small", "small too"]
        commits.group_commit.resume()
        await wait_all_tasks_blocked()
        assert commits.done == ["small", "small too", "big 1", "big 2"]


async def test_what_is_held_at_the_end_is_written(commits: Commits) -> None:
    async with trio.open_nursery() as nursery:
        commits.group_commit.hold()
        nursery.start_soon(commits.group_commit.submit_parts, [("big 1", 1), ("big 2", 1)])
        await wait_all_tasks_blocked()
        commits.group_commit.close()
    assert commits.done == ["big 1", "big 2"]


async def test_and_then_it_ends() -> None:
    """It went round and round, on a wait that was over before it began."""
    commits, ended = Commits(), trio.Event()

    async def run() -> None:
        await commits.group_commit.run()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        commits.group_commit.hold()
        nursery.start_soon(commits.group_commit.submit_parts, [("big 1", 1), ("big 2", 1)])
        await wait_all_tasks_blocked()
        commits.group_commit.close()
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert ended.is_set()
        nursery.cancel_scope.cancel()
