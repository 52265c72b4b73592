"""The C library's allocator, set so that memory that is free goes back to the system.

glibc keeps what it freed: of large blocks, since it raises its threshold to the largest one (up to 32 MB), and between
small ones that live on, in an arena for each thread. In an hour of mixed load a worker of 100 MB grew by 5 to 19 MB of
it, of which 16 MB came back in 2 ms when they were asked for.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.foundation.resources import left_out_without_threads

__all__ = ["return_free_memory", "return_large_blocks"]

#: ``M_MMAP_THRESHOLD`` of glibc's <malloc.h>.
_MMAP_THRESHOLD: Final = -3
#: Blocks from this size on, bytes, are mappings of their own, which end when the block is freed.
LARGE_BLOCK: Final = 256 * 1024
#: Seconds between two times at which free memory is given back: after a flood it is gone within half a minute.
INTERVAL: Final = 10.0


def return_large_blocks() -> bool:
    """Keeps glibc from raising its threshold to the largest block that was freed: after a flood of large bodies it
    would keep what they took. False where the C library has no such setting.
    """
    mallopt = _function("mallopt")
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, LARGE_BLOCK))


async def return_free_memory(run_blocking: RunBlocking) -> None:
    """Gives back what is free in the arenas, every ten seconds, in a thread and without Python's lock. Ends at once
    where the C library can't."""
    trim = _function("malloc_trim")
    while trim is not None:
        await sleep_until_next_tick(INTERVAL)
        with left_out_without_threads():
            await run_blocking(trim, 0)


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
