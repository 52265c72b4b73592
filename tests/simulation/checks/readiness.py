"""Who asks whether nodes are ready, as their balancers do, and an operator who drains them: a drained node isn't ready,
nor one whose store could take nothing, and once everything is served each worker is."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.injected import INDEXER_STORES
from tests.simulation.nodes.network import Connection
from tests.simulation.plans.faults import CALLS, HANGS
from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, exchange, request_head

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Node
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = ["check_ready", "run_drains", "run_health_checks"]

_WHO: Final = "balancer"
_PATHS: Final = ("/ready", "/ready", "/ready/any")
#: Of how many stores none is ready that take nothing.
_ENOUGH: Final = {"/ready": 1, "/ready/any": 2}
#: Seconds within which an answer is there.
_BOUND: Final = 10.0
#: Seconds after which each worker knows of a drain, and that a store is away: it looks once a second, for two.
_KNOWN_AFTER: Final = 1.0
_SEEN_AFTER: Final = 4.0
#: By which a store takes nothing, and doesn't when it is asked.
_AWAY: Final = ("fail", "hang", "full")
#: Seconds after faults, and after everything is served, in which a worker may not be ready yet.
_READY_AFTER: Final = 30.0


async def run_health_checks(world: World) -> None:
    """Until cancelled."""
    rng = Random(f"{world.plan.seed} health checks")
    ports = 60_000
    while True:
        await trio.sleep(rng.expovariate(2.0))
        node = rng.choice(world.nodes)
        if node.is_up:
            ports += 1
            path = rng.choice(_PATHS)
            began, hub, drained = trio.current_time(), node.hub, node.drained_at
            status, process = await _ask(world, node, path, ports)
            if status is None or process is None:
                continue
            world.trace.strike("health check", f"{status}", path)
            if status not in (200, 503):
                raise Violation("ready", f"{process.name} is asked whether it is ready, and says {status}")
            if status == 503:
                continue
            is_drained = drained + _KNOWN_AFTER < began and drained == node.drained_at and hub is node.hub
            if is_drained and not world.had_cause(_BOUND, HANGS):
                raise Violation("ready", f"{process.name} says that it is, and is drained")
            away = [store for store in ("events", "engine") if _is_away(world, process, store, began)]
            if len(away) >= _ENOUGH[path]:
                raise Violation("ready", f"{process.name} says that it is for {path}, and its {away} can take nothing")


async def _ask(world: World, node: Node, path: str, port: int) -> tuple[int | None, Process | None]:
    """What some worker of the node answers, and which one; no fault of the network comes between."""
    connection = Connection(world, _WHO, port, None)
    node.listener.offer(connection.server)
    world.connections.append(connection)
    status = None
    try:
        with trio.move_on_after(_BOUND):
            head = request_head("GET", f"/api/v1{path}", [("Host", "x")])
            status = (await exchange(connection.agent, head)).status
    except ExchangeFailed:
        pass
    finally:
        connection.agent.close()
    return status, connection.server.process


def _is_away(world: World, process: Process, store: str, began: float) -> bool:
    """Whether a store takes nothing of this worker's since a while."""
    now, is_indexer = trio.current_time(), world.plan.stores == "indexer" and store == "events"
    places = INDEXER_STORES if is_indexer else (store,)
    calls = [each for each in world.plan.faults if each.kind in CALLS and each.place.partition(".")[0] in places]
    under_way = [each for each in calls if each.start < now and began - _SEEN_AFTER < each.start + each.seconds]
    if len(under_way) != 1:  # of several it is chance which one a call meets
        return False
    (fault,) = under_way
    lasts = fault.start + _SEEN_AFTER < began and now < fault.start + fault.seconds
    if not lasts or fault.place != store or fault.share != 1.0 or fault.kind not in _AWAY:
        return False
    if world.plan.stores == "embedded" and fault.kind == "hang":
        return False
    if is_indexer:
        return fault.kind == "fail" and (not fault.alone or fault.node == process.node)
    return fault.node == process.node and (not fault.alone or fault.worker % world.plan.workers == process.slot)


async def run_drains(world: World, until: float) -> None:
    """Takes a node out of its balancers' rotation for a while, now and then."""
    rng = Random(f"{world.plan.seed} drains")
    while trio.current_time() < until:
        await trio.sleep(rng.uniform(1.0, until / 3))
        node = rng.choice(world.nodes)
        if not node.is_up:
            continue
        node.drain()
        world.trace.add("operator", f"drains {node.name}")
        await trio.sleep(rng.uniform(2.0, until / 2))
        node.end_drain()
        world.trace.add("operator", f"no longer drains {node.name}")


async def check_ready(world: World) -> None:
    """Once everything is served each node says that it is ready, and each of its workers that answers."""
    over = trio.current_time() + _READY_AFTER
    for node in world.nodes:
        for number in range(2 * len(node.running)):
            while True:
                status, process = await _ask(world, node, "/ready", 50_000 + number) if node.is_up else (None, None)
                if status == 200:
                    break
                if trio.current_time() > over:
                    raise Violation(
                        "ready", f"{process and process.name} of {node.name} says {status}, and all is well"
                    )
                await trio.sleep(0.5)
