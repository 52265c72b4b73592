"""How large a reply will be, before anything is done that has to be answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from wazuh_comms_trio.foundation.bodies import Body

__all__ = ["RESULT_BYTES", "expected_reply"]

#: What an event's result takes in the reply: index, id, and what became of it. Ids of more than 40 characters, and why
#: something is refused, take more.
RESULT_BYTES: Final = 128
#: Events of fewer bytes hardly exist; a body with few of them isn't looked at.
_SMALLEST_EVENT: Final = 16
#: A reply below this is nothing to ask room for.
_SMALL: Final = 65536
#: What is looked at, in a copy, between two checkpoints.
_STEP: Final = 1024 * 1024

#: What names an operation, as it is, and what may name one in escapes.
_OPERATION: Final = b'"operation"'
_ESCAPE: Final = rb"\u00"


async def expected_reply(body: Body, enough: int = 0) -> int:
    """About how many bytes the reply to a stateful body will have; 0: few, or no more than ``enough``. Each event's
    header names an operation, in a line of its own: what documents say of it counts no further than there are lines.
    Mostly the lines alone say that it is little, and counting them is a fifth of the work."""
    size, enough = len(body), max(enough, _SMALL)
    if size // _SMALLEST_EVENT * RESULT_BYTES <= enough:
        return 0
    lines = 1 + await _sum(body, lambda piece: piece.count(b"\n"))
    if lines * RESULT_BYTES <= enough:
        return 0
    return min(await _sum(body, _operations), lines) * RESULT_BYTES


def _operations(piece: bytes | bytearray) -> int:
    escaped = piece.count(_ESCAPE) if b"\\" in piece else 0  # mostly there is none, which is seen at once
    return piece.count(_OPERATION) + escaped


async def _sum(body: Body, count: Callable[[bytes | bytearray], int]) -> int:
    found = 0
    for start in range(0, len(body), _STEP):
        if start:
            await trio.lowlevel.checkpoint()
        found += count(body[start : start + _STEP])
    return found
