"""How the daemon, a generation of workers or one worker is told to end, and when."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

import trio

from wazuh_comms_trio.daemon.systemd import Notifier

__all__ = ["STOP_MARGIN", "Stop", "Terminal", "stop_when_noticed"]

logger = logging.getLogger(__name__)

#: After the grace period: draining, closing stores, and leaving. Seconds.
STOP_MARGIN: Final = 8.0
_STDIN: Final = 0


class Stop:
    """``request`` for the orderly procedure, ``shorten`` when there turns out to be less time, ``hurry`` when there is
    none left."""

    def __init__(self) -> None:
        self.requested: trio.Event = trio.Event()
        self.shortened: trio.Event = trio.Event()
        self.hurried: trio.Event = trio.Event()
        #: Seconds over which parked polls are answered.
        self.spread: float = 0.0
        #: Seconds that requests in flight get besides; None: ``shutdown.grace``.
        self.grace: float | None = None

    def request(self, *, spread: float = 0.0, grace: float | None = None) -> None:
        if not self.requested.is_set():
            self.spread, self.grace = spread, grace
            self.requested.set()

    def shorten(self) -> None:
        """Parked polls are answered now, requests in flight get ``shutdown.grace`` from now on."""
        self.requested.set()
        self.shortened.set()

    def hurry(self) -> None:
        """Requests in flight are given up; what is already in the batcher still gets half a second."""
        self.shorten()
        self.hurried.set()


async def stop_when_noticed(delay: float, notifier: Notifier, stopping: trio.Event, stop: Callable[[], None]) -> None:
    """Calls ``stop`` once balancers had ``delay`` seconds to notice, or as soon as ``stopping`` is set. Cancelled: it
    isn't called."""
    notifier.stopping("stopping: balancers are told")
    notifier.extend_timeout(delay + STOP_MARGIN)
    logger.info("stopping in %.0f s, when balancers have noticed", delay)
    with trio.move_on_after(delay):
        await stopping.wait()
    stop()


class Terminal:
    """The terminal that stdin was when this was made, if it was one. SIGHUP has two meanings: the operator asks for a
    reload, or the terminal that the daemon was started in is gone."""

    def __init__(self) -> None:
        self._was_there = os.isatty(_STDIN)

    def is_gone(self) -> bool:
        """The terminal was hung up: a connection or a window was closed."""
        return self._was_there and not os.isatty(_STDIN)
