"""How much there is in a JSON text, before it is taken apart. Pure.

What is taken apart into a million values is a million objects: half a second in which no other thread has a turn, and
fifty times the text's memory. The text is looked at in short steps, and only as far as it takes.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from typing import Final

__all__ = ["MANY", "check_utf8", "has_many_members", "has_many_values"]

#: Values that are taken apart in some 0.1 s.
MANY: Final = 250_000

_STEP: Final = 64 * 1024

_WITHOUT_PART: Final = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)

_new_decoder: Final = getincrementaldecoder("utf-8")


def has_many_members(text: bytes) -> bool:
    """Whether the objects in a JSON text, at all levels together, have more than ``MANY`` members."""
    return _has_many(text, b":")


def has_many_values(text: bytes) -> bool:
    """Whether a JSON text has more than about ``MANY`` values: members and elements, at all levels together."""
    return _has_many(text, b":,")


def _has_many(text: bytes, marks: bytes) -> bool:
    if len(text) <= MANY or sum(text.count(mark) for mark in marks) <= MANY:
        return False  # with those in strings, too
    found = position = 0
    while position < len(text):
        cut = _WITHOUT_PART.match(text, position, position + _STEP)
        end = position if cut is None else cut.end()
        if end == position:  # a string that is longer than a step
            string = _STRING.match(text, position)
            if string is None:
                return False  # no JSON
            position = string.end()
            continue
        outside = _STRING.sub(b"", text[position:end])
        found += sum(outside.count(mark) for mark in marks)
        if found > MANY:
            return True
        position = end
    return False


def check_utf8(text: bytes) -> None:
    """Raises ``UnicodeDecodeError`` where ``text.decode()`` would, without four bytes of memory for each of its own."""
    if text.isascii():
        return
    if len(text) <= _STEP:
        text.decode()
        return
    decoder = _new_decoder()
    for start in range(0, len(text), _STEP):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(text[start : start + _STEP], final=start + _STEP >= len(text))
        except UnicodeDecodeError as exc:
            offset = start - pending
            raise UnicodeDecodeError("utf-8", text, offset + exc.start, offset + exc.end, exc.reason) from None
