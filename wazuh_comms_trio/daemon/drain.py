"""A node that is taken out of its balancers' rotation: ``ready`` is 503, and everything is served as ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

__all__ = ["Drain"]

logger = logging.getLogger(__name__)


class Drain:
    """The node's state, in the process that has the command socket. ``tell`` passes it on to who answers ``ready``."""

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._since: float | None = None
        self._stopping = False

    @property
    def seconds(self) -> float | None:
        """For how long the node is drained; None: it isn't."""
        return None if self._since is None else trio.current_time() - self._since

    def switch(self, on: bool, parked: int) -> dict[str, Any]:
        """Begins or ends the drain; returns ``Control.drain``'s result."""
        if on:
            self.begin()
        else:
            self.end()
        return {"drained": self._since is not None, "parked": parked}

    def begin(self) -> None:
        if self._since is None:
            self._since = trio.current_time()
            logger.info("drained: balancers are told to send nothing more")
        self._tell(True)

    def end(self) -> None:
        """Ends the drain, but not while the daemon stops."""
        if self._since is not None and not self._stopping:
            self._since = None
            self._tell(False)
            logger.info("no longer drained")

    def begin_to_stop(self, delay: float) -> float:
        """Returns how many of ``delay`` seconds are left for balancers to notice."""
        self._stopping = True
        left = delay - (self.seconds or 0.0)
        if left <= 0:
            return 0.0
        self.begin()
        return left
