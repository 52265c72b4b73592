"""The sending of a body that comes piece by piece, and its end before the last piece."""

from __future__ import annotations

import trio

__all__ = ["Sending"]


class Sending:
    """Ends the sending of a body: what goes to the peer is cancelled, what comes from the body's owner never is."""

    def __init__(self) -> None:
        self.stopped = False
        self._scope: trio.CancelScope | None = None

    def scope(self) -> trio.CancelScope:
        """A cancel scope for the sending of one piece."""
        self._scope = trio.CancelScope()
        if self.stopped:
            self._scope.cancel()
        return self._scope

    def stop(self) -> None:
        self.stopped = True
        if self._scope is not None:
            self._scope.cancel()
