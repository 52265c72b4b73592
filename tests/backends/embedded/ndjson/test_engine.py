"""The embedded engine on disk: groups, rotation, quotas, full disks."""

import fcntl
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.backends.embedded.notes import complaints
from tests.backends.embedded.small_disk import fill, small_disk
from tests.contract.harness import A1, A2, Clock, stored_bodies
from wazuh_comms_trio.backends.embedded.ndjson import spool as ndjson_spool
from wazuh_comms_trio.backends.embedded.ndjson.engine import NdjsonEngine, open_engine
from wazuh_comms_trio.backends.embedded.ndjson.ledger import LEDGER
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.errors import BackendUnavailable, EngineRefused, StorageFull

pytestmark = pytest.mark.real_clock

MIB = 1024 * 1024


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


async def send(engine: NdjsonEngine, body: bytes, agent_id: str = A1) -> None:
    async with aclosing(pieces(body)) as chunks:
        await engine.send_events(chunks, agent_id=agent_id, length=len(body))


def body_of(size: int, fill_with: str = "x") -> bytes:
    """One event of ``size`` bytes."""
    return b'{"m":"%b"}\n' % (fill_with.encode() * (size - 9))


def engine_in(
    folder: Path, *, max_file_bytes: int = MIB, max_bytes: int = 100 * MIB, delete: bool = False
) -> AbstractAsyncContextManager[NdjsonEngine]:
    settings = EmbeddedEvents(max_file_bytes, max_bytes, "delete_oldest" if delete else "refuse")
    return open_engine(folder / "events", settings, wall_clock=Clock())


def names(folder: Path) -> list[str]:
    return [segment.path.name for segment in segment_files(folder / "events")]


