"""A turn of trio's loop, and the clock that it asks: nothing real is waited for in a run."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import trio
import trio.testing

__all__ = ["REPLACEMENTS", "wakings"]

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
        self._is_told = False
        self._used = False

    def install(self) -> None:
        """From now on it is known when somebody has."""
        pair: Any = trio._core._wakeup_socketpair.WakeupSocketpair
        trios_wake, trios_drain = pair.wakeup_thread_and_signal_safe, pair.drain

        def wake(pair: Any) -> None:
            self._used = True
            trios_wake(pair)

        def drain(pair: Any) -> None:
            trios_drain(pair)
            self._used = False

        pair.wakeup_thread_and_signal_safe, pair.drain = wake, drain
        self._is_told = True

    def may_come(self, manager: Any) -> bool:
        """Whether events may have come: the wake-up's, or of what waits for others."""
        return self._used or not self._is_told or len(manager._registered) > 1


#: Of this process.
wakings: Final = Wakings()

#: What of trio is replaced, and by what.
REPLACEMENTS: Final[tuple[tuple[Any, str, object], ...]] = (
    (trio.testing.MockClock, "current_time", _time_of),
    *((module, "current_time", _current_time) for module in (trio, trio._core, trio._core._run)),
    (trio._core._run, "Instruments", _NoInstruments),
    (trio._core._run, "_r", _Order()),
)
