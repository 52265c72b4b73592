"""Peers that do nothing any more: those that have fallen silent aren't waited for for ever, and the polls of those that
have left end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.actors.client import time_for
from tests.simulation.plans.faults import HANGS
from tests.simulation.plans.limits import SHORT_WAIT
from tests.simulation.trace import Violation
from wazuh_comms_trio.http.server.peer import LINGER_TIMEOUT

if TYPE_CHECKING:
    from tests.simulation.nodes.network import Connection
    from tests.simulation.world import World

__all__ = ["LeftPolls", "check_silent"]

#: Seconds for which a peer that has fallen silent is waited for, beside its route's time: for its head, its body, its
#: reading, and the rest of what was refused.
_SILENT_BOUND: Final = 3 * SHORT_WAIT + LINGER_TIMEOUT + 3.0
#: Seconds within which a poll ends that has nobody any more, once it is noted what came of its delivery; and where the
#: registry says whose it is but slowly.
_LEFT_BOUND: Final = 8.0
_IDENTIFIED_BOUND: Final = 25.0


def check_silent(world: World) -> None:
    """Each second, where peers are waited for briefly."""
    now = trio.current_time()
    for connection in world.silent:
        seconds = 0.0 if connection.silent_since is None else now - connection.silent_since
        limit, process = time_for(world, connection.place), connection.server.process
        if limit is None or process is None or process.hangs or connection.server._closed:
            continue
        if seconds > limit + _SILENT_BOUND and not world.had_cause(seconds, HANGS):
            raise Violation("in time", f"{connection.who} is silent for {seconds:.1f} s: {connection.place}")


class LeftPolls:
    """Polls whose agents have left, since when that was seen."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[Connection, float] = {}
        self._looked_at = 0

    def check(self) -> None:
        """Each second."""
        world, now = self._world, trio.current_time()
        for connection in world.connections[self._looked_at :]:
            if connection.place == "GET commands":
                self._seen[connection] = now
        self._looked_at = len(world.connections)
        bound = _LEFT_BOUND
        for connection in list(self._seen):
            process, incoming = connection.server.process, connection.server._incoming
            if connection.server._closed:
                del self._seen[connection]
            elif process is None or process.hangs or not (incoming.reset or (incoming.ended and not incoming.held)):
                self._seen[connection] = now
            elif now - self._seen[connection] > bound and not self._is_slow(now - self._seen[connection]):
                raise Violation("leaks", f"{connection.who} left at {self._seen[connection]:.1f}, and its poll goes on")

    def _is_slow(self, seconds: float) -> bool:
        world = self._world
        slow = world.registry_hung(trio.current_time() - seconds) or world.had_cause(seconds, HANGS)
        return slow and seconds < _IDENTIFIED_BOUND
