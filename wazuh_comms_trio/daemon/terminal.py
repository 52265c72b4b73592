"""SIGHUP has two meanings: the operator asks for a reload, or the terminal that the daemon was started in is gone."""

from __future__ import annotations

import os

__all__ = ["Terminal"]

_STDIN = 0


class Terminal:
    """What stdin was when this was made."""

    def __init__(self) -> None:
        self._was_there = os.isatty(_STDIN)

    def is_gone(self) -> bool:
        """The terminal was hung up: a connection or a window was closed."""
        return self._was_there and not os.isatty(_STDIN)
