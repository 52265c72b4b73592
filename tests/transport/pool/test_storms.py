"""Many tasks on few connections of a real socket, cancelled and cut off at any moment: nobody gets the answer of
another, what went out isn't sent again, nobody waits for ever, and nothing is left behind."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.peers import descriptors
from wazuh_comms_trio.testing import FakeDaemon, Oddities, open_fake_daemon
from wazuh_comms_trio.transport import Pool, open_pool

#: seconds in which a storm has to be over; none takes more than a few hundredths
TIMEOUT = 20


@frozen
class Asker:
    """A task that asks several times. After so many turns of the program it is cancelled; None: never."""

    requests: int
    cancelled_after: int | None
    bytes_each: int


askers = st.builds(
    Asker,
    st.integers(1, 4),
    st.none() | st.integers(0, 40),
    st.sampled_from([0, 0, 0, 3_000, 65_000]),
)


def echo(request: bytes) -> bytes:
    return b"ok " + request


async def ask(pool: Pool, name: int, asker: Asker, wrong: list[str], errors: type[Exception] | tuple[()]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_later, scope, asker.cancelled_after)
            for number in range(asker.requests):
                text = f"{name}.{number}." + "x" * asker.bytes_each
                with suppress(errors):
                    answer = await pool.request(text)
                    if answer != f"ok {text}":
                        wrong.append(f"{text:.10}: {answer:.10}")
            nursery.cancel_scope.cancel()


async def cancel_later(scope: trio.CancelScope, turns: int | None) -> None:
    if turns is None:
        return
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def storm(daemon: FakeDaemon, home: Path, size: int, tasks: list[Asker]) -> None:
    wrong: list[str] = []
    errors = trio.BrokenResourceError if daemon.oddities.close_after else ()
    with trio.fail_after(TIMEOUT):
        async with open_pool("wazuh-db", home=home, size=size) as pool:
            async with trio.open_nursery() as nursery:
                for name, asker in enumerate(tasks):
                    nursery.start_soon(ask, pool, name, asker, wrong, errors)
            assert wrong == []
            statistics = pool.statistics()
            assert (statistics.in_use, statistics.tasks_waiting) == (0, 0)
            assert statistics.idle <= size
            daemon.set_oddities(close_after=None, piece_bytes=None)
            assert [await pool.request(f"after {number}") for number in range(size + 1)] == [
                f"ok after {number}" for number in range(size + 1)
            ]
        await daemon.wait_closed()
    assert {request: count for request, count in Counter(daemon.requests).items() if count > 1} == {}


@given(
    st.integers(1, 4),
    st.lists(askers, min_size=1, max_size=12),
    st.sampled_from([None, None, 1_000, 7]),
    st.sampled_from([None, None, 1, 3]),
)
@settings(max_examples=60, deadline=None)
def test_storms(size: int, tasks: list[Asker], piece_bytes: int | None, close_after: int | None) -> None:
    if piece_bytes == 7:
        tasks = [Asker(asker.requests, asker.cancelled_after, min(asker.bytes_each, 100)) for asker in tasks]

    async def main() -> None:
        oddities = Oddities(piece_bytes=piece_bytes, close_after=close_after)
        with tempfile.TemporaryDirectory(prefix="wz") as folder:
            async with open_fake_daemon("wazuh-db", echo, home=folder, oddities=oddities) as daemon:
                await storm(daemon, Path(folder), size, tasks)

    before = descriptors()
    trio.run(main)
    assert descriptors() == before


@pytest.mark.parametrize("size", [1, 2, 8])
async def test_everybody_is_served_in_the_end(home: Path, size: int) -> None:
    tasks = [Asker(50, None, 0)] * 17
    async with open_fake_daemon("wazuh-db", echo, home=home) as daemon:
        await storm(daemon, home, size, tasks)
        assert daemon.connections == size
