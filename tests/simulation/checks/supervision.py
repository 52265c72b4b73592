"""What a node's supervisor promises: a worker that dies or hangs is soon replaced, after a reload the workers of before
leave, what leads to another worker is there as long as that is, and no longer."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import trio
from attrs import define, field

from tests.simulation.plans.faults import STARTS
from tests.simulation.trace import Violation
from wazuh_comms_trio.daemon.stopping import STOP_MARGIN
from wazuh_comms_trio.daemon.supervisor import generation
from wazuh_comms_trio.daemon.supervisor.generation import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    FAILED_STARTS_IN_RELOAD,
    HUNG_AFTER,
    WATCH_INTERVAL,
)
from wazuh_comms_trio.daemon.supervisor.hub import HEALTH_INTERVAL
from wazuh_comms_trio.daemon.supervisor.supervisor import RELOAD_SPREAD, longest_request

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Node
    from tests.simulation.world import World

__all__ = ["watch_supervisors"]

#: Seconds from when all workers served, or one ended, until all serve again: one that hangs is killed and one that has
#: died again and again is waited for, and either is started.
REPLACED_BOUND: Final = max(HUNG_AFTER + WATCH_INTERVAL + HEALTH_INTERVAL, BACKOFF_LAST) + 3.0
#: Seconds after which what was said over a link is known, whatever turns it takes.
KNOWN_AFTER: Final = 1.5


@define
class _Seen:
    """Of one node. ``whole``: when all workers of the configuration in force served last; ``reloading``: since when a
    reload is under way, ``reloaded``: when one was last."""

    life: object = None
    reading: int = 0
    since: float = -inf
    whole: float = -inf
    reloading: float = inf
    read_at: float = -inf
    reloaded: float = -inf
    stale: dict[str, float] = field(factory=dict)


async def watch_supervisors(world: World) -> None:
    """Until cancelled."""
    seen = [_Seen() for _ in world.nodes]
    while True:
        await trio.sleep(1)
        for node, known in zip(world.nodes, seen, strict=True):
            _note(node, known)
            if node.supervisor is not None and not node.is_told_to_stop and node.is_ready:
                _check_replaced(world, node, known)
                _check_generations(node, known)
                _check_members(node, known)
                _check_reload(node, known)


def _note(node: Node, known: _Seen) -> None:
    now = trio.current_time()
    if known.life is not node.supervisor:
        known.life, known.whole, known.stale = node.supervisor, now, {}
        known.reloading, known.reloaded = inf, -inf
    if known.reading != node.reading:
        known.reading, known.since = node.reading, now
    if known.read_at != node.read_at:  # another one, which may have waited for the one before
        known.read_at, known.reloading = node.read_at, inf


def _check_replaced(world: World, node: Node, known: _Seen) -> None:
    now = trio.current_time()
    current = [process for process in node.running if process.reading == node.reading]
    serving = {process.slot for process in current if process.serves_since <= now}
    if len(serving) >= node.workers or any(process.hangs and process.is_starting for process in node.running):
        known.whole = now
    since = max(known.whole, node.last_death)
    if now > since + REPLACED_BOUND and not world.had_cause(REPLACED_BOUND, STARTS):
        raise Violation("replaced", f"{node.name}: since {since:.1f} {len(serving)} of {node.workers} workers serve")


def _check_generations(node: Node, known: _Seen) -> None:
    """Those of another configuration than the one in force are told to stop, and do."""
    longest = _longest_stop(node, known)
    passed = trio.current_time() - known.since
    for process in node.running:
        is_old = process.reading < known.reading and not process.is_starting and not process.dead
        told = process.stop.requested.is_set() or process.hangs
        if is_old and ((passed > KNOWN_AFTER and not told) or passed > longest + KNOWN_AFTER):
            raise Violation("generations", f"{process.name} is there {passed:.0f} s after a reload")


def _longest_stop(node: Node, known: _Seen) -> float:
    """Seconds."""
    settings = node.config_of(str(known.reading)).communications_api
    return max(RELOAD_SPREAD, settings.shutdown.spread) + longest_request(settings) + STOP_MARGIN


def _check_reload(node: Node, known: _Seen) -> None:
    """No signal is forgotten, also of those that come during a reload, which ends; what a reload that was refused has
    started doesn't stay."""
    assert node.supervisor is not None
    now = trio.current_time()
    if node.supervisor._reloading.locked():
        # Each of its workers may need several starts, and the third one waits for the first.
        longest = 2 * FAILED_STARTS_IN_RELOAD * (generation.START_TIMEOUT + BACKOFF_FIRST)
        # What one that is refused has started ends in order.
        longest += _longest_stop(node, known)
        known.reloading = min(known.reloading, now)
        if now > known.reloading + longest + KNOWN_AFTER:
            raise Violation("reloads", f"{node.name} reloads since {known.reloading:.1f}")
        known.reloaded = now
        return
    known.reloading = inf
    if node.read_at < node.asked_at < now - KNOWN_AFTER:
        raise Violation("reloads", f"{node.name} was told to reload at {node.asked_at:.1f}")
    if known.reloaded < now - KNOWN_AFTER:
        for process in node.running:
            if process.reading > node.reading and process.serves_since < inf:
                raise Violation("generations", f"{process.name} is of a reload that was refused")


def _check_members(node: Node, known: _Seen) -> None:
    """The hub has a link to each worker that serves, and to none that isn't there."""
    now = trio.current_time()
    members = {f"{node.name}.{member.name}": member for member in node.hub.members}
    for process in node.running:
        if process.serves_since < now - KNOWN_AFTER and process.name not in members:
            raise Violation("hub", f"{process.name} serves, and the hub doesn't know it")
    gone = set(members) - {process.name for process in node.running}
    known.stale = {name: known.stale.get(name, now) for name in gone}
    if old := [name for name, since in known.stale.items() if since < now - KNOWN_AFTER]:
        raise Violation("hub", f"the hub knows {old}, which have ended")
