"""Very large events: read beside the event loop, and never taken apart into more values than it could bear."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from random import Random
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from tests.services.bench import A1, A2, A3, body, caller, event, metadata, results, trio_wall_clock
from tests.services.stateful.reading import operation, read, reasons
from wazuh_comms_trio.backends import json_size
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import Batcher, Events
from wazuh_comms_trio.errors import BodyTooLarge
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine
from wazuh_comms_trio.services.stateful.events import StatefulEvents
from wazuh_comms_trio.services.stateful.lines import has_line_above, has_long_line

T = TypeVar("T")
MIB = 1024 * 1024


def new_quarantine() -> MemoryQuarantine:
    return MemoryQuarantine(max_bytes=MIB, wall_clock=trio_wall_clock)


def service_of(backends: Backends, quarantine: MemoryQuarantine | None = None, **changes: Any) -> StatefulEvents:
    return StatefulEvents(
        backends, quarantine or new_quarantine(), events=Events(), batcher=Batcher(), rng=Random(0), **changes
    )


@pytest.mark.parametrize(
    ("lines", "long"),
    [
        ((10, 10), False),
        ((10, 10, MIB + 10), False),  # its turn comes
        ((10, MIB + 10), True),
        ((10, MIB + 10, 10), True),
        ((MIB + 10, 10), True),
        ((10, MIB - 10, 10), False),
        ((0, 0, 2 * MIB), False),
    ],
)
def test_the_next_two_lines_are_looked_at(lines: tuple[int, ...], long: bool) -> None:
    text = b"x\n" + b"\n".join(b"x" * length for length in lines)
    assert has_long_line(text, 2, len(text)) is long


@pytest.mark.parametrize(
    ("lines", "above"),
    [
        ((), False),
        ((100,), False),
        ((101,), True),
        ((100, 100, 100), False),
        ((5, 101, 5), True),
        ((60, 60, 0, 0, 100, 101), True),
        ((0,) * 300, False),
    ],
)
def test_a_line_above_a_limit_is_found(lines: tuple[int, ...], above: bool) -> None:
    text = b"\n".join(b"x" * length for length in lines)
    assert has_line_above(text, 100) is above
    assert has_line_above(text + b"\n", 100) is above


@pytest.mark.parametrize(("length", "refused"), [(MIB - 1000, False), (MIB + 1, True)])
async def test_one_without_room_in_memory_is_refused_before_anything_is_done(
    length: int, refused: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    backends = memory_backends(wall_clock=trio_wall_clock)
    service = service_of(backends, quarantine := new_quarantine(), largest_event=MIB)
    packet = body(event("before"), event("long", data={"x": "x" * length}), event("after"))
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run_batcher)
        with pytest.raises(BodyTooLarge) if refused else nullcontext():
            await service.submit(caller(A1), packet, deadline=trio.current_time() + 30)
        service.close()
    assert len(backends.events.documents) == (0 if refused else 3)
    assert not await quarantine.list()
    assert [f"agent {A1} sends events of more than {MIB} bytes" in each for each in caplog.messages] == [True] * refused


async def test_long_ones_are_read_in_threads(autojump_clock: MockClock) -> None:
    in_threads: list[int] = []

    async def run_blocking(fn: Callable[..., T], *args: object) -> T:
        await trio.lowlevel.checkpoint()
        result = fn(*args)
        in_threads.append(len(result))  # type: ignore[arg-type]
        return result

    backends = memory_backends(wall_clock=trio_wall_clock)
    service = service_of(backends, run_blocking=run_blocking)
    packet = body(
        *(event(f"before{number}") for number in range(1000)),
        event("long", data={"x": "x" * (2 * MIB)}),
        *(event(f"after{number}") for number in range(1000)),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run_batcher)
        reply = await service.submit(caller(A1), packet, deadline=trio.current_time() + 30)
        service.close()
    assert [status for _, status in results(reply)] == [201] * 2001
    assert results(reply)[1000] == ("long", 201)
    assert 1 <= sum(in_threads) <= 1500  # beside those in the same steps; a step is read in some milliseconds
    assert len(in_threads) < 100


async def test_one_at_a_time_is_read_and_written(autojump_clock: MockClock) -> None:
    backends = memory_backends(wall_clock=trio_wall_clock)
    stored_before: list[int] = []

    async def run_blocking(fn: Callable[..., T], *args: object) -> T:
        stored_before.append(len(backends.events.documents))
        await trio.sleep(1)
        return fn(*args)

    service = service_of(backends, run_blocking=run_blocking)

    async def send(agent_id: str) -> None:
        packet = body(event("before"), event("long", data={"x": "x" * (2 * MIB)}), agent_id=agent_id)
        reply = await service.submit(caller(agent_id), packet, deadline=trio.current_time() + 30)
        assert [status for _, status in results(reply)] == [201, 201]

    async with trio.open_nursery() as nursery:
        await nursery.start(service.run_batcher)
        async with trio.open_nursery() as agents:
            for agent_id in (A1, A2, A3):
                agents.start_soon(send, agent_id)
        service.close()
    assert stored_before == [0, 2, 4]


class TestManyValues:
    @pytest.fixture(autouse=True)
    def few_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(json_size, "MANY", 20)

    def reasons_of(self, data: Any, **header: Any) -> list[str | None]:
        return reasons(read(body(event("e", data=data, **header))))

    def test_are_taken_as_they_are(self) -> None:
        within = {**{f"m{number}": number for number in range(30)}, "x": {"agent": {"id": "other"}}}
        (found,) = read(body(event("e", data=within)))
        assert (operation(found).body or b"").startswith(metadata()[:-1] + b',"m0": 0')

    @pytest.mark.parametrize("name", ["agent", "agent.id", "\\u0061gent"])
    def test_an_agent_of_their_own_is_not_taken_out(self, name: str) -> None:
        data = b'{"%b":{},' % name.encode() + b",".join(b'"m%d":1' % number for number in range(30)) + b"}"
        packet = metadata() + b'\n{"id":"e","module":"fim","operation":"create"}\n' + data
        (reason,) = reasons(read(packet))
        assert "more others than can be told apart" in (reason or "")

    def test_a_result_of_a_command_has_fewer(self) -> None:
        def report(data: Any) -> Any:
            return {"command": {"result": {"code": 0, "data": data}}}

        header = {"operation": "update", "module": "command"}
        assert self.reasons_of(report([1] * 5), **header) == [None]
        (reason,) = self.reasons_of(report([1] * 30), **header)
        assert (reason or "").startswith("A command's result has more than")
