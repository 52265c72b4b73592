"""Classes that are closed at the end of their ``with`` block."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["ClosedAtExit"]


class ClosedAtExit:
    """``with`` gives the object itself and calls its ``close`` at the end, whatever happened."""

    __slots__ = ()

    def close(self) -> None:
        """May be called more than once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
