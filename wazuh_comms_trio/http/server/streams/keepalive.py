"""When the kernel asks a silent peer whether it is still there, and when it gives it up.

A parked poll is silent for minutes, and a peer that goes to sleep says nothing. What decides about both is the kernel's
``TCP_USER_TIMEOUT``. On Linux it takes the place of ``TCP_KEEPCNT`` (tcp(7)): a connection is reset at the first turn
of a probe that comes so long after the peer's last sign of life, however few probes it was sent. Hence

    user timeout = longest idle time + interval * probes        (60 s + 8 s * 7 = 116 s)

Probe k goes out after idle + (k - 1) * interval: the seventh after 60 s + 48 s = 108 s at the latest, and it has a
whole interval for its answer. At a loss of 5 % each way one in ten pairs of probe and answer is lost, and seven in a
row once in ten million times. Data that isn't acknowledged is given up after the same 116 s; what waits for it
(``limits.send_timeout``) waits for less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
)
from typing import Any, Final

__all__ = [
    "INTERVAL_S",
    "LONGEST_IDLE_S",
    "PROBES",
    "SHORTEST_IDLE_S",
    "USER_TIMEOUT_MS",
    "idle_times",
    "is_tcp",
    "prepare_listener",
    "set_idle_time",
]

#: Seconds of silence before the first probe. Each connection has its own: thousands of polls that park in the same
#: second, after a restart, aren't all probed in the same one, when many probes would be lost at once.
SHORTEST_IDLE_S: Final = 30
LONGEST_IDLE_S: Final = 60
INTERVAL_S: Final = 8
PROBES: Final = 7
USER_TIMEOUT_MS: Final = 1000 * (LONGEST_IDLE_S + INTERVAL_S * PROBES)


def prepare_listener(sock: Any) -> None:
    """Accepted sockets inherit these from the listening one, which saves six system calls a connection."""
    if not is_tcp(sock):
        return
    with suppress(OSError):
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, LONGEST_IDLE_S)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL_S)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPCNT, PROBES)
        sock.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def is_tcp(sock: Any) -> bool:
    return sock is not None and sock.family in (AF_INET, AF_INET6)


def idle_times() -> Iterator[int]:
    """Idle times for one connection after the other, in turns. There are 31, a prime, so that agents whose every n-th
    connection is a poll use all of them.
    """
    return cycle(range(SHORTEST_IDLE_S, LONGEST_IDLE_S + 1))


def set_idle_time(sock: Any, seconds: int) -> None:
    """Sets the idle time of an accepted TCP socket. Nothing, when its peer is gone already."""
    with suppress(OSError):
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, seconds)
