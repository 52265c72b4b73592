"""Which connections are ended when there is no room for those that wait: descriptors, memory, or a limit's number of
connections."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import nsmallest
from math import inf
from operator import itemgetter
from socket import AF_INET, AF_INET6, AF_UNIX
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import define, frozen

from wazuh_comms_trio.foundation.resources import descriptor_limit
from wazuh_comms_trio.http.server.delivery import unread_bytes

if TYPE_CHECKING:
    from wazuh_comms_trio.http.server.listener_context import ListenerContext

__all__ = [
    "ASKING",
    "DRAINED",
    "QUEUED_BODIES",
    "SILENT",
    "SLOW_BODIES",
    "SLOW_READERS",
    "Idle",
    "NeverShort",
    "Room",
    "Stage",
    "end_idle",
    "end_oldest",
    "highest_descriptor",
    "idle_now",
    "lowest_free",
]

#: Seconds that a connection isn't ended in, whatever there is a shortage of: a client's first bytes come right behind
#: the connection; its handshake's end, and its head, a round trip after ours; and of a refused body some is still
#: coming. Bodies have as long as that, too, to be behind the least rate.
SILENT_SPARED: Final = 0.25
ASKING_SPARED: Final = 0.5
SPARED: Final = 2.0
#: Descriptors kept for stores, logs and the command socket; agents wait for others. Of a low limit: a quarter. Of them
#: the command socket leaves this part to stores and logs.
SPARE_FILES: Final = 64
SPARE_SHARE: Final = 4
STORES_SHARE: Final = 4
#: Connections between two looks at memory; each takes some 50 kB.
MEMORY_LOOK: Final = 64

NeverShort: Final[Callable[[], bool]] = lambda: False  # noqa: E731 - a default


@frozen
class Stage:
    """What a connection without a request in flight keeps us waiting for. ``spared``: for how many seconds that makes
    it none of those that may be ended; ``name``: of those that were, in metrics and in the log."""

    spared: float
    name: str


#: Nothing has come; a handshake or a head isn't complete; the rest of a body that was answered is taken in.
SILENT: Final = Stage(SILENT_SPARED, "silent connections")
ASKING: Final = Stage(ASKING_SPARED, "connections without a complete head")
DRAINED: Final = Stage(SPARED, "connections that were answered")
#: Bodies and replies below the least rate, by the same kind of name. Parked polls are counted where they are answered.
SLOW_BODIES: Final = "slow bodies"
SLOW_READERS: Final = "slow readers"
#: Whole bodies that nothing was begun with yet, of an agent that has more than its share.
QUEUED_BODIES: Final = "bodies that waited for others"


@define(eq=False)
class Idle:
    """A connection without a request in flight. ``began``: when that was so first; ``since``: when our side waits for
    its peer's next step, which ``stage`` says. Seconds on trio's clock. What comes byte by byte is no step."""

    sock: Any
    began: float
    since: float
    stage: Stage

    def steps_on(self) -> None:
        """The peer has sent its first bytes, or is through with its handshake."""
        self.since, self.stage = trio.current_time(), ASKING


def idle_now(sock: Any, stage: Stage = SILENT) -> Idle:
    now = trio.current_time()
    return Idle(sock, now, now, stage)


def end_idle(contexts: Sequence[ListenerContext], count: int) -> int:
    """Closes up to ``count`` connections without a complete head: those of whom nothing has come first, then the
    oldest. Returns how many. One whose bytes are there and weren't read isn't what keeps us waiting."""
    now = trio.current_time()
    oldest = nsmallest(
        2 * count,
        (
            (one.stage.spared, one.since, scope, context)
            for context in contexts
            for scope, one in context.idle_scopes.items()
            if now - one.since >= one.stage.spared
        ),
        key=itemgetter(0, 1),
    )
    ended: Counter[str] = Counter()
    for _, _, scope, context in oldest:
        idle = context.idle_scopes[scope]
        if ended.total() < count and not unread_bytes(idle.sock):
            del context.idle_scopes[scope]
            scope.cancel()
            ended[idle.stage.name] += 1
    for name, number in ended.items():
        contexts[0].refused(name, number)
    return ended.total()


def end_oldest(contexts: Sequence[ListenerContext], count: int) -> int:
    """Ends up to ``count`` connections: those without a complete head first, see ``end_idle``, then bodies that are
    behind the least rate, replies whose reading is, and the oldest parked polls. Returns how many. Bodies and polls are
    answered with 408, the others closed."""
    if ended := end_idle(contexts, count):
        return ended
    bodies = [(context.body_scopes, context.limits.body_timeout) for context in contexts]
    if ended := _end_slow(bodies, count):
        contexts[0].refused(SLOW_BODIES, ended)
        return ended
    replies = [(context.reply_scopes, context.limits.send_timeout) for context in contexts]
    if ended := _end_slow(replies, count):
        contexts[0].refused(SLOW_READERS, ended)
        return ended
    return contexts[0].answer_oldest(count)


def _end_slow(waits: Sequence[tuple[dict[trio.CancelScope, float], float]], count: int) -> int:
    """Cancels up to ``count`` waits that are behind the least rate, those first whose time is over soonest. ``waits``:
    with when that is, and how long they may take. Returns how many."""
    now = trio.current_time()
    slow = nsmallest(
        count,
        (
            (end, id(scope), scope)
            for scopes, timeout in waits
            for scope, end in scopes.items()
            if end < now + timeout - SPARED and not scope.cancel_called
        ),
    )
    for _, _, scope in slow:
        scope.cancel()
    return len(slow)


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


def highest_descriptor(listener: trio.abc.Listener[Any]) -> float:
    """The descriptor from which on a connection is one too many: an agent's, or, some later, a local program's."""
    sock = getattr(listener, "socket", None)
    limit = descriptor_limit()
    if sock is None or limit is None or sock.family not in (AF_INET, AF_INET6, AF_UNIX):
        return inf
    spare = min(SPARE_FILES, limit // SPARE_SHARE)
    return limit - (spare // STORES_SHARE if sock.family == AF_UNIX else spare)


def lowest_free(listener: trio.abc.Listener[Any]) -> float:
    """The number that the next descriptor will have."""
    try:
        descriptor = os.dup(listener.socket.fileno())  # type: ignore[attr-defined]
    except OSError:
        return inf
    os.close(descriptor)
    return descriptor
