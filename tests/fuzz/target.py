"""What is fuzzed: a function that is given bytes and fails where something promised doesn't hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise

from attrs import field, frozen

__all__ = ["Target", "in_pieces"]


@frozen
class Target:
    """``check`` raises for what mustn't be, whatever the bytes are; ``seeds`` are the corpus that one begins with, and
    what was found before; ``words`` are put into inputs as they are.

    ``longest``: bytes of an input. ``cases``: how many mutations the tests try.
    """

    check: Callable[[bytes], None] = field(repr=False)
    seeds: tuple[bytes, ...] = field(repr=False)
    words: tuple[bytes, ...] = field(default=(), repr=False)
    longest: int = 4096
    cases: int = 3000


def in_pieces(data: bytes) -> list[bytes]:
    """A few pieces, at places that the bytes themselves decide, so that the same input is always cut alike."""
    places = hashlib.blake2b(data, digest_size=8).digest()
    if places[0] < 40 and len(data) <= 2000:
        return [data[place : place + 1] for place in range(len(data))]
    cuts = sorted({int(each * len(data) / 256) for each in places[1 : 2 + places[0] % 6]})
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]
