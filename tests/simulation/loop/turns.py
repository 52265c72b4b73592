"""A turn of trio's loop, and the clock that it asks: nothing real is waited for in a run."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random
from typing import Any, Final

import trio
import trio.testing

__all__ = ["REPLACEMENTS", "Wakings"]

_running = trio._core._run.GLOBAL_RUN_CONTEXT


def _time_of(clock: Any) -> float:
    """The mock clock's, whose rate is 0, without asking the real one: trio asks some thousand times for each simulated
    second."""
    return float(clock._virtual_base)


def _current_time() -> float:
    """As trio's, by the shortest way."""
    try:
        return _running.runner.clock._virtual_base  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        raise RuntimeError("must be called from async context") from None


def _autojump(clock: Any) -> None:
    """As trio's, which makes all of its statistics for one number, and looks a turn later for whose time has come."""
    deadlines = _running.runner.deadlines
    jump = deadlines.next_deadline() - clock._virtual_base
    if 0 < jump < inf:
        clock._virtual_base += jump
        deadlines.expire(clock._virtual_base)


class _NoInstruments(dict[str, dict[Any, None]]):
    """Those of a run, which has none: a turn asks a dozen times for some."""

    def __init__(self, instruments: Sequence[object]) -> None:
        super().__init__()
        assert not instruments


class _Order(Random):
    """Of the tasks that can run in a turn, which is one as a rule."""

    def shuffle(self, x: Any) -> None:
        if len(x) > 1:
            super().shuffle(x)


class Wakings:
    """Nothing real is waited for in a run but trio's own wake-up: epoll is asked when somebody has used that alone."""

    def __init__(self) -> None:
        self.used = False
        self._wake = trio._core._wakeup_socketpair.WakeupSocketpair.wakeup_thread_and_signal_safe
        self._drain = trio._core._wakeup_socketpair.WakeupSocketpair.drain
        self._events = trio._core._io_epoll.EpollIOManager.get_events

    def install(self) -> None:
        def wake(pair: Any) -> None:
            self.used = True
            self._wake(pair)

        def drain(pair: Any) -> None:
            self._drain(pair)
            self.used = False

        def get_events(manager: Any, timeout: float) -> Any:
            if timeout > 0 or self.used or len(manager._registered) > 1:
                return self._events(manager, timeout)
            return ()

        trio._core._wakeup_socketpair.WakeupSocketpair.wakeup_thread_and_signal_safe = wake  # type: ignore[method-assign]
        trio._core._wakeup_socketpair.WakeupSocketpair.drain = drain  # type: ignore[method-assign]
        trio._core._io_epoll.EpollIOManager.get_events = get_events  # type: ignore[method-assign]


#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio.testing.MockClock, "current_time", _time_of),
    (trio.testing.MockClock, "_autojump", _autojump),
    *((module, "current_time", _current_time) for module in (trio, trio._core, trio._core._run)),
    (trio._core._run, "Instruments", _NoInstruments),
    (trio._core._run, "_r", _Order()),
)
