"""A worker's program: what ``daemon/worker/process.py`` does, on the simulated machine. Worker tree, link and the hub's
client are the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio

from tests.simulation.checks.leavings import leavings
from tests.simulation.nodes.later_version import say_unknown
from tests.simulation.nodes.process import Process, Seam
from tests.simulation.nodes.versions import VERSION
from tests.simulation.plans.faults import CALLS, DISK, INDEX, NODES, POWER, REFUSING
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.daemon.bound_sockets import StartError
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.worker.environment import WorkerEnvironment, forget_earlier_keys
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.daemon.worker.hub_client import HubLeadership, HubOtherWorkers, run_hub_client
from wazuh_comms_trio.daemon.worker.tree import Worker, run_worker
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery, exceptions_of
from wazuh_comms_trio.services.authentication.tokens import TokenKeys
from wazuh_comms_trio.testing.node.daemon import run_inline

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Node

__all__ = ["STEPS", "check_left", "run_program"]

T = TypeVar("T")

#: Where a worker may meet its end while it starts, one after the other.
STEPS: Final[Sequence[str]] = ("is a process", "is configured", "has its stores", "listens", "serves")
#: Seconds that a worker takes to start, once it has its keys: what others learn meanwhile it isn't told before.
LONGEST_START: Final = 0.8
#: Seconds within which the supervisor knows that a worker serves.
_HEARD_WITHIN: Final = 0.05
#: By what a store may not learn what became of claims, however orderly their process ends.
_UNTOLD: Final = (*CALLS, *DISK, *INDEX, *NODES, *REFUSING, *POWER, "hang worker")
#: Seconds for which a worker that stops waits for it to take note, and a pause between two tries.
UNTOLD_WITHIN: Final = 8.0


async def run_program(node: Node, process: Process, link: Link) -> int:
    """In the worker's process. Returns its exit status."""
    try:
        await _run(node, process, link)
    except BaseExceptionGroup as errors:
        if process.dead:
            if (others := errors.split(Exception)[1]) is not None:  # an error of a dead process nobody hears
                raise others from None
        elif all(isinstance(error, StartError) for error in exceptions_of(errors)):
            return 1
        else:
            raise
    except StartError:
        return 1
    return 0


async def _run(node: Node, process: Process, link: Link) -> None:
    node.world.process.set(process)
    VERSION.set(process.version)
    with process.scope:
        if len(node.running) > 1:  # as in a reload: some are quicker than others
            await trio.sleep(Random(f"{process.name} {node.world.plan.seed} starts").uniform(0.0, 1.0))
        await _step(process, 0)
        try:
            first = await link.receive()
        except LinkBroken:
            return
        assert isinstance(first, messages.WorkerConfig)
        try:
            await _serve(node, process, link, first)
        except (StartError, BaseExceptionGroup) as error:
            reasons = [str(each) for each in exceptions_of(error) if isinstance(each, StartError)]
            if reasons and not process.dead:
                link.send_nowait(messages.Failed(reason="; ".join(reasons)))
                with trio.move_on_after(1):
                    await link.flush()
            raise


async def _step(process: Process, number: int) -> None:
    """A fault may strike a worker at each step of its start."""
    world = process.world
    if number == 4:  # and hears of it
        await trio.sleep(_HEARD_WITHIN)
    fault = world.meets_start(process, number)
    if fault is None:
        return
    world.trace.strike(fault.kind, STEPS[number], process.name)
    if fault.kind == "start fails":
        raise StartError("injected")
    if fault.kind == "start hangs":
        process.hang()
        await trio.sleep_until(fault.start + fault.seconds)
        process.wake()
    else:
        process.kill()
        await process.passable()


