"""What the kernel is told about silent peers: the relation of its three values, and what it does by them."""

from __future__ import annotations

import socket
import sys
from itertools import islice

import pytest
import trio

from tests.lossy_network import CANNOT, in_namespace
from wazuh_comms_trio.http.server.streams.keepalive import (
    LONGEST_IDLE_S,
    PROBES,
    SHORTEST_IDLE_S,
    idle_times,
    prepare_listener,
)
from wazuh_comms_trio.http.server.streams.socket_stream import SocketListener, SocketStream


def option(stream: SocketStream, name: int, level: int = socket.IPPROTO_TCP) -> int:
    value: int = stream.socket.getsockopt(level, name)
    return value


@pytest.mark.real_clock
async def test_nobody_is_given_up_before_all_probes_had_their_turn() -> None:
    """Of every accepted connection; the listing is what its probes' moments come to, in seconds of silence.

    idle 60 s: probes at 60 68 76 84 92 100 108, the end at 116 s, when the seventh had 8 s for its answer
    idle 30 s: probes at 30 38 46 … 102 110, the end at 118 s, the first turn after 116 s
    """
    (trio_listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = SocketListener(trio_listener)
    prepare_listener(listener.socket)
    idles = []
    for _ in range(2 * 31):
        client = await trio.open_tcp_stream(*trio_listener.socket.getsockname())
        server = await listener.accept()
        assert option(server, socket.SO_KEEPALIVE, socket.SOL_SOCKET) == 1
        idle = option(server, socket.TCP_KEEPIDLE)
        interval = option(server, socket.TCP_KEEPINTVL)
        probes = option(server, socket.TCP_KEEPCNT)
        user_timeout = option(server, socket.TCP_USER_TIMEOUT) / 1000
        assert probes >= 6
        assert user_timeout >= idle + interval * probes
        # And yet one that went to sleep is noticed: the first turn after the user timeout.
        assert user_timeout + interval <= 125
        idles.append(idle)
        await client.aclose()
        await server.aclose()
    await listener.aclose()
    assert idles == 2 * [*range(30, 61)]  # a whole minute's polls aren't probed in one second


def test_every_nth_connection_has_all_idle_times() -> None:
    """An agent's polls may be every second, third, … of its connections: theirs are spread all the same."""
    count = LONGEST_IDLE_S - SHORTEST_IDLE_S + 1
    for step in range(1, count):
        turns = idle_times()
        chosen = {next(islice(turns, step - 1, None)) for _ in range(count)}
        assert len(chosen) == count, step


# --- with real loss

#: Seconds: a twentieth of what it is in the product, as near as whole seconds come.
IDLE, INTERVAL = (1, 3), 1
USER_TIMEOUT = IDLE[1] + INTERVAL * PROBES
PAIRS = 300
LOSS = 5
#: Two user timeouts: in one nobody could be given up.
PARKED = 2 * USER_TIMEOUT


async def parked_through_loss(user_timeout: int) -> int:
    """How many of 300 polls that are parked for 20 s on a listener of the product end without their answer."""
    command = [sys.executable, "-m", "tests.http.server.parked_polls", f"--polls={PAIRS}", f"--seconds={PARKED}"]
    command += [f"--loss={LOSS}", f"--idle={IDLE[0]}-{IDLE[1]}", f"--interval={INTERVAL}", f"--probes={PROBES}"]
    command += [f"--user-timeout={user_timeout}"]
    done = await trio.run_process(in_namespace(command), capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.decode().strip())
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


@pytest.mark.real_clock
@pytest.mark.processes
async def test_lost_probes_end_no_poll() -> None:
    """One probe and answer in ten are lost. By our relation of the values nobody is reset. With a user timeout below
    the idle time, the first lost one is the end, whatever ``TCP_KEEPCNT`` says: that is what the kernel does.
    """
    lost: dict[str, int] = {}

    async def run(name: str, user_timeout: int) -> None:
        lost[name] = await parked_through_loss(user_timeout)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "ours", USER_TIMEOUT)
        nursery.start_soon(run, "below the idle time", IDLE[1] - 1)
    assert lost["ours"] == 0
    assert lost["below the idle time"] > PAIRS / 20
