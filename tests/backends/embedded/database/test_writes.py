"""Group commit: many callers share one, and none undoes another's."""

import threading
from pathlib import Path

import apsw
import pytest
import trio

from tests.backends.embedded.conftest import NOTES
from tests.backends.embedded.notes import insert, read, write
from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
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