async def _serve(node: Node, process: Process, link: Link, first: messages.WorkerConfig) -> None:
    world = node.world
    config = node.config_of(first.text)
    process.reading = int(first.text)
    other_workers, leadership = HubOtherWorkers(link), HubLeadership(link, hub_knows=first.duty)
    process.leadership = leadership
    await _step(process, 1)
    async with (
        world.stores.open_process(process, node.number) as (backends, quarantine),
        BackgroundNursery() as background,
        trio.open_nursery() as serving,
    ):
        await _step(process, 2)
        background.start_soon(link.run)
        keys = world.keys
        if world.plan.features.rotates:
            keys, lifetimes = node.keys.for_worker(first)
            await trio.sleep(Random(f"{process.name} {world.plan.seed}").uniform(0.0, LONGEST_START))
            background.start_soon(forget_earlier_keys, keys, lifetimes)
        environment = _environment(node, process, first, other_workers, backends, quarantine, keys)
        worker: Worker = await serving.start(partial(run_worker, config, environment, process.stop))
        process.worker = worker
        await _step(process, 3)
        process.serves()
        node.note_serving(process)
        heartbeat = Heartbeat(worker, LastError(mask))
        dispatcher = worker.services.commands
        client = partial(run_hub_client, link, other_workers, leadership, dispatcher, heartbeat, process.stop)
        background.start_soon(client, worker.services, worker.metrics)
        link.send_nowait(messages.Ready(public_key=keys.public_pem.decode(), duty=True))
        if world.plan.features.later_version or process.version == "later":
            background.start_soon(partial(say_unknown, process.link, to_worker=True))
            background.start_soon(partial(say_unknown, link, to_worker=False))
        background.start_soon(_step, process, 4)


def _environment(
    node: Node,
    process: Process,
    first: messages.WorkerConfig,
    other_workers: HubOtherWorkers,
    stores: Backends,
    quarantine: Any,
    keys: TokenKeys,
) -> WorkerEnvironment:
    world = node.world
    backends = Backends(
        agents=Seam(process, "agents", stores.agents),
        events=Seam(process, "events", stores.events),
        commands=Seam(process, "commands", stores.commands),
        engine=Seam(process, "engine", stores.engine),
        files=world.files.store,
        presence=Seam(process, "presence", stores.presence),
    )

    async def run_blocking(fn: Callable[..., T], *args: object) -> T:
        """A key takes its time where a crowd comes."""
        if world.plan.features.crowd and getattr(fn, "__name__", "") == "_check":
            await trio.sleep(world.rng_calls.uniform(0.2, 0.8))
        return await run_inline(fn, *args)

    shared = first.listeners
    return WorkerEnvironment(
        listeners=Listeners(
            [node.ports[number].worker(process) for number in shared.api],
            [],
            [node.ports[number].worker(process) for number in shared.enrollment],
        ),
        backends=backends,
        quarantine=cast(Any, Seam(process, "quarantine", quarantine)),
        keys=keys,
        verified_keys=node.verified_keys(),
        ssl_context=None,  # type: ignore[arg-type]  # plain: handshakes aren't repeatable
        wall_clock=node.wall_clock,
        rng=Random(f"{world.plan.seed} {process.name}"),
        run_blocking=run_blocking,
        other_workers=other_workers,
        leadership=process.leadership,
    )


def check_left(process: Process) -> None:
    """A process that ended in order leaves nothing behind."""
    world, worker = process.world, process.worker
    if worker is not None and (left := list(leavings(process, worker))):
        raise Violation("leaks", f"{process.name} ended with {'; '.join(left)}")
    claims = world.stores.held(process)
    # A claim that is under way when its worker ends may be made all the same: it is free at the next look.
    unheard = world.plan.features.slow_disk and world.plan.stores == "embedded"
    unheard = unheard or process.stop.hurried.is_set()
    if claims and not unheard and not world.had_cause(60.0, _UNTOLD):
        raise Violation("leaks", f"{process.name} ended with claims on {claims}")
    delivered = [each for each in claims if each in world.commands and world.commands[each].received]
    if delivered and not unheard and not world.store_was_away("commands", UNTOLD_WITHIN):
        raise Violation("leaks", f"{process.name} ended, and the store doesn't know that {delivered} came")
