"""Mutations of a corpus, blind but repeatable: for the tests, and where atheris isn't to be had."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.fuzz.target import Target

__all__ = ["inputs"]

_EDGES = (b"\0", b"\xff", b"\r\n", b"\n", b" ", b"0", b"9" * 20, b"\x7f\xff\xff\xff", b"\xff" * 4, b"\x80", b"\xc3\xa9")
_NUMBERS = (b"0", b"-1", b"1", b"65536", b"65537", b"2147483648", b"9223372036854775808", b"1e400", b"00", b"0x1")


def inputs(target: Target, number: int, seed: int) -> Iterator[bytes]:
    """The corpus itself, then ``number`` mutations."""
    rng = random.Random(seed)
    yield from target.seeds
    for _ in range(number):
        data = bytearray(rng.choice(target.seeds))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 9))):
            _mutate(data, target, rng)
        yield bytes(data[: target.longest])


def _mutate(data: bytearray, target: Target, rng: random.Random) -> None:
    at = rng.randint(0, len(data))
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 64)))
    match rng.randrange(9):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.randrange(256)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * rng.choice((1, 1, 2, 40))
        case 4:
            data[at:at] = rng.choice(_EDGES)
        case 5:
            other = rng.choice(target.seeds)
            data[at:] = other[rng.randint(0, len(other)) :]
        case 6:
            data[at:end] = rng.choice(_NUMBERS)
        case 7:
            other = rng.choice(target.seeds)
            start = rng.randint(0, len(other))
            data[at:at] = other[start : start + rng.choice((4, 16, 64, 256))]
        case _:
            data[at : rng.choice((at, end))] = rng.choice(target.words or _EDGES)
