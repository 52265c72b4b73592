"""A request's body that was collected: in memory, or, when it is large, a file without a name that is mapped."""

from __future__ import annotations

from mmap import mmap
from typing import TypeAlias

__all__ = ["Body"]

Body: TypeAlias = bytes | bytearray | mmap
