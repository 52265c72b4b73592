"""``fail_after`` without a generator: a request has several of them, within which nothing fails as a rule."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

import trio

__all__ = ["REPLACEMENTS"]


class _FailAfter:
    """As trio's, which makes its scope when it is entered."""

    __slots__ = ("_scope", "_seconds", "_shield")

    def __init__(self, seconds: float, *, shield: bool = False) -> None:
        self._seconds = seconds
        self._shield = shield

    def __enter__(self) -> trio.CancelScope:
        self._scope = trio.CancelScope(relative_deadline=self._seconds, shield=self._shield)
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        handled = self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            raise trio.TooSlowError
        return handled


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio, "fail_after", _FailAfter),
    (trio._timeouts, "fail_after", _FailAfter),
)
