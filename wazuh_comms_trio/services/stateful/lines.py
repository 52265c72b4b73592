"""The lines of a stateful request's body. Pure."""

from __future__ import annotations

from typing import Final

from wazuh_comms_trio.foundation.bodies import Body

__all__ = ["BLANKS", "end_of", "has_line_above", "has_long_line", "next_line"]

BLANKS: Final = b" \t\r\n"
_TAIL: Final = 65536

#: Bytes of a line that are read in milliseconds.
_LONG: Final = 1024 * 1024


def next_line(body: Body, position: int, end: int) -> tuple[int, int]:
    """Where the first line at or after ``position`` that isn't blank begins and ends; ``end`` twice when there is
    none."""
    while position < end:
        after = body.find(b"\n", position, end)
        if after < 0:
            after = end
        if body[position] not in BLANKS or body[position:after].strip(BLANKS):
            return position, after
        position = after + 1
    return end, end


def end_of(body: Body) -> int:
    """The end of a line without the blanks there."""
    end = len(body)
    while end:
        start = max(0, end - _TAIL)
        kept = len(body[start:end].rstrip(BLANKS))
        end = start + kept
        if kept:
            break
    return end


def has_long_line(body: Body, position: int, end: int) -> bool:
    """Whether the line around ``position`` or the one after it takes more than some milliseconds to read."""
    if end - position <= _LONG:
        return False
    after = body.find(b"\n", position, position + _LONG)
    if after < 0:
        return True
    return end - after > _LONG and body.find(b"\n", after + 1, after + 1 + _LONG) < 0


def has_line_above(body: Body, limit: int) -> bool:
    """Whether a line has more than ``limit`` bytes. Looks at few bytes of a body whose lines are short."""
    start, end = 0, len(body)
    while end - start > limit:
        line_end = body.rfind(b"\n", start, start + limit + 1)
        if line_end < 0:
            return True
        start = line_end + 1
    return False
