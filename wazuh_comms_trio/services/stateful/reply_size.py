"""How large a reply will be, before anything is done that has to be answered."""

from __future__ import annotations

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

#: What names an operation, as it is or escaped.
_OPERATION: Final = (b'"operation"', rb"\u00")


async def expected_reply(body: Body) -> int:
    """About how many bytes the reply to a stateful body will have; 0: few. Each event's header names an operation, in
    a line of its own: what documents say of it counts no further than there are lines."""
    size = len(body)
    if size // _SMALLEST_EVENT * RESULT_BYTES <= _SMALL:
        return 0
    operations = lines = 0
    for start in range(0, size, _STEP):
        if start:
            await trio.lowlevel.checkpoint()
        piece = body[start : start + _STEP]
        operations += sum(piece.count(each) for each in _OPERATION)
        lines += piece.count(b"\n")
    return min(operations, lines + 1) * RESULT_BYTES
