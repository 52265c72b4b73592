"""The C library's allocator, set so that memory of large bodies goes back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["return_large_blocks"]

#: ``M_MMAP_THRESHOLD`` of glibc's <malloc.h>.
_MMAP_THRESHOLD: Final = -3
#: Blocks from this size on, bytes, are mappings of their own, which end when the block is freed.
LARGE_BLOCK: Final = 256 * 1024


def return_large_blocks() -> bool:
    """Keeps glibc from raising its threshold to the largest block that was freed (up to 32 MB): after a flood of large
    bodies it would keep what they took. False where the C library has no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGE_BLOCK))
