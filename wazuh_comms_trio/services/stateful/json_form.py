"""A scanner of JSON by hand, because ``json`` and ``msgspec`` recurse and give up at a depth of about a thousand.

A header line nested deeper must still be told from one that isn't JSON: after the first the next event can be read,
after the second the rest of the body is lost to the quarantine. ``json``'s hooks and ``msgspec`` raise
``RecursionError`` for both. This module says of a line of any depth whether it is one JSON object, what its members
are, and whether a key stands in it twice. It reads only lines that the fast decoder has refused.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from attrs import frozen

__all__ = ["Form", "Member", "NotAnObject", "object_form"]

_BLANK: Final = rb"[ \t\r\n]*+"
_TOKEN: Final = re.compile(
    _BLANK + rb"(?:([{}\[\],:])"
    rb'|("(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")'
    rb"|(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)(?![0-9A-Za-z.+-]))"
)
_END: Final = re.compile(_BLANK + rb"\Z")


class NotAnObject(ValueError):
    """The bytes aren't one JSON object."""


@frozen
class Member:
    """One member of the outermost object: its decoded key, and where it stands in the text, from its key's first byte
    to its value's end."""

    key: str
    start: int
    value_start: int
    end: int


@frozen
class Form:
    """The scanned members of an object. ``duplicate``: some key stands twice in one object, at any level."""

    members: tuple[Member, ...]
    duplicate: bool


# What may come next: the first member or element of a container (or its end), a key, a colon, a value, a comma (or the
# container's end).
_FIRST, _KEY, _COLON, _VALUE, _COMMA = range(5)


def _text(token: bytes) -> str:
    """A string token's value. Raises ``NotAnObject`` for lone surrogates."""
    try:
        return msgspec.json.decode(token, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise NotAnObject("a string isn't sound text") from None


def object_form(text: bytes | bytearray) -> Form:
    """The outermost object's members, in order, duplicates too. Raises ``NotAnObject`` for anything else than one JSON
    object in UTF-8 with blanks around. Takes ~0.5 µs a token: for short or rare texts."""
    try:
        if not text.isascii():
            text.decode()
    except UnicodeDecodeError:
        raise NotAnObject("not UTF-8") from None
    members: list[Member] = []
    duplicate = False
    open_keys: list[set[str] | None] = []  # of the containers around, outermost first; None for an array
    wants = _VALUE
    key, key_start, value_start = "", 0, 0  # of the outermost object's member
    position = 0
    while open_keys or wants == _VALUE:
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotAnObject("not JSON")
        mark, string, _ = match.groups()
        start, position = match.end() - len(match[match.lastindex or 0]), match.end()
        keys = open_keys[-1] if open_keys else None
        is_value = wants == _VALUE or (wants == _FIRST and keys is None)
        if mark is None and not open_keys:
            break
        if string is not None and keys is not None and wants in (_FIRST, _KEY):
            name = _text(bytes(string))
            duplicate = duplicate or name in keys
            keys.add(name)
            if len(open_keys) == 1:
                key, key_start = name, start
            wants = _COLON
        elif mark == b"}" or mark == b"]":
            if wants not in (_FIRST, _COMMA) or (keys is None) != (mark == b"]") or not open_keys:
                break
            open_keys.pop()
            wants = _COMMA
            if len(open_keys) == 1:
                members.append(Member(key, key_start, value_start, position))
        elif mark == b":" and wants == _COLON:
            wants = _VALUE
        elif mark == b"," and wants == _COMMA:
            wants = _VALUE if keys is None else _KEY
        elif mark == b"{" or (mark == b"[" and open_keys):
            if not is_value:
                break
            if len(open_keys) == 1:
                value_start = start
            open_keys.append(set() if mark == b"{" else None)
            wants = _FIRST
        elif mark is None and is_value:
            if string is not None and b"\\u" in string:
                _text(bytes(string))
            if len(open_keys) == 1:
                members.append(Member(key, key_start, start, position))
            wants = _COMMA
        else:
            break
    else:
        if _END.match(text, position) is None:
            raise NotAnObject("something follows the object")
        return Form(tuple(members), duplicate)
    raise NotAnObject("a token out of place")
