"""Whether two JSON texts have the same value. Pure.

Large texts are compared piece by piece, each in a short step: what is equal to the byte isn't decoded, and a thread
that compares leaves other threads their turns. Of texts with very many values only those are equal that are equal to
the byte: taking them apart would hold up all threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

import msgspec

from wazuh_comms_trio.backends.json_size import has_many_values

#: Bytes that are decoded at once, in milliseconds.
_WHOLE: Final = 64 * 1024
#: Levels of objects and lists that are taken apart: each costs a look at all that is below it.
_LEVELS: Final = 8

_BLANKS: Final = b" \t\r\n"

_read_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_string: Final = msgspec.json.Decoder(str).decode

_Number: TypeAlias = Decimal | tuple[str, str]
_Read = Callable[[str], Any]


def _number(text: str) -> _Number:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond any arithmetic: equal only to itself
        return ("number", text)


def _integer(text: str) -> tuple[str, _Number]:
    return ("integer", _number(text))


def _real(text: str) -> tuple[str, _Number]:
    return ("real", _number(text))


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


def _values(body: bytes, integer: _Read, real: _Read) -> Any:
    return json.loads(body, parse_int=integer, parse_float=real, parse_constant=_refuse_constant)


def _same(first: Any, second: Any) -> bool:
    """Equality of decoded JSON; unlike Python's own it tells ``true`` from ``1``, which decoding left as numbers of
    their own type."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)


def equal_json(first: bytes, second: bytes) -> bool:
    """Whether two JSON texts have the same value: the order of members doesn't count, numbers are compared exactly by
    value. Texts with more than ``MANY`` values are compared by their bytes alone."""
    return first == second or _equal(first, second, _number, _number)


def same_spelling(first: bytes, second: bytes) -> bool:
    """As ``equal_json``, but an integer isn't a real number: storing ``1.0`` over ``1`` is a change."""
    return first == second or _equal(first, second, _integer, _real)


def beginning(text: bytes | msgspec.Raw) -> bytes:
    """What its value begins with; of a large one without a copy."""
    start = bytes(memoryview(text)[:1])
    return bytes(text).lstrip(_BLANKS)[:1] if start in _BLANKS else start


def _equal(first: bytes, second: bytes, integer: _Read, real: _Read) -> bool:
    if has_many_values(first) or has_many_values(second):
        return False
    try:
        return _equal_pieces(first, second, integer, real, _LEVELS)
    except (ValueError, RecursionError):
        return False


def _equal_pieces(first: bytes, second: bytes, integer: _Read, real: _Read, levels: int) -> bool:
    """Raises ``ValueError``, ``RecursionError``."""
    if first == second:
        # An equal piece of a larger text that differs elsewhere: it is sound as far as anybody looks.
        return True
    if levels == 0 or len(first) + len(second) <= _WHOLE:
        return _same(_values(first, integer, real), _values(second, integer, real))
    kinds = {beginning(first), beginning(second)}
    pairs: Iterable[tuple[msgspec.Raw, msgspec.Raw]]
    try:
        if kinds == {b"{"}:
            members, others = _read_members(first), _read_members(second)
            pairs = ((value, others[name]) for name, value in members.items())
            alike = members.keys() == others.keys()
        elif kinds == {b"["}:
            values, other_values = _read_elements(first), _read_elements(second)
            pairs = zip(values, other_values, strict=False)
            alike = len(values) == len(other_values)
        elif kinds == {b'"'}:
            return _read_string(first) == _read_string(second)
        else:
            return len(kinds) == 1 and _same(_values(first, integer, real), _values(second, integer, real))
    except (msgspec.DecodeError, UnicodeDecodeError):  # lone surrogates in a name, and what else another writer left
        return _same(_values(first, integer, real), _values(second, integer, real))
    return alike and all(_equal_pieces(value, other, integer, real, levels - 1) for value, other in _different(pairs))


def _different(pairs: Iterable[tuple[msgspec.Raw, msgspec.Raw]]) -> Iterator[tuple[bytes, bytes]]:
    """Those that aren't equal to the byte; small ones together, as lists."""
    firsts: list[bytes] = []
    seconds: list[bytes] = []
    size = 0
    for raw, other_raw in pairs:
        first, second = bytes(raw), bytes(other_raw)
        if first == second:
            continue
        if len(first) + len(second) > _WHOLE // 2:
            yield first, second
            continue
        firsts.append(first)
        seconds.append(second)
        size += len(first) + len(second)
        if size > _WHOLE // 2:
            yield _as_list(firsts), _as_list(seconds)
            firsts, seconds, size = [], [], 0
    yield _as_list(firsts), _as_list(seconds)


def _as_list(values: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(values)
