"""Stateless bodies: one line read, everything passed on; what the engine refuses is kept whole."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.services.bench import A1, A2, body, caller, inline, metadata, trio_wall_clock
from wazuh_comms_trio.backends.embedded.ndjson.engine import open_engine
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.config.models import EmbeddedEvents, Events
from wazuh_comms_trio.errors import (
    BackendUnavailable,
    ClientDisconnected,
    EngineRefused,
    EngineSocketError,
    EngineTimeout,
    MalformedBody,
    StorageFull,
)
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.services.stateless.body_copy import BodyCopy
from wazuh_comms_trio.services.stateless.events import StatelessEvents

LOGGER = logging.getLogger("copies")
EVENTS = b'\n{"module":"logcollector","collector":"file"}\n{"event":{"original":"x"}}'


@attrs.define
class Setting:
    service: StatelessEvents
    backends: MemoryBackends
    quarantine: MemoryQuarantine

    async def forward(self, *chunks: bytes, pause: float = 0.0, limit: float = 10.0, agent_id: str = A1) -> None:
        length = sum(map(len, chunks))
        async with aclosing(flow(chunks, pause)) as stream:
            await self.service.forward(caller(agent_id), stream, length=length, limit=limit)

    @property
    def taken(self) -> list[bytes]:
        return [one.body for one in self.backends.engine.bodies]


async def flow(chunks: Sequence[bytes], pause: float = 0.0) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        await trio.sleep(pause)
        yield chunk


def setting(folder: Path | None = None, **settings: Any) -> Setting:
    backends = memory_backends(wall_clock=trio_wall_clock)
    quarantine = MemoryQuarantine(wall_clock=trio_wall_clock)
    service = StatelessEvents(
        backends.engine, quarantine, settings=Events(**settings), run_blocking=inline, spool_folder=folder
    )
    return Setting(service, backends, quarantine)


class TestPassedOn:
    async def test_a_client_that_takes_its_time_is_no_slow_engine(self, autojump_clock: MockClock) -> None:
        made = setting()
        await made.forward(metadata(), EVENTS, b"\n", EVENTS, pause=60, limit=10)
        assert made.taken == [metadata() + EVENTS + b"\n" + EVENTS]

    @given(st.lists(st.integers(0, len(metadata() + EVENTS)), max_size=6))
    def test_unchanged_wherever_it_is_cut(self, cuts: list[int]) -> None:
        whole = metadata() + EVENTS
        edges = [0, *sorted(cuts), len(whole)]
        chunks = [whole[start:end] for start, end in itertools.pairwise(edges)]

        async def main() -> None:
            made = setting()
            await made.forward(*chunks)
            assert made.taken == [whole]

        trio.run(main)

    async def test_byte_by_byte(self) -> None:
        made = setting()
        whole = metadata() + EVENTS + b"\r\n\n"
        await made.forward(*(whole[n : n + 1] for n in range(len(whole))))
        assert made.taken == [whole]
        assert made.backends.engine.bodies[0].agent_id == A1

    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \t\r\n"])
    async def test_a_metadata_line_alone(self, end: bytes) -> None:
        made = setting()
        await made.forward(metadata(), end)
        assert made.taken == []
        assert made.backends.engine.faults.calls["send_events"] == 0

    async def test_a_flood_of_blanks_isnt_kept(self) -> None:
        made = setting()
        await made.forward(metadata(), *[b"\n" * 1000] * 200)
        assert made.taken == [metadata() + b"\n" * 200_000]

    async def test_another_agents_line_where_that_is_allowed(self) -> None:
        made = setting(foreign_agent="allow")
        await made.forward(body(EVENTS, agent_id=A2))
        assert len(made.taken) == 1


class TestMalformed:
    @pytest.mark.parametrize(
        ("chunks", "reason"),
        [
            ([], "The request body is empty"),
            ([b"\n", b"\r\n \n"], "The metadata line is not a JSON object"),
            ([b" \t"], "The request body is empty"),
            ([b"nonsense", EVENTS], "The metadata line is not a JSON object"),
            ([b"{}", EVENTS], "The metadata line has no agent"),
            ([metadata(A2), EVENTS], "Agent id does not match the token"),
            ([b"x" * 1000] * 100, "The metadata line is longer than 65536 bytes"),
        ],
    )
    async def test_the_first_line(self, chunks: list[bytes], reason: str) -> None:
        made = setting()
        with pytest.raises(MalformedBody) as caught:
            await made.forward(*chunks)
        assert (caught.value.message, caught.value.code) == (reason, 2709)
        assert made.backends.engine.faults.calls["send_events"] == 0

    async def test_a_client_that_leaves(self) -> None:
        made = setting()

        async def cut() -> AsyncGenerator[bytes, None]:
            yield metadata() + EVENTS
            raise ClientDisconnected

        with pytest.raises(ClientDisconnected):
            await made.service.forward(caller(), cut(), length=10_000, limit=10)
        assert made.taken == []


class TestRefusedByTheEngine:
    async def test_whole_to_quarantine(self) -> None:
        made = setting()
        made.backends.engine.refuse = "not mine"
        whole = metadata() + EVENTS
        await made.forward(whole[:50], whole[50:])
        (rejected,) = made.quarantine.rejected
        assert rejected.kind == "stateless"
        assert (rejected.agent_id, rejected.reason) == (A1, "not mine")
        assert (rejected.metadata, rejected.payload) == (b"", whole)

    async def test_refused_before_it_was_read(self) -> None:
        made = setting()

        async def hasty(body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
            async for _ in body:
                raise EngineRefused("too big for me")

        made.backends.engine.send_events = hasty  # type: ignore[method-assign]
        chunks = [metadata(), EVENTS, *[b"\n" + b"x" * 9999] * 300]
        await made.forward(*chunks)
        assert made.quarantine.rejected[0].payload == b"".join(chunks)

    async def test_refused_before_anything_was_taken(self) -> None:
        made = setting()

        async def unseen(body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
            raise EngineRefused("too big for me")

        made.backends.engine.send_events = unseen  # type: ignore[method-assign]
        await made.forward(metadata(), EVENTS, EVENTS)
        assert made.quarantine.rejected[0].payload == metadata() + EVENTS + EVENTS

    @pytest.mark.parametrize("lines", [1, 30_000])
    async def test_the_engines_own_file_is_what_is_kept(self, tmp_path: Path, lines: int) -> None:
        """No second copy beside that of an engine that keeps what it refuses."""
        made = setting(tmp_path / "missing")
        chunks = [metadata(), b"\n", *[b'{"m":"%100d"}\n' % 7] * lines, b"no json"]
        async with open_engine(tmp_path / "events", EmbeddedEvents()) as engine:
            made.service._engine = engine
            await made.forward(*chunks)
        assert made.quarantine.rejected[0].payload == b"".join(chunks)

    async def test_a_body_that_turns_out_to_be_too_large_is_kept_whole(self, tmp_path: Path) -> None:
        """A part of it is in the engine's file by then, and a part is read and not written."""
        made = setting(tmp_path)
        line = b'\n{"event":{"original":"%b"}}' % (b"x" * 700 * 1024)
        chunks = [metadata(), b'\n{"module":"logcollector","collector":"file"}', *[line] * 4]
        async with open_engine(tmp_path / "events", EmbeddedEvents(max_bytes=2 * 1024 * 1024)) as engine:
            made.service._engine = engine
            async with aclosing(flow(chunks)) as stream:
                await made.service.forward(caller(A1), stream, length=None, limit=60.0)
        assert [one.payload for one in made.quarantine.rejected] == [b"".join(chunks)]

    async def test_reading_was_cut_off(self, autojump_clock: MockClock) -> None:
        """An engine that cancels its reader has lost the rest: nothing half goes to quarantine."""
        made = setting()

        async def cutting(body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
            with trio.move_on_after(1.5):
                async for _ in body:
                    pass
            raise EngineRefused("no")

        made.backends.engine.send_events = cutting  # type: ignore[method-assign]
        with pytest.raises(BackendUnavailable):
            await made.forward(metadata(), EVENTS, EVENTS, EVENTS, pause=1)
        assert made.quarantine.rejected == []

    async def test_refuse(self) -> None:
        made = setting(invalid="refuse")
        made.backends.engine.refuse = "not mine"
        with pytest.raises(EngineRefused, match="not mine") as caught:
            await made.forward(metadata(), EVENTS)
        assert caught.value.code == 2710
        assert made.quarantine.rejected == []

    @pytest.mark.parametrize("exists", [True, False])
    async def test_a_big_body_waits_in_a_file_without_a_name(self, tmp_path: Path, exists: bool) -> None:
        made = setting(tmp_path if exists else tmp_path / "missing")
        made.backends.engine.refuse = "not mine"
        chunks = [metadata(), *[b"\n" + b"x" * 99_999] * 50]
        await made.forward(*chunks)
        assert made.quarantine.rejected[0].payload == b"".join(chunks)
        assert os.listdir(tmp_path) == []

    async def test_a_full_quarantine(self) -> None:
        made = setting()
        made.backends.engine.refuse = "not mine"
        made.quarantine.faults.error = StorageFull()
        with pytest.raises(StorageFull):
            await made.forward(metadata(), EVENTS)


class TestTime:
    async def test_a_slow_client_is_no_slow_engine(self, autojump_clock: MockClock) -> None:
        made = setting()
        await made.forward(metadata(), EVENTS, *[EVENTS] * 10, pause=9, limit=10)
        assert trio.current_time() == 12 * 9

    async def test_an_engine_that_doesnt_answer(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.backends.engine.faults.hang()
        with pytest.raises(EngineTimeout) as caught:
            await made.forward(metadata(), EVENTS, pause=3, limit=10)
        assert caught.value.code == 2800
        assert trio.current_time() == pytest.approx(6 + 9.5)

    async def test_an_engine_that_stops_reading(self, autojump_clock: MockClock) -> None:
        made = setting()

        async def lazy(body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
            async for _ in body:
                await trio.sleep_forever()

        made.backends.engine.send_events = lazy  # type: ignore[method-assign]
        with pytest.raises(EngineTimeout):
            await made.forward(metadata(), EVENTS, pause=3, limit=2)
        assert trio.current_time() == pytest.approx(6 + 1.8)

    async def test_an_engine_that_is_away(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.backends.engine.faults.error = EngineSocketError()
        with pytest.raises(EngineSocketError):
            await made.forward(metadata(), EVENTS)
        assert made.quarantine.rejected == []

    async def test_a_quarantine_that_hangs(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.backends.engine.refuse = "not mine"
        made.quarantine.faults.hang()
        with pytest.raises(BackendUnavailable):
            await made.forward(metadata(), EVENTS)
        assert trio.current_time() == pytest.approx(9.5)

    async def test_cancelled(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.backends.engine.faults.hang()
        with trio.move_on_after(1) as scope:
            await made.forward(metadata(), EVENTS)
        assert scope.cancelled_caught


class TestSpool:
    async def test_memory_is_bounded(self, tmp_path: Path) -> None:
        with BodyCopy(tmp_path, inline, RefusalLog(LOGGER)) as copy:
            most = 0
            for _ in range(100):
                await copy.add(b"x" * 100_000)
                most = max(most, len(copy.held))
            assert most <= 1024 * 1024
            file = await copy.file()
            assert file is not None
            file.seek(0)
            assert file.read() == b"x" * copy.size == b"x" * 10_000_000
        assert file.closed

    async def test_a_disk_without_room_is_only_missed_when_asked(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*args: Any, **kwargs: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tempfile.TemporaryFile", full)
        with BodyCopy(None, partial(inline), RefusalLog(LOGGER)) as copy:
            for _ in range(30):
                await copy.add(b"x" * 100_000)
            with pytest.raises(StorageFull):
                await copy.file()
        assert len(caplog.records) == 1
