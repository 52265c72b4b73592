"""Connections are bounded from outside of the server that serves them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.daemon.operators.connection_limits import MOST, OLDEST, ConnectionLimits, shut_down


async def test_old_ones_and_the_oldest_of_too_many_go(mock_clock: MockClock) -> None:
    there: list[tuple[int, int]] = [(3, 100), (4, 101)]

    def sockets() -> Iterator[tuple[int, int]]:
        return iter(there)

    limits = ConnectionLimits(sockets)
    assert limits.overdue() == []
    there.append((5, 102))
    assert limits.overdue() == []
    mock_clock.jump(OLDEST / 2)
    there += [(number, 1000 + number) for number in range(6, 6 + MOST)]
    assert limits.overdue() == [5]  # one too many, and it is the oldest
    mock_clock.jump(OLDEST / 2)
    assert limits.overdue() == [5]
    there.remove((5, 102))
    there.append((5, 103))  # another connection with the number of one that is gone
    assert 5 not in limits.overdue()
    mock_clock.jump(OLDEST)
    assert set(limits.overdue()) == set(range(5, 6 + MOST))  # the process's own stay for ever


@pytest.mark.real_clock
async def test_a_send_that_waits_for_its_reader_ends() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    with theirs:
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
                    await stream.send_all(bytes(10_000_000))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            shut_down(ours.fileno())
        assert ours.fileno() >= 0  # its owner closes it
        await stream.aclose()
