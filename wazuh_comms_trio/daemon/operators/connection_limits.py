"""Bounds connections of a server that has no bounds of its own: hypercorn shields its sends, so that a client that
doesn't read would keep its connection, its task and its descriptor for ever.

So this looks from outside, at the process's descriptors: connections that are too old, and the oldest of too many, are
shut down, which every wait for them notices. Replies say ``Connection: close``, so that an old connection is no busy
one.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import trio

__all__ = ["ConnectionLimits"]

#: Seconds that a connection may take from its beginning to its end.
OLDEST: Final = 20.0
#: Connections at a time, more or less: what comes between two looks is on top.
MOST: Final = 64
#: Seconds between two looks.
INTERVAL: Final = 0.25

#: A connection as long as it is open: its descriptor's number and its inode's.
Key = tuple[int, int]


class ConnectionLimits:
    """Made when no connection is there yet: the sockets of that moment are the process's own."""

    def __init__(self, sockets: Callable[[], Iterator[Key]] | None = None) -> None:
        self._sockets = sockets or open_sockets
        self._own = set(self._sockets())
        self._since: dict[Key, float] = {}

    async def run(self) -> None:
        """Shuts connections down that are overdue, until cancelled."""
        while True:
            for descriptor in self.overdue():
                shut_down(descriptor)
            await trio.sleep(INTERVAL)

    def overdue(self) -> list[int]:
        """The descriptors of connections that have to go."""
        now = trio.current_time()
        there = set(self._sockets()) - self._own
        self._since = {key: since for key, since in self._since.items() if key in there}
        for key in there:
            self._since.setdefault(key, now)
        oldest_first = sorted(self._since, key=lambda key: self._since[key])
        too_many = max(0, len(oldest_first) - MOST)
        return [
            key[0]
            for position, key in enumerate(oldest_first)
            if position < too_many or now - self._since[key] >= OLDEST
        ]


def open_sockets() -> Iterator[Key]:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found = os.fstat(int(name))
            if stat.S_ISSOCK(found.st_mode):
                yield int(name), found.st_ino


def shut_down(descriptor: int) -> None:
    """Shuts a connection down; the descriptor stays its owner's to close."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
