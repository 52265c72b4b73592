"""JSON cut into pieces without decoding them: an answer of which one document can't be read is read piece by piece.

Pure. OpenSearch keeps a document's text as its writer sent it: lone surrogates, bytes that are no UTF-8, comments, any
depth. Nothing here recurses, and a piece is looked into no further than its brackets and strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

#: Levels of objects and lists. What is read is encoded again, at places where the stack is deeper.
DEEPEST: Final = 200

_BLANKS: Final = re.compile(rb"(?:[ \t\r\n]++|/\*.*?\*/|//[^\n]*+)*+", re.DOTALL)
_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]/]++|"(?:[^"\\]++|\\.)*+"|/\*.*?\*/|//[^\n]*+|/)*+', re.DOTALL)
_STRING: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_SCALAR: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^\s,:"{}\[\]/]++', re.DOTALL)
_OPENING: Final = frozenset(b"{[")


class NotSliced(ValueError):
    """Raised where the text's brackets and strings don't match."""


def members(text: bytes) -> dict[bytes, bytes]:
    """The members of an object: what stands between each name's quotation marks -> its value's text. Raises
    ``NotSliced``."""
    return {name: text[start:stop] for name, start, stop in _members(text, _blanks(text, 0))}


def cut_list(text: bytes, *path: str) -> tuple[bytes, list[bytes]]:
    """The list at ``path`` of the object, as its elements' texts; and the text around, with an empty list in its place.
    Raises ``NotSliced``, also where there is no such list."""
    start = _blanks(text, 0)
    for part in path:
        found = [at for name, at, _ in _members(text, start) if name == part.encode()]
        if not found:
            raise NotSliced(f"there is no {part}")
        start = found[0]
    elements: list[bytes] = []
    end = start
    for first, end in _elements(text, start):
        elements.append(text[first:end])
    stop = _end(text, start)
    return text[:start] + b"[]" + text[stop:], elements


def depth(text: bytes) -> int:
    """Levels of objects and lists in a text that is JSON but for its values."""
    deepest = level = at = 0
    while True:
        at = _to_bracket(text, at)
        if at >= len(text):
            return deepest
        level += 1 if text[at] in _OPENING else -1
        deepest = max(deepest, level)
        at += 1


def is_too_deep(text: msgspec.Raw | bytes) -> bool:
    """Whether a text has more than ``DEEPEST`` levels; quick where it has few brackets."""
    if len(text) <= 2 * DEEPEST:
        return False
    whole = bytes(text)
    if whole.count(b"{") + whole.count(b"[") <= DEEPEST:
        return False
    try:
        return depth(whole) > DEEPEST
    except NotSliced:
        return False  # a decoder says more


def lenient(text: bytes) -> Any:
    """The value of a text whose strings may have lone surrogates or bytes that are no UTF-8: they become question marks
    or U+FFFD. For answers' own words, not for documents. Raises ``ValueError``, ``RecursionError``."""
    return json.loads(lenient_text(text))


def lenient_text(text: bytes) -> bytes:
    """The lenient value as sound JSON. Raises ``ValueError``, ``RecursionError``."""
    value = json.loads(text.decode("utf-8", "replace"))
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _members(text: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Each member's name, and where its value begins and ends."""
    at = _expect(text, start, b"{")
    while text[at : at + 1] != b"}":
        name = _STRING.match(text, at)
        if name is None:
            raise NotSliced("a name is missing")
        value = _expect(text, _blanks(text, name.end()), b":")
        end = _end(text, value)
        yield name[1], value, end
        at = _next(text, end, b"}")


def _elements(text: bytes, start: int) -> Iterator[tuple[int, int]]:
    at = _expect(text, start, b"[")
    while text[at : at + 1] != b"]":
        end = _end(text, at)
        yield at, end
        at = _next(text, end, b"]")


def _next(text: bytes, end: int, closing: bytes) -> int:
    """Where the next member or element begins, or the closing bracket stands."""
    at = _blanks(text, end)
    return at if text[at : at + 1] == closing else _expect(text, at, b",")


def _expect(text: bytes, at: int, sign: bytes) -> int:
    """The position after this sign and the blanks that follow it."""
    if text[at : at + 1] != sign:
        raise NotSliced(f"{sign.decode()} is missing")
    return _blanks(text, at + 1)


def _blanks(text: bytes, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


def _to_bracket(text: bytes, at: int) -> int:
    found = _TO_BRACKET.match(text, at)
    assert found is not None
    if text[found.end() : found.end() + 1] == b'"':
        raise NotSliced("a string has no end")
    return found.end()


def _end(text: bytes, start: int) -> int:
    """The end of the value that begins at ``start``."""
    if text[start : start + 1] not in (b"{", b"["):
        found = _SCALAR.match(text, start)
        if found is None:
            raise NotSliced("a value is missing")
        return found.end()
    level, at = 0, start
    while True:
        at = _to_bracket(text, at)
        if at >= len(text):
            raise NotSliced("a bracket isn't closed")
        level += 1 if text[at] in _OPENING else -1
        at += 1
        if level == 0:
            return at
