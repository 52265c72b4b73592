"""Everything that makes a run repeatable, in one place. Nothing here imports the project: ``install`` comes first.

What is left to chance on purpose in a program: the order in which trio runs tasks, hashes of strings, random bytes, the
clock. Signatures of tokens stay random (OpenSSL's), but not their length, and they are in no trace.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from math import inf
from typing import Any

import trio
import trio.testing

__all__ = ["EPOCH", "install", "reset"]

#: What the wall clock says when trio's says 0.
EPOCH = 1_750_000_000.0
_PROCESS_NUMBER = 4242

_bytes = random.Random(0)
_real_time = time.time


def _current_time(clock: Any) -> float:
    """The mock clock's, whose rate is 0, without asking the real one: trio asks some thousand times for each simulated
    second."""
    return float(clock._virtual_base)


def _autojump(clock: Any) -> None:
    """As trio's, which makes all of its statistics for one number."""
    jump = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline() - clock._virtual_base
    if 0 < jump < inf:
        clock._virtual_base += jump


class _Wakings:
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


def install() -> None:
    """Once, in a process of its own, before the project is imported. Raises ``RuntimeError`` when hashes are random."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        raise RuntimeError("PYTHONHASHSEED must be 0: start this through scripts/simulate")
    if any(name.partition(".")[0] == "wazuh_comms_trio" for name in sys.modules):
        raise RuntimeError("too late: the project is imported already")
    replacements: list[tuple[Any, str, object]] = [
        (os, "urandom", _urandom),
        (random, "_urandom", _urandom),  # secrets and SystemRandom have it from there
        (os, "getpid", lambda: _PROCESS_NUMBER),
        (time, "time", _time),
        (time, "monotonic", _monotonic),
        (trio.testing.MockClock, "current_time", _current_time),
        (trio.testing.MockClock, "_autojump", _autojump),
        # One of trio's two private switches: tasks that can run are sorted. ``reset`` seeds what is left to chance.
        (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
    ]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
    _Wakings().install()
    gc.disable()


def reset(seed: int) -> None:
    """Before each run."""
    gc.collect()
    _bytes.seed(f"bytes {seed}")
    random.seed(f"random {seed}")
    trio._core._run._r.seed(seed)
    from tests.simulation.module_state import reset_modules  # with the project, which is imported after ``install``

    reset_modules()


def _urandom(size: int) -> bytes:
    return _bytes.randbytes(size)


def _time() -> float:
    try:
        return EPOCH + trio.current_time()
    except RuntimeError:
        return _real_time()


def _monotonic() -> float:
    try:
        return trio.current_time()
    except RuntimeError:
        return time.perf_counter()
