"""Which connections are ended when there is no room for those that wait: descriptors, memory, or a limit's number of
connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

if TYPE_CHECKING:
    from wazuh_comms_trio.http.server.listener_context import ListenerContext

__all__ = ["NeverShort", "Room", "end_oldest"]

#: Seconds that a connection isn't ended in, whatever there is a shortage of: handshakes take less.
SPARED: Final = 2.0
#: Connections between two looks at memory; each takes some 50 kB.
MEMORY_LOOK: Final = 64

NeverShort: Final[Callable[[], bool]] = lambda: False  # noqa: E731 - a default


def end_oldest(contexts: Sequence[ListenerContext], count: int) -> int:
    """Ends up to ``count`` connections: the oldest without a complete head first, then bodies that are behind the least
    rate, then the oldest parked polls. Returns how many. The first are closed, the others answered with 408."""
    now = trio.current_time()
    idle = nsmallest(
        count,
        (
            (since, id(scope), scope, context)
            for context in contexts
            for scope, since in islice(context.idle_scopes.items(), count)
            if now - since >= SPARED
        ),
    )
    for _, _, scope, context in idle:
        del context.idle_scopes[scope]
        scope.cancel()
    if idle:
        contexts[0].refused("connections", len(idle))
        return len(idle)
    slow = nsmallest(
        count,
        (
            (end, id(scope), scope)
            for context in contexts
            for scope, end in context.body_scopes.items()
            if end < now + context.limits.body_timeout - SPARED
        ),
    )
    for _, _, scope in slow:
        scope.cancel()
    if slow:
        contexts[0].refused("slow bodies", len(slow))
    return len(slow) or contexts[0].answer_oldest(count)


@define
class Room:
    """Whether one more connection finds room, beside descriptors."""

    context: ListenerContext
    _accepted: int = 0

    def shortage(self, *, accepted: bool = False) -> str | None:
        """The shortage in words, for the log. ``accepted``: one more connection was accepted."""
        context, limits = self.context, self.context.limits
        new = 1 if accepted else 0  # its task has yet to begin
        if limits.connections and context.connections + new >= limits.connections:
            return f"limits.connections is {limits.connections}"
        if limits.handshakes and len(context.idle_scopes) + new >= limits.handshakes:
            return f"limits.handshakes is {limits.handshakes}"
        if accepted:
            self._accepted += 1
            if self._accepted % MEMORY_LOOK:
                return None
        return "memory is short" if context.memory_short() else None
