"""Uploads of stateless events against the quota: they count while they come, lie on disk once, and one agent can't use
up what all need."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
import trio

from tests.contract.harness import A1, A2, A3, Clock, stored_bodies
from wazuh_comms_trio.backends.embedded.ndjson import engine as engine_module
from wazuh_comms_trio.backends.embedded.ndjson.engine import NdjsonEngine, open_engine
from wazuh_comms_trio.backends.embedded.ndjson.records import envelope_room
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.interfaces import BodyRefused
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.errors import StorageFull

pytestmark = pytest.mark.real_clock

MIB = 1024 * 1024


def body_of(size: int) -> bytes:
    return b'{"m":"%b"}\n' % (b"x" * (size - 9))


async def pieces(body: bytes, size: int = 65536) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def send(engine: NdjsonEngine, body: bytes, agent_id: str = A1) -> None:
    async with aclosing(pieces(body)) as chunks:
        await engine.send_events(chunks, agent_id=agent_id, length=len(body))


def engine_in(
    folder: Path, *, max_bytes: int = 100 * MIB, agents: int = 0, delete: bool = False
) -> AbstractAsyncContextManager[NdjsonEngine]:
    async def count() -> int:
        return agents

    settings = EmbeddedEvents(MIB, max_bytes, "delete_oldest" if delete else "refuse")
    return open_engine(folder / "events", settings, wall_clock=Clock(), count_agents=count if agents else None)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "events").rglob("*") if path.is_file())


class Upload:
    """A body whose parts come when the test says so; ``taken`` counts what the engine took."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](0)

    async def __call__(self, engine: NdjsonEngine, agent_id: str, errors: list[Exception]) -> None:
        try:
            await engine.send_events(self._parts(), agent_id=agent_id, length=None)
        except StorageFull as error:
            errors.append(error)
        finally:
            self._receive.close()

    async def _parts(self) -> AsyncIterator[bytes]:
        async for part in self._receive:
            yield part

    async def feed(self, size: int) -> None:
        """Returns once all but the last part was taken."""
        for _ in range(size // 65536):
            await self._send.send(b" " * 65536)

    def end(self) -> None:
        self._send.close()


@pytest.mark.expects_errors
async def test_unfinished_uploads_count_from_their_first_byte_on_disk(tmp_path: Path) -> None:
    """Sixty uploads of 100 MB that never end took four times the quota."""
    quota = 8 * MIB
    errors: list[Exception] = []
    async with engine_in(tmp_path, max_bytes=quota) as engine, trio.open_nursery() as nursery:
        uploads = [Upload() for _ in range(10)]
        for upload in uploads:
            nursery.start_soon(upload, engine, A1, errors)
        for _ in range(6):
            for upload in uploads:
                with suppress(trio.BrokenResourceError):
                    await upload.feed(MIB)
                assert on_disk(tmp_path) <= quota
        assert len(errors) >= 1
        for upload in uploads:
            upload.end()
    assert on_disk(tmp_path) <= quota
    assert not list((tmp_path / "events").glob(".spool-*"))


@pytest.mark.expects_errors
async def test_an_upload_counts_for_other_processes_too(tmp_path: Path) -> None:
    errors: list[Exception] = []
    async with engine_in(tmp_path, max_bytes=8 * MIB) as one, engine_in(tmp_path, max_bytes=8 * MIB) as other:
        async with trio.open_nursery() as nursery:
            upload = Upload()
            nursery.start_soon(upload, one, A1, errors)
            await upload.feed(7 * MIB)
            with pytest.raises(StorageFull):
                await send(other, body_of(3 * MIB), A2)
            upload.end()
        await send(other, body_of(64 * 1024), A2)
    assert errors == []


async def test_an_upload_lies_on_disk_once_and_becomes_the_segment(tmp_path: Path) -> None:
    errors: list[Exception] = []
    async with engine_in(tmp_path) as engine, trio.open_nursery() as nursery:
        upload = Upload()
        nursery.start_soon(upload, engine, A1, errors)
        await upload.feed(6 * MIB)
        (spool,) = (tmp_path / "events").glob(".spool-*")
        inode = spool.stat().st_ino
        assert 4 * MIB < on_disk(tmp_path) <= 6 * MIB + 8192
        upload.end()
    (segment,) = segment_files(tmp_path / "events")
    assert segment.path.stat().st_ino == inode
    assert not list((tmp_path / "events").glob(".spool-*"))


@pytest.mark.parametrize("size", [100_000, 3 * MIB])
async def test_a_refused_body_is_handed_back_whole(tmp_path: Path, size: int) -> None:
    """So the service in front needs no copy of its own."""
    body = body_of(size) + b"no json"
    async with engine_in(tmp_path) as engine:
        with pytest.raises(BodyRefused) as caught:
            await send(engine, body)
        consumed = caught.value.consumed
        found = b""
        if consumed.descriptor is not None:
            found = os.pread(consumed.descriptor, consumed.size, consumed.start)
            os.close(consumed.descriptor)
        assert found + consumed.rest == body
        assert on_disk(tmp_path) == 0


async def test_what_comes_at_once_has_no_more_than_a_share(tmp_path: Path) -> None:
    """It is judged together, and with what each body takes besides in its file."""
    share, body, refused = 10_000, body_of(300), []

    async def try_to_send(engine: NdjsonEngine) -> None:
        try:
            await send(engine, body)
        except StorageFull as exc:
            refused.append(exc)

    async with engine_in(tmp_path, max_bytes=10 * share, agents=1000) as engine, trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(try_to_send, engine)
    (segment,) = segment_files(tmp_path / "events")
    assert share - 600 < segment.size <= share
    assert len(refused) + len(stored_bodies(tmp_path)) == 60


@pytest.mark.expects_errors
async def test_large_bodies_have_no_more_than_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one would fit but for its envelope."""
    monkeypatch.setattr(engine_module, "MEMORY_BYTES", 1000)
    body, room = body_of(2000), envelope_room(A1)
    quota = 5 * len(body) + 4 * room + room // 2
    async with engine_in(tmp_path, max_bytes=quota) as engine:
        for _ in range(4):
            await send(engine, body)
        with pytest.raises(StorageFull):
            await send(engine, body)
    assert sum(segment.size for segment in segment_files(tmp_path / "events")) <= quota


@pytest.mark.expects_errors
@pytest.mark.parametrize("quota", [MIB // 2, 2 * MIB])
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_body_that_fits_but_for_its_envelope_never_fits(tmp_path: Path, quota: int, is_told: bool) -> None:
    """It was 503 for ever; ``quota``: of a small and a large body."""
    fits = quota - envelope_room(A1) - 1
    async with engine_in(tmp_path, max_bytes=quota) as engine:
        with pytest.raises(BodyRefused):
            async with aclosing(pieces(body_of(fits + 2))) as chunks:
                await engine.send_events(chunks, agent_id=A1, length=fits + 2 if is_told else None)
        await send(engine, body_of(fits))


async def test_a_body_as_large_as_a_file_is_never_too_much(tmp_path: Path) -> None:
    """Of an agent with less than a file, where its own go for it."""
    enrolled, body = Enrolled(1000), body_of(MIB)
    async with enrolled.engine_in(tmp_path, max_bytes=4 * MIB, on_full="delete_oldest") as engine:
        await send(engine, body)
    assert stored_bodies(tmp_path) == [(A1, body)]


@pytest.mark.parametrize("size", [50_000, 2 * MIB])
async def test_one_agent_has_a_share_of_the_quota(tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    async with engine_in(tmp_path, max_bytes=100 * MIB, agents=1000) as engine:
        share = 10 * MIB
        await send(engine, body_of(1000))  # the agents are counted by now
        for _ in range(share // size - 1):
            await send(engine, body_of(size))
        with pytest.raises(StorageFull):
            await send(engine, body_of(2 * size))
        await send(engine, body_of(size), A2)
        await engine.probe()  # the node is well: it is one agent's trouble
        with pytest.raises(StorageFull):
            await send(engine, body_of(2 * size))
    assert [record.message for record in caplog.records if A1 in record.message] == [
        f"events: agent {A1} has filled its share of {share} bytes: its events get 503 until some in "
        f"{tmp_path / 'events'} are removed"
    ]


async def test_few_agents_share_evenly(tmp_path: Path) -> None:
    async with engine_in(tmp_path, max_bytes=8 * MIB, agents=2) as engine:
        await send(engine, body_of(3 * MIB))
        with pytest.raises(StorageFull):
            await send(engine, body_of(3 * MIB))
        await send(engine, body_of(3 * MIB), A2)


class Enrolled:
    """How many agents are enrolled, and how often that was asked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        return self.number

    @asynccontextmanager
    async def engine_in(
        self, folder: Path, *, max_bytes: int, on_full: Literal["refuse", "delete_oldest"] = "refuse"
    ) -> AsyncGenerator[NdjsonEngine, None]:
        """Once they have been counted."""
        settings = EmbeddedEvents(MIB, max_bytes, on_full)
        async with open_engine(folder / "events", settings, wall_clock=Clock(), count_agents=self) as engine:
            while not self.asked:
                await trio.lowlevel.checkpoint()
            yield engine


@pytest.mark.parametrize("known", [0, 1, 2])
async def test_agents_that_were_just_enrolled_have_their_share(
    tmp_path: Path, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were counted once a minute: of three of a new node the first one took all."""
    monkeypatch.setattr(engine_module, "_COUNT_VALID", 0.0)
    enrolled, size = Enrolled(known), 100_000
    async with enrolled.engine_in(tmp_path, max_bytes=3 * MIB) as engine:
        enrolled.number = 3
        for agent_id in (A1, A2, A3):
            taken = 0
            with suppress(StorageFull):
                while True:
                    await send(engine, body_of(size), agent_id)
                    taken += size
            assert MIB - size < taken <= MIB


async def test_what_comes_at_once_is_judged_by_the_agents_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone was little for any number of agents, and nobody counted these."""
    monkeypatch.setattr(engine_module, "_COUNT_VALID", 0.0)
    enrolled, body, refused = Enrolled(1), body_of(300), []

    async def try_to_send(engine: NdjsonEngine) -> None:
        try:
            await send(engine, body)
        except StorageFull as exc:
            refused.append(exc)

    async with enrolled.engine_in(tmp_path, max_bytes=100_000) as engine:
        enrolled.number = 1000
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(try_to_send, engine)
    assert sum(segment.size for segment in segment_files(tmp_path / "events")) <= 10_000
    assert len(refused) + len(stored_bodies(tmp_path)) == 60


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_large_body_is_judged_by_the_agents_there_are(tmp_path: Path, is_told: bool) -> None:
    enrolled, body = Enrolled(0), body_of(3 * MIB)
    async with enrolled.engine_in(tmp_path, max_bytes=8 * MIB) as engine:
        enrolled.number = 4
        with pytest.raises(StorageFull):
            async with aclosing(pieces(body)) as chunks:
                await engine.send_events(chunks, agent_id=A1, length=len(body) if is_told else None)


@pytest.mark.parametrize("number", [1, 1000])
async def test_agents_are_not_counted_with_each_body(tmp_path: Path, number: int) -> None:
    enrolled = Enrolled(number)
    async with enrolled.engine_in(tmp_path, max_bytes=8 * MIB) as engine:
        for turn in range(100):
            await send(engine, body_of(1000), f"{turn:032}")
        assert enrolled.asked <= 2  # at the start, and by the minute


async def test_what_is_there_counts_after_a_restart_and_for_other_processes(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(engine_in(tmp_path, max_bytes=40 * MIB, agents=1000))
        async with engine_in(tmp_path, max_bytes=40 * MIB, agents=1000) as engine:
            await send(engine, body_of(1000), A2)
            for _ in range(3):
                await send(engine, body_of(500_000))
            await send(engine, body_of(2 * MIB))
        await send(other, body_of(1000), A2)
        with pytest.raises(StorageFull):
            await send(other, body_of(900_000))
    async with engine_in(tmp_path, max_bytes=40 * MIB, agents=1000) as engine:
        await send(engine, body_of(1000), A2)
        with pytest.raises(StorageFull):
            await send(engine, body_of(900_000))
        for segment in segment_files(tmp_path / "events"):
            segment.path.unlink()
        await trio.sleep(1.1)  # for so long the sum of the files is believed
        await send(engine, body_of(900_000))


async def test_who_has_too_much_loses_its_own_oldest(tmp_path: Path) -> None:
    async with engine_in(tmp_path, max_bytes=10 * MIB, agents=1000, delete=True) as engine:
        await send(engine, body_of(900_000), A2)
        for _ in range(40):
            await send(engine, body_of(MIB - 10_000))
    bodies = stored_bodies(tmp_path)
    assert sum(agent == A2 for agent, _ in bodies) == 1
    assert on_disk(tmp_path) <= 10 * MIB + 8192


async def test_unfinished_uploads_do_not_flush_what_others_sent(tmp_path: Path) -> None:
    """Where the oldest are deleted, they go for what is being received, too: so that is limited."""
    errors: list[Exception] = []
    async with engine_in(tmp_path, max_bytes=20 * MIB, agents=1000, delete=True) as engine:
        for _ in range(10):
            await send(engine, body_of(1900 * 1024), A2)
        kept = len(stored_bodies(tmp_path))
        async with trio.open_nursery() as nursery:
            uploads = [Upload() for _ in range(6)]
            for upload in uploads:
                nursery.start_soon(upload, engine, A1, errors)
            for upload in uploads:
                with suppress(trio.BrokenResourceError):
                    await upload.feed(3 * MIB)
            nursery.cancel_scope.cancel()
        assert len(errors) >= 5
    assert len(stored_bodies(tmp_path)) >= kept - 2
