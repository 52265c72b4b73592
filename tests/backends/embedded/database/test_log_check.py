"""SQLite's log after an end without order: what it would drop in silence is told."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

import apsw
import pytest
import trio

from tests.backends.embedded.conftest import NOTES
from tests.backends.embedded.notes import read, write
from wazuh_comms_trio.backends.embedded.database import connections
from wazuh_comms_trio.backends.embedded.database.database import open_database
from wazuh_comms_trio.backends.embedded.database.log.log_check import (
    check_log,
    dropped_frames,
    is_in_use,
    keep_damaged_log,
)
from wazuh_comms_trio.backends.embedded.database.opening import looking_at
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation import file_writes

pytestmark = pytest.mark.real_clock

TEXTS = [f"note {number}" for number in range(4)]


@pytest.fixture
async def left(tmp_path: Path) -> Path:
    """A database as a killed process leaves it, with four commits in its log."""
    async with open_database(tmp_path / "notes.db", NOTES) as database:
        for text in TEXTS:
            await write(database, text)
        (tmp_path / "left").mkdir()
        for name in ("notes.db", "notes.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / "left" / name)
    return tmp_path / "left" / "notes.db"


def _notes_after(database: Path) -> set[str]:
    connection = apsw.Connection(str(database))
    try:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE name = 'notes'").get
        return {row[0] for row in connection.execute("SELECT text FROM notes")} if found else set()
    finally:
        connection.close()


async def test_what_is_dropped_is_counted(left: Path, tmp_path: Path) -> None:
    """Each byte of the log, as far as it takes a while: what SQLite loses, this notices."""
    log = left.with_name("notes.db-wal").read_bytes()
    assert dropped_frames(log) == 0
    noticed = 0
    for position in [*range(64), *range(64, len(log), 509)]:
        spoilt = bytearray(log)
        spoilt[position] ^= 0x10
        folder = tmp_path / f"at-{position}"
        folder.mkdir()
        shutil.copy(left, folder / "notes.db")
        (folder / "notes.db-wal").write_bytes(spoilt)
        lost = _notes_after(folder / "notes.db") != set(TEXTS)
        assert lost <= (dropped_frames(bytes(spoilt)) > 0), position
        noticed += lost
        shutil.rmtree(folder)
    assert noticed > 10


async def test_a_torn_end_is_no_damage(left: Path) -> None:
    log = left.with_name("notes.db-wal").read_bytes()
    frame = 24 + 8192
    assert (len(log) - 32) % frame == 0
    assert dropped_frames(log[:-100]) == 0
    assert dropped_frames(log + bytes(frame)) == 0
    assert dropped_frames(b"") == dropped_frames(log[:32]) == 0


def spoil(log: Path) -> bytes:
    """Flips a bit in the middle of a file; returns what it holds then."""
    spoilt = bytearray(log.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    log.write_bytes(spoilt)
    return bytes(spoilt)


@pytest.mark.expects_errors
async def test_at_the_start_the_log_is_kept_and_told_of(left: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = left.with_name("notes.db-wal")
    spoilt = spoil(log)
    async with open_database(left, NOTES) as database:
        assert await read(database) < set(TEXTS)
        assert is_in_use(left)
    (record,) = [record for record in caplog.records if "log is damaged" in record.getMessage()]
    (kept,) = left.parent.glob("notes.db-wal.damaged-*")
    assert kept.name in record.getMessage()
    assert kept.read_bytes() == spoilt
    assert not is_in_use(left)


@pytest.mark.expects_errors
async def test_a_second_damage_is_kept_too(left: Path) -> None:
    """Whatever was kept before, also under the name that this one would get: a disk that loses bits changes no time."""
    log = left.with_name("notes.db-wal")
    whole, time = log.read_bytes(), log.stat().st_mtime_ns
    first, second = bytearray(whole), bytearray(whole)
    first[len(whole) // 2] ^= 1
    second[len(whole) // 3] ^= 1
    for damaged in (first, second, first):
        log.write_bytes(damaged)
        os.utime(log, ns=(time, time))
        assert keep_damaged_log(left) > 0
    assert sorted(path.read_bytes() for path in left.parent.glob("notes.db-wal.*")) == sorted(
        map(bytes, (first, second))
    )


@pytest.mark.expects_errors
@pytest.mark.parametrize("earlier", [False, True])
async def test_a_log_that_cannot_be_kept_is_not_given_up(
    left: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    log = left.with_name("notes.db-wal")
    spoilt = spoil(log)
    if earlier:
        log.with_name("notes.db-wal.damaged-1").write_bytes(b"of another damage")
    before = sorted(os.listdir(left.parent))

    class FullDisk(file_writes.FileCalls):
        def fsync(self, descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    calls = file_writes.calls
    monkeypatch.setattr(file_writes, "calls", FullDisk())
    monkeypatch.setattr(connections, "KEPT_INTERVAL", 0.01)
    with pytest.raises(StateUnusable, match=r"can't be kept beside it: No space left on device"):
        async with open_database(left, NOTES):
            pass
    async with open_database(left, NOTES, tolerant=True) as database:
        with pytest.raises(BackendUnavailable):
            await read(database)
        assert sorted(os.listdir(left.parent)) == before
        assert log.read_bytes() == spoilt
        monkeypatch.setattr(file_writes, "calls", calls)
        with trio.fail_after(60):
            while database.outage is None or not _kept_of(left):  # noqa: ASYNC110
                await trio.sleep(0.01)
            while True:
                with suppress(BackendUnavailable):
                    assert await read(database) < set(TEXTS)
                    break
                await trio.sleep(0.01)
    assert _kept_of(left) == [spoilt]


@pytest.mark.expects_errors
async def test_of_two_that_keep_it_at_once_neither_has_half_of_it(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = left.with_name("notes.db-wal")
    spoilt = spoil(log)
    (left.parent / "notes.db-wal.saving").write_bytes(b"of a killed process")

    class Another(file_writes.FileCalls):
        kept: int | None = None

        def fsync(self, descriptor: int) -> None:
            super().fsync(descriptor)
            if self.kept is None:
                self.kept = 0
                self.kept = keep_damaged_log(left)

    another = Another()
    monkeypatch.setattr(file_writes, "calls", another)
    assert keep_damaged_log(left) == another.kept
    assert another.kept
    assert _kept_of(left) == [spoilt]
    assert sorted(path.name for path in left.parent.glob("notes.db-wal.*") if "saving" in path.name) == []


def _kept_of(database: Path) -> list[bytes]:
    """The logs that were kept, but for the one that was there before."""
    names = database.parent.glob("notes.db-wal.damaged-*")
    return [path.read_bytes() for path in names if path.name != "notes.db-wal.damaged-1"]


async def test_a_look_leaves_it_as_it_is(left: Path) -> None:
    """As ``events tail`` looks at a node that was killed: what is damaged is there to be told of afterwards."""
    log = left.with_name(f"{left.name}-wal")
    damaged = bytearray(log.read_bytes())
    damaged[100] ^= 1
    log.write_bytes(damaged)
    for _ in range(2):
        with looking_at(left) as connection:
            assert connection.execute("SELECT count(*) FROM sqlite_schema").get
    assert log.read_bytes() == damaged
    assert check_log(left)


async def test_a_log_that_is_in_use_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_database(tmp_path / "notes.db", NOTES) as one:
        await write(one, "a")
        async with open_database(tmp_path / "notes.db", NOTES) as other:
            await write(other, "b")
        assert await read(one) == {"a", "b"}
    assert caplog.records == []
