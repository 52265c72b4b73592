"""A node: the hub, the workers with their links, and what the supervisor does for them: it starts them, starts them
again, kills those that hang, reloads and stops. Worker trees, hub, links and their clients are the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio
from attrs import evolve

from tests.simulation.checks.leavings import leavings
from tests.simulation.determinism import EPOCH
from tests.simulation.nodes.later_version import say_unknown
from tests.simulation.nodes.network import NodeListener, process_stream_pair
from tests.simulation.nodes.process import Process, Seam
from tests.simulation.nodes.token_keys import Signing
from tests.simulation.nodes.versions import VERSION, Version
from tests.simulation.plans.faults import CALLS, DISK, INDEX, NODES, POWER
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.listeners import Listeners
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.generation import HUNG_AFTER
from wazuh_comms_trio.daemon.supervisor.hub import Hub, Member
from wazuh_comms_trio.daemon.supervisor.link import Link
from wazuh_comms_trio.daemon.worker.environment import WorkerEnvironment, forget_earlier_keys
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.daemon.worker.hub_client import HubLeadership, HubOtherWorkers, run_hub_client
from wazuh_comms_trio.daemon.worker.tree import Worker, run_worker
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME, VerifiedKeys
from wazuh_comms_trio.testing.node.daemon import run_inline

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Node"]

T = TypeVar("T")

#: Seconds from a stop to the tree's end, beyond ``shutdown.grace``: draining, telling the store, sends under a shield.
STOP_BOUND = 20.0
#: Seconds that a worker takes to start, once it has its keys: what others learn meanwhile it isn't told before.
LONGEST_START = 0.8
#: By what a store may not learn what became of claims, however orderly their process ends.
_UNTOLD = (*CALLS, *DISK, *INDEX, *NODES, *POWER, "hang worker")
#: Seconds for which a worker that stops waits for it to take note, and a pause between two tries.
UNTOLD_WITHIN = 8.0


class Node:
    """``is_up``: it listens."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"node{number}"
        self.clock_offset = 0.0
        self.hub = Hub()
        self.listener = NodeListener()
        self.listener.close()
        self.running: dict[Process, tuple[Member, Worker | None]] = {}
        self.generation = 0
        self.pause = 1.0  # until it is started again
        self.last_death = -1e9  # of one of its workers
        self.drained_at = inf  # since when it is, for its balancers
        self.version: Version = world.plan.first_version  # of the program that is installed
        self.enrollment = NodeListener()
        self.enrollment.close()
        self._verified = world.scratch_folder(f"verified{number}") if world.plan.features.earlier_keys else None
        #: Where the keys of its tokens change: those, and what each generation has of them.
        self.keys = world.signing_keys(number)
        self._signing: dict[int, Signing] = {}
        self._configs: dict[int, Config] = {}

    def wall_clock(self) -> float:
        return EPOCH + trio.current_time() + self.clock_offset

    @property
    def is_up(self) -> bool:
        return not self.listener.closed

    # --- the whole node

    async def run(self) -> None:
        """One life of the node, until ``stop`` or ``kill``."""
        self.hub, self.listener, self.drained_at = Hub(), NodeListener(), inf
        if self.world.plan.features.enrols:
            self.enrollment = NodeListener()
        if self.keys is not None:
            self.keys.begin_life(self.hub)
        self._stopping = False
        self.world.trace.add(self.name, "starts")
        with trio.CancelScope() as self._scope:
            async with BackgroundNursery() as background:
                background.start_soon(self.hub.run)
                background.start_soon(self._kill_hanging)
                self._background = background
                async with trio.open_nursery() as self._slots:
                    await self._start_generation()
        self._stop_listening()
        self.world.trace.add(self.name, "has ended")

    def _stop_listening(self) -> None:
        self.listener.close()
        self.enrollment.close()

    def kill(self) -> None:
        """The supervisor and all workers at once."""
        self._stopping = True
        self._stop_listening()
        for process in list(self.running):
            process.kill()
        self._scope.cancel()

    def stop(self) -> None:
        self._stopping = True
        self._stop_listening()
        self.world.trace.add(self.name, "is stopped")
        self._tell_to_stop(list(self.running), None)

    async def reload(self) -> None:
        """A new generation of workers, then the old one is told to stop."""
        if self._stopping:
            return
        self.world.trace.add(self.name, "reloads")
        background = self._background
        if old := await self._start_generation():
            background.start_soon(self._replace, old)

    async def _replace(self, old: list[Process]) -> None:
        generation = self.generation
        workers = self._configs[generation].communications_api.workers
        serving = 0
        while serving < workers and generation == self.generation:  # else they are replaced with the next one
            await trio.sleep(0.05)
            serving = sum(member.in_service for member, _ in self.running.values() if member.generation == generation)
        if serving >= workers:
            self._tell_to_stop(old, 30.0)

    def _tell_to_stop(self, processes: list[Process], grace: float | None) -> None:
        for process in processes:
            if process in self.running:
                member, _ = self.running[process]
                self.hub.dismiss(member)
                member.link.send_nowait(messages.Stop(spread=0.0, grace=grace))
                self._background.start_soon(self._watch_stop, process, 10.0 if grace is None else grace)

    async def _watch_stop(self, process: Process, grace: float) -> None:
        with trio.move_on_after(grace + STOP_BOUND):
            while process in self.running:  # noqa: ASYNC110  # nothing tells
                await trio.sleep(0.25)
            return
        if not process.hangs:
            raise Violation("stops", f"{process.name} was told to stop {grace + STOP_BOUND:.0f} s ago")
        process.kill()

    def drain(self) -> None:
        self.drained_at = trio.current_time()
        self.hub.drain(True)

    def end_drain(self) -> None:
        self.drained_at = inf
        self.hub.drain(False)

    # --- workers

    async def _start_generation(self) -> list[Process]:
        """Returns the workers that there are besides: none where the node stops meanwhile."""
        hub, slots, signing = self.hub, self._slots, None
        if self.keys is not None:
            signing = await self.keys.next_generation()
            if self._stopping or hub is not self.hub:
                return []
        self.generation += 1
        if signing is not None:
            self._signing[self.generation] = signing
        self._configs[self.generation] = config = self.world.config_of(self.number, self.generation)
        old = list(self.running)
        for slot in range(config.communications_api.workers):
            slots.start_soon(self._keep_worker, slot, self.generation)
        return old

    async def _keep_worker(self, slot: int, generation: int) -> None:
        life = 0
        if self.running:  # a reload: some are quicker than others
            await trio.sleep(Random(f"{self.world.plan.seed} start {generation} {slot}").uniform(0.0, 1.0))
        while not self._stopping and generation == self.generation:
            life += 1
            process = Process(self.world, self.number, slot, f"{self.name}.{generation}.{slot}.{life}")
            await self._run_process(process, generation)
            if not self._stopping:
                await trio.sleep(0.5)

    async def _run_process(self, process: Process, generation: int) -> None:
        ours_stream, theirs_stream = process_stream_pair()
        theirs_stream.belongs_to(process)
        theirs_stream.is_link = True
        ours, theirs = Link(ours_stream), Link(theirs_stream)
        member = Member(process.name, ours, generation)
        self.running[process] = member, None
        try:
            async with BackgroundNursery() as hub_side:
                hub_side.start_soon(ours.run)
                hub_side.start_soon(self.hub.serve, member)
                async with trio.open_nursery() as own:
                    own.start_soon(self._live_or_die, process, theirs, member)
        finally:
            if not process.dead:
                self._check_left(process)
                process.dead = True
                self.world.stores.process_died(process)
            del self.running[process]
            self.last_death = trio.current_time()

    async def _live_or_die(self, process: Process, link: Link, member: Member) -> None:
        try:
            await self._live(process, link, member)
        except BaseExceptionGroup as errors:
            if not process.dead:
                raise
            if (others := errors.split(Exception)[1]) is not None:  # an error of a dead process nobody hears
                raise others from None

    async def _live(self, process: Process, link: Link, member: Member) -> None:
        """In the worker's process."""
        self.world.process.set(process)
        VERSION.set(process.version)
        other_workers, leadership = HubOtherWorkers(link), HubLeadership(link)
        process.leadership = leadership
        with process.scope:
            async with (
                self.world.stores.open_process(process, self.number) as (backends, quarantine),
                BackgroundNursery() as background,
                trio.open_nursery() as serving,
            ):
                environment = self._environment(process, other_workers, backends, quarantine)
                background.start_soon(link.run)
                if (signing := self._signing.get(member.generation)) is not None:
                    keys, lifetimes = signing.for_worker()
                    await trio.sleep(Random(f"{process.name} {self.world.plan.seed}").uniform(0.0, LONGEST_START))
                    background.start_soon(forget_earlier_keys, keys, lifetimes)
                    environment = evolve(environment, keys=keys)
                tree = partial(run_worker, self._configs[member.generation], environment, process.stop)
                worker: Worker = await serving.start(tree)
                self.running[process] = member, worker
                process.serves()
                heartbeat = Heartbeat(worker, LastError(mask))
                dispatcher = worker.services.commands
                client = partial(run_hub_client, link, other_workers, leadership, dispatcher, heartbeat, process.stop)
                background.start_soon(client, worker.services, worker.metrics)
                link.send_nowait(messages.Ready(public_key="", duty=True))
                if signing is not None:
                    await signing.note_serving()
                if self.world.plan.features.later_version or process.version == "later":
                    background.start_soon(partial(say_unknown, member.link, to_worker=True))
                    background.start_soon(partial(say_unknown, link, to_worker=False))

    def _environment(
        self, process: Process, other_workers: HubOtherWorkers, stores: Backends, quarantine: Any
    ) -> WorkerEnvironment:
        backends = Backends(
            agents=Seam(process, "agents", stores.agents),
            events=Seam(process, "events", stores.events),
            commands=Seam(process, "commands", stores.commands),
            engine=Seam(process, "engine", stores.engine),
            files=self.world.files.store,
            presence=Seam(process, "presence", stores.presence),
        )
        return WorkerEnvironment(
            listeners=Listeners(
                [self.listener.worker(process)],
                [],
                [self.enrollment.worker(process)] if self.world.plan.features.enrols else [],
            ),
            backends=backends,
            quarantine=cast(Any, Seam(process, "quarantine", quarantine)),
            keys=self.world.keys,
            verified_keys=None
            if self._verified is None
            else VerifiedKeys(self._verified / FILE_NAME, self.world.keys.derive(b"verified")),
            ssl_context=None,  # type: ignore[arg-type]  # plain: handshakes aren't repeatable
            wall_clock=self.wall_clock,
            rng=Random(f"{self.world.plan.seed} {process.name}"),
            run_blocking=self._run_blocking,
            other_workers=other_workers,
            leadership=process.leadership,
        )

    async def _run_blocking(self, fn: Callable[..., T], *args: object) -> T:
        """A key takes its time where a crowd comes."""
        if self.world.plan.features.crowd and getattr(fn, "__name__", "") == "_check":
            await trio.sleep(self.world.rng_calls.uniform(0.2, 0.8))
        return await run_inline(fn, *args)

    def _check_left(self, process: Process) -> None:
        """A process that ended in order leaves nothing behind."""
        _, worker = self.running[process]
        if worker is not None and (left := list(leavings(process, worker))):
            raise Violation("leaks", f"{process.name} ended with {'; '.join(left)}")
        claims = self.world.stores.held(process)
        # A claim that is under way when its worker ends may be made all the same: it is free at the next look.
        unheard = self.world.plan.features.slow_disk and self.world.plan.stores == "embedded"
        if claims and not unheard and not self.world.had_cause(60.0, _UNTOLD):
            raise Violation("leaks", f"{process.name} ended with claims on {claims}")
        delivered = [each for each in claims if each in self.world.commands and self.world.commands[each].received]
        if delivered and not self.world.store_was_away("commands", UNTOLD_WITHIN):
            raise Violation("leaks", f"{process.name} ended, and the store doesn't know that {delivered} came")

    async def _kill_hanging(self) -> None:
        while True:
            await trio.sleep(1)
            for process, (member, _) in list(self.running.items()):
                stopping = process.stop.requested.is_set()  # maybe since its link is gone
                if (
                    not process.dead
                    and member.ready.is_set()
                    and not stopping
                    and trio.current_time() - member.heard > HUNG_AFTER
                ):
                    if not process.hangs:
                        raise Violation("heartbeats", f"{process.name} runs, and wasn't heard for {HUNG_AFTER} s")
                    process.kill()
