"""The form of a JSON text, told without recursion: for lines that the fast decoder refuses, or can't be asked about.

``msgspec`` says what a line's value is, quickly, but keeps the last of duplicate keys and refuses what is nested deeper
than the interpreter's stack. These functions say whether a line is one JSON object at all, whatever its depth, what its
members are, and whether a key stands in it twice, at any level.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from attrs import define, field, frozen

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
    """What was found. ``duplicate``: some key stands twice in one object, at any level."""

    members: tuple[Member, ...]
    duplicate: bool


@define
class _Open:
    """A container whose end hasn't come. ``keys`` is None for an array."""

    keys: set[str] | None
    wants: str = "first"  # "first" (member or end), "member", "colon", "value", "comma" (or end)
    key: str = ""
    key_start: int = 0
    value_start: int = 0


@define
class _Reader:
    stack: list[_Open] = field(factory=list)
    members: list[Member] = field(factory=list)
    duplicate: bool = False

    def key(self, token: bytes, start: int) -> None:
        top = self.stack[-1]
        assert top.keys is not None
        try:
            top.key = msgspec.json.decode(token, type=str)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise NotAnObject("a key isn't sound text") from None
        self.duplicate = self.duplicate or top.key in top.keys
        top.keys.add(top.key)
        top.key_start = start
        top.wants = "colon"

    def value_begins(self, start: int) -> None:
        top = self.stack[-1]
        if top.wants not in ("value", "first") or (top.keys is not None and top.wants == "first"):
            raise NotAnObject("a value out of place")
        top.value_start = start

    def value_ended(self, end: int) -> None:
        top = self.stack[-1]
        top.wants = "comma"
        if len(self.stack) == 1:
            self.members.append(Member(top.key, top.key_start, top.value_start, end))

    def mark(self, mark: bytes, start: int, end: int) -> None:
        """One of ``{ } [ ] , :``."""
        if mark in b"{[":
            if self.stack:
                self.value_begins(start)
            self.stack.append(_Open(set() if mark == b"{" else None))
            return
        top = self.stack[-1]
        is_object = top.keys is not None
        if mark in b"}]":
            if top.wants not in ("first", "comma") or is_object != (mark == b"}"):
                raise NotAnObject("an end out of place")
            self.stack.pop()
            if self.stack:
                self.value_ended(end)
        elif mark == b":" and top.wants == "colon":
            top.wants = "value"
        elif mark == b"," and top.wants == "comma":
            top.wants = "member" if is_object else "value"
        else:
            raise NotAnObject("a separator out of place")


def object_form(text: bytes | bytearray) -> Form:
    """The outermost object's members, in order, duplicates too. Raises ``NotAnObject`` for anything else than one JSON
    object in UTF-8 with blanks around. Takes ~1 µs a token: for short or rare texts."""
    try:
        if not text.isascii():
            text.decode()
    except UnicodeDecodeError:
        raise NotAnObject("not UTF-8") from None
    reader = _Reader()
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotAnObject("not JSON")
        mark, string, _ = match.groups()
        position = match.end()
        if mark is not None:
            if not reader.stack and mark != b"{":
                raise NotAnObject("not an object")
            reader.mark(bytes(mark), match.start(1), position)
        elif not reader.stack:
            raise NotAnObject("not an object")
        elif string is not None and reader.stack[-1].keys is not None and reader.stack[-1].wants in ("first", "member"):
            reader.key(bytes(string), match.start(2))
        else:
            start = match.start(2) if string is not None else match.start(3)
            if string is not None and b"\\u" in string:
                try:  # lone surrogates
                    msgspec.json.decode(bytes(string), type=str)
                except msgspec.MsgspecError:
                    raise NotAnObject("a string isn't sound text") from None
            reader.value_begins(start)
            reader.value_ended(position)
        if not reader.stack:
            break
    if _END.match(text, position) is None:
        raise NotAnObject("something follows the object")
    return Form(tuple(reader.members), reader.duplicate)
