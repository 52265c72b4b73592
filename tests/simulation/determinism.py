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
from typing import Any

import trio

from tests.simulation import loop
from tests.simulation.loop.turns import wakings

__all__ = ["EPOCH", "install", "reset"]

#: What the wall clock says when trio's says 0.
EPOCH = 1_750_000_000.0
_PROCESS_NUMBER = 4242
_PROCESSORS = 2

_bytes = random.Random(0)
_real_time = time.time


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
        (os, "cpu_count", lambda: _PROCESSORS),
        (time, "time", _time),
        (time, "monotonic", _monotonic),
        # One of trio's two private switches: tasks that can run are sorted. ``reset`` seeds what is left to chance.
        (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        *loop.REPLACEMENTS,
    ]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
    wakings.install()
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