async def test_many_callers_share_few_fsyncs(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(send, engine, b'{"n":%d}\n' % number)
        bodies, groups = engine.commits
    assert bodies == 200
    assert groups <= 10
    assert len(stored_bodies(tmp_path)) == 200
    assert len(names(tmp_path)) == 1


async def test_nothing_is_made_before_the_first_event(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await send(engine, b"")
    assert names(tmp_path) == []


async def test_rotation(tmp_path: Path) -> None:
    async with engine_in(tmp_path, max_file_bytes=10_000) as engine:
        for number in range(10):
            await send(engine, body_of(4000, str(number)))
        async with trio.open_nursery() as nursery:  # a group that needs several segments
            for number in range(10):
                nursery.start_soon(send, engine, body_of(4000, chr(ord("a") + number)))
        await send(engine, body_of(50_000))  # larger than a segment may be: one of its own
        await send(engine, body_of(100))
    segments = segment_files(tmp_path / "events")
    assert all(segment.size <= 10_000 for segment in segments if segment.size < 50_000)
    assert [body for _, body in stored_bodies(tmp_path)[:10]] == [body_of(4000, str(number)) for number in range(10)]
    assert len(stored_bodies(tmp_path)) == 22
    assert all(re.fullmatch(r"\d{14}-\d+-\d{6}-[0-9a-f]{8}\.ndjson", name) for name in names(tmp_path))


async def test_a_segment_is_ndjson_as_a_whole(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        for body in (b'{"a":1}', b'{"a":2}\n{"b":3}\n', b'{"c":\r\n'.replace(b":\r", b":4}\r")):
            await send(engine, body)
    (segment,) = segment_files(tmp_path / "events")
    lines = segment.path.read_bytes().splitlines()
    assert [line.split(b",")[0] for line in lines if b"@received" not in line] == [
        b'{"a":1}',
        b'{"a":2}',
        b'{"b":3}',
        b'{"c":4}',
    ]
    assert len(lines) == 7


async def test_two_processes_have_their_own_segments(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as one, engine_in(tmp_path) as other:
        for _ in range(3):
            await send(one, b"{}\n", A1)
            await send(other, b"{}\n", A2)
    assert len(names(tmp_path)) == 2
    assert sorted(agent for agent, _ in stored_bodies(tmp_path)) == [A1] * 3 + [A2] * 3


@pytest.mark.expects_errors
async def test_full_by_quota_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with engine_in(tmp_path, max_file_bytes=10_000, max_bytes=30_000) as engine:
        for _ in range(5):
            await send(engine, body_of(5000))
        for _ in range(5):
            with pytest.raises(StorageFull):
                await send(engine, body_of(5000))
        await send(engine, body_of(1000))  # what is small still finds room
        with pytest.raises(StorageFull):
            await send(engine, body_of(5000))
        assert len(complaints(caplog)) == 1
        assert "quota" in complaints(caplog)[0]
        assert len(stored_bodies(tmp_path)) == 6  # nothing was deleted unasked
        segment_files(tmp_path / "events")[0].path.unlink()
        await send(engine, body_of(5000))


@pytest.mark.expects_errors
async def test_a_quota_with_room_for_nothing_but_small_bodies_is_used_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left when bodies are refused is seldom nothing; that a few bytes fit isn't the end of an outage."""
    async with engine_in(tmp_path, max_file_bytes=10_000, max_bytes=30_000) as engine:
        for _ in range(5):
            await send(engine, body_of(5000))
        await engine.probe()  # 5000 bytes less what each takes beside its body
        await send(engine, body_of(3000), A2)
        with pytest.raises(StorageFull):
            await send(engine, body_of(3000), A2)
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="the quota is reached"):
                await engine.probe()
        assert engine.outage.failing
        assert len(complaints(caplog)) == 1
        segment_files(tmp_path / "events")[0].path.unlink()
        await engine.probe()
        assert not engine.outage.failing


@pytest.mark.expects_errors
@pytest.mark.parametrize(("delete", "advice"), [(False, "are removed"), (True, "what is being written")])
async def test_a_full_quota_says_what_ends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, delete: bool, advice: str
) -> None:
    arrived = trio.Event()

    async def half_of_a_body() -> AsyncIterator[bytes]:
        yield b"x" * 2 * MIB
        arrived.set()
        await trio.sleep_forever()

    async with engine_in(tmp_path, max_bytes=2 * MIB + 10_000, delete=delete) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(partial(engine.send_events, half_of_a_body(), agent_id=A2, length=None))
        await arrived.wait()
        with pytest.raises(StorageFull):
            await send(engine, body_of(20_000))
        nursery.cancel_scope.cancel()
    (complaint,) = complaints(caplog)
    assert advice in complaint


async def test_a_share_smaller_than_a_usual_body_is_no_full_quota(tmp_path: Path) -> None:
    async def count() -> int:
        return 10_000

    settings = EmbeddedEvents(MIB, 100 * MIB, agent_percent=0.05)
    async with open_engine(tmp_path / "events", settings, count_agents=count) as engine:
        while engine._segments.shares.limit > 65536:  # until they are counted
            await trio.lowlevel.checkpoint()
        await engine.probe()


@pytest.mark.expects_errors
async def test_a_large_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    read = 0

    async def counted() -> AsyncGenerator[bytes, None]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield body_of(65536)

    async with engine_in(tmp_path, max_bytes=4 * MIB) as engine:

        async def attempt(length: int | None) -> None:
            async with aclosing(counted()) as chunks:
                await engine.send_events(chunks, agent_id=A1, length=length)

        await send(engine, body_of(2 * MIB))
        with pytest.raises(StorageFull):
            await attempt(3 * MIB)
        assert read == 0
        with pytest.raises(EngineRefused):  # it can never fit
            await attempt(5 * MIB)
        assert read == 0
        with pytest.raises(StorageFull):
            await attempt(None)
        assert 0 < read < 50
        assert len(stored_bodies(tmp_path)) == 1


async def test_the_oldest_are_deleted_when_that_is_configured(tmp_path: Path) -> None:
    async with engine_in(tmp_path, max_file_bytes=10_000, max_bytes=30_000, delete=True) as engine:
        for number in range(20):
            await send(engine, body_of(4000, chr(ord("a") + number)))
            assert sum(segment.size for segment in segment_files(tmp_path / "events")) <= 30_000
    kept = [body for _, body in stored_bodies(tmp_path)]
    assert kept == [body_of(4000, chr(ord("a") + number)) for number in range(20)][-len(kept) :]
    assert len(kept) >= 4


@pytest.mark.expects_errors
async def test_nothing_is_deleted_for_what_can_never_fit(tmp_path: Path) -> None:
    async with engine_in(tmp_path, max_file_bytes=10_000, max_bytes=30_000, delete=True) as engine:
        for _ in range(5):
            await send(engine, body_of(4000))
        before = names(tmp_path)
        for size in (30_001, 30_000):  # the second one with its envelope
            with pytest.raises(EngineRefused, match="larger than all events may be together"):
                await send(engine, body_of(size))
    assert names(tmp_path) == before
    assert len(stored_bodies(tmp_path)) == 5


async def test_what_another_process_writes_to_is_not_deleted(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as other:
        await send(other, body_of(20_000), A2)
        async with engine_in(tmp_path, max_file_bytes=10_000, max_bytes=30_000, delete=True) as engine:
            for _ in range(5):
                await send(engine, body_of(4000))
        await send(other, body_of(100), A2)
    assert [agent for agent, _ in stored_bodies(tmp_path)].count(A2) == 2


async def test_one_segment_larger_than_the_quota_is_given_up(tmp_path: Path) -> None:
    async with engine_in(tmp_path, max_file_bytes=MIB, max_bytes=30_000, delete=True) as engine:
        for number in range(20):
            await send(engine, body_of(4000, chr(ord("a") + number)))
    assert [body for _, body in stored_bodies(tmp_path)][-1] == body_of(4000, "t")


async def test_a_segment_that_was_removed_is_not_written_to(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await send(engine, b'{"n":1}\n')
        for moved in (False, True):
            (segment,) = segment_files(tmp_path / "events")
            if moved:
                segment.path.rename(segment.path.with_suffix(".moved"))
            else:
                segment.path.unlink()
            await send(engine, b'{"n":2}\n')
            assert [body for _, body in stored_bodies(tmp_path)] == [b'{"n":2}\n']


async def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    async with engine_in(tmp_path) as engine:
        await send(engine, b'{"n":1}\n')
        (tmp_path / "events").rename(tmp_path / "moved")
        await send(engine, b'{"n":2}\n')
        await send(engine, body_of(2 * MIB))
    assert [len(body) for _, body in stored_bodies(tmp_path)] == [8, 2 * MIB]


@pytest.mark.expects_errors
async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        async with engine_in(disk) as engine:
            await send(engine, b'{"n":1}\n')
            ballast = fill(disk)
            for body in (body_of(20_000), body_of(MIB), body_of(2 * MIB), body_of(20_000)):
                with pytest.raises(StorageFull):
                    await send(engine, body)
            assert len(complaints(caplog)) == 1
            assert "disk is full" in complaints(caplog)[0]
            ballast.unlink()
            ballast = fill(disk, leave=40_000)
            outcomes: list[int] = []

            async def attempt(size: int) -> None:
                try:
                    await send(engine, body_of(size))
                    outcomes.append(size)
                except StorageFull:
                    pass

            async with trio.open_nursery() as nursery:
                for size in (500, 100_000, 600, 200_000, 700):
                    nursery.start_soon(attempt, size)
            assert sorted(outcomes) == [500, 600, 700]
            ballast.unlink()
            await send(engine, body_of(2 * MIB))
        stored = sorted(len(body) for _, body in stored_bodies(disk))
        assert stored == [8, 500, 600, 700, 2 * MIB]
        assert len(complaints(caplog)) == 1


@pytest.mark.expects_errors
async def test_a_folder_that_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with engine_in(tmp_path) as engine:
        (tmp_path / "events").rmdir()
        (tmp_path / "events").touch()
        for size in (100, 2 * MIB):
            with pytest.raises(BackendUnavailable):
                await send(engine, body_of(size))
        (tmp_path / "events").unlink()
        await send(engine, body_of(100))
    assert len(complaints(caplog)) == 1


@pytest.fixture
def no_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems without O_TMPFILE."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)


@pytest.mark.usefixtures("no_tmpfile")
async def test_large_bodies_without_tmpfile(tmp_path: Path) -> None:
    async def leave() -> AsyncIterator[bytes]:
        yield body_of(2 * MIB)
        assert any(name.startswith(ndjson_spool.PREFIX) for name in os.listdir(tmp_path / "events"))
        raise OSError("gone")

    async with engine_in(tmp_path) as engine:
        await send(engine, body_of(2 * MIB))
        with pytest.raises(OSError, match="gone"):
            await engine.send_events(leave(), agent_id=A1, length=None)
        assert len(stored_bodies(tmp_path)) == 1
        assert sorted(os.listdir(tmp_path / "events")) == [*names(tmp_path), LEDGER]
    assert len(names(tmp_path)) == 1


async def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.mkdir()
    (events / ".spool-1-dead").touch()
    with (events / ".spool-2-alive").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        async with engine_in(tmp_path):
            assert os.listdir(events) == [".spool-2-alive"]


@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_a_cancelled_body_is_whole_or_not_there(tmp_path: Path, size: int) -> None:
    """Cancelled at every turn."""
    whole = body_of(size)

    async def slowly() -> AsyncGenerator[bytes, None]:
        for start in range(0, size, 65536):
            await trio.lowlevel.checkpoint()
            yield whole[start : start + 65536]

    async with engine_in(tmp_path) as engine:
        for turns in range(0, 60, 4):
            async with trio.open_nursery() as nursery, aclosing(slowly()) as chunks:
                nursery.start_soon(cancel_after, turns, nursery.cancel_scope.cancel)
                await engine.send_events(chunks, agent_id=A1, length=size)
                nursery.cancel_scope.cancel()
        await send(engine, whole)
    bodies = [body for _, body in stored_bodies(tmp_path)]
    assert bodies
    assert set(bodies) == {whole}
    assert len(os.listdir("/proc/self/fd")) < 200


async def cancel_after(turns: int, cancel: Callable[[], None]) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    cancel()
