"""CRC-32 of any range of a file, each in about the same time: the file is read through once.

A search for records behind damage asks for many ranges, which an agent may have made long and overlapping. With the
checksums of the file's beginnings, one a block, that of a range follows from those of its two ends: CRC-32 is linear,
and a checksum is moved past ``n`` bytes by multiplying it with x^8n modulo the polynomial (the CRC-32 of zlib, IEEE
802.3, bits reflected).
"""

from __future__ import annotations

from array import array
from functools import cache
from typing import BinaryIO, Final
from zlib import crc32

_POLYNOMIAL: Final = 0xEDB88320
_ONE: Final = 1 << 31
_X8: Final = 1 << 23
#: A range costs the reading of two blocks at most; a GiB's checksums of this block take 1 MiB.
_BLOCK: Final = 4096
_CHUNK: Final = 256 * _BLOCK


class RangeChecksums:
    """Checksums of the bytes that ``file`` has now: what is cut off later is as if it were damaged."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._beginnings = array("I", [0])  # of as many blocks as the position says

    def match(self, start: int, length: int, checksum: int) -> bool:
        """Whether these bytes are there and have this checksum."""
        before, whole = self._beginning(start), self._beginning(start + length)
        if before is None or whole is None:
            return False
        return whole ^ _moved(before, length) == checksum

    def _beginning(self, size: int) -> int | None:
        """The checksum of the file's first ``size`` bytes; None when there aren't as many."""
        block, rest = divmod(size, _BLOCK)
        if block >= len(self._beginnings) and not self._extend(block):
            return None
        self._file.seek(block * _BLOCK)
        data = self._file.read(rest)
        return crc32(data, self._beginnings[block]) if len(data) == rest else None

    def _extend(self, block: int) -> bool:
        known = len(self._beginnings) - 1
        self._file.seek(known * _BLOCK)
        checksum = self._beginnings[known]
        while known < block:
            chunk = self._file.read(min(_CHUNK, (block - known) * _BLOCK))
            whole = len(chunk) // _BLOCK
            for start in range(0, whole * _BLOCK, _BLOCK):
                checksum = crc32(chunk[start : start + _BLOCK], checksum)
                self._beginnings.append(checksum)
            known += whole
            if not whole:
                return False
        return True


def _multiply(first: int, second: int) -> int:
    """The product of two polynomials, modulo CRC-32's; the highest bit is x^0."""
    product = 0
    while first:
        if first & _ONE:
            product ^= second
        first = (first << 1) & 0xFFFFFFFF
        second = (second >> 1) ^ _POLYNOMIAL if second & 1 else second >> 1
    return product


@cache
def _powers() -> list[list[int]]:
    """x^(8 * digit * 256^place), by place and digit."""
    powers = []
    unit = _X8
    for _ in range(8):
        row = [_ONE]
        for _ in range(255):
            row.append(_multiply(unit, row[-1]))
        powers.append(row)
        unit = _multiply(unit, row[-1])
    return powers


def _moved(checksum: int, length: int) -> int:
    """What the bytes behind ``checksum`` contribute to the checksum of a whole that goes on for ``length`` bytes."""
    powers = _powers()
    place = 0
    while length:
        digit = length & 0xFF
        if digit:
            checksum = _multiply(powers[place][digit], checksum)
        length >>= 8
        place += 1
    return checksum
