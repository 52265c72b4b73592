"""One simulated process: what a kill cuts, what a hang holds up, and what its calls of stores meet on the way."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from tests.simulation.injected import INDEXER_STORES, ONCE
from tests.simulation.plans.faults import LEFT, WITH_RESULT
from wazuh_comms_trio.api.agent_api import base
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.daemon.stopping import Stop
from wazuh_comms_trio.errors import BackendUnavailable, EngineRequestError, EngineTimeout, StorageFull

if TYPE_CHECKING:
    from tests.simulation.nodes.network import SimStream
    from tests.simulation.world import World
    from wazuh_comms_trio.daemon.supervisor.link import Link
    from wazuh_comms_trio.daemon.worker.tree import Worker

__all__ = ["Process", "Seam"]

T = TypeVar("T")

#: What the stores answer from memory, or on the event loop's own thread: nothing is under way meanwhile.
AT_ONCE = ("agents.changed", "agents.revoked")


class Process:
    """A worker's process. Dead, nothing that its tasks still do has an effect: they are cancelled, and what can't be
    cancelled waits in a seam until its own limit."""

    def __init__(self, world: World, node: int, slot: int, name: str) -> None:
        self.world = world
        self.node = node
        self.slot = slot
        self.name = name
        self.version = world.nodes[node].version
        self.dead = False
        self.scope = trio.CancelScope()
        self.stop = Stop()
        self.streams: set[SimStream] = set()
        self.leadership: Leadership | None = None
        self.link: Link  # the supervisor's end
        self.worker: Worker | None = None  # once it listens
        self.reading = 0  # the number of its configuration, once it has it
        self._sending = Counter[str]()
        self._uploads = Counter[str]()  # those of them that are large
        self.most_uploads = self.most_of_agent = self.most_sent = 0  # bodies at once, of one agent and of all
        self._served = math.inf  # since when, until it is told to stop, hangs or dies
        self._awake = trio.Event()
        self._awake.set()

    def wall_clock(self) -> float:
        return self.world.nodes[self.node].wall_clock()

    def serves(self) -> None:
        """Its worker is ready."""
        self._served = trio.current_time()

    @property
    def serves_since(self) -> float:
        return math.inf if self.dead or self.hangs or self.stop.requested.is_set() else self._served

    @property
    def is_starting(self) -> bool:
        """It hasn't served yet."""
        return math.isinf(self._served)

    @property
    def age(self) -> float:
        """Seconds since it served first."""
        return -math.inf if self.is_starting else trio.current_time() - self._served

    @property
    def hangs(self) -> bool:
        return not self._awake.is_set()

    def kill(self) -> None:
        """Its seams are cut first: what ``finally`` blocks do reaches nobody."""
        if self.dead:
            return
        self.dead = True
        self.world.trace.add(self.name, "is killed")
        for stream in sorted(self.streams, key=lambda each: each.number):
            stream.close()
        self.world.stores.process_died(self)
        self.note_rights()
        self._awake.set()
        self.scope.cancel()

    def note_rights(self) -> None:
        """What is on its way by its right alone may come again from another worker."""
        for document_id, owner in self.world.nodes[self.node].hub._granted.items():
            if owner.link is self.link:
                self.world.commands[document_id].excused = True

    def hang(self) -> None:
        if not self.hangs:
            self._awake = trio.Event()

    def wake(self) -> None:
        if self.hangs:
            self._awake.set()
            self._served = max(self._served, trio.current_time())

    @contextmanager
    def sending(self, agent_id: str, *, is_large: bool) -> Iterator[None]:
        """A body of an agent is given to the engine while the block runs."""
        self._sending[agent_id] += 1
        self._uploads[agent_id] += is_large
        self.most_uploads = max(self.most_uploads, self._uploads[agent_id])
        self.most_of_agent = max(self.most_of_agent, self._sending[agent_id])
        self.most_sent = max(self.most_sent, self._sending.total())
        try:
            yield
        finally:
            self._sending[agent_id] -= 1
            self._uploads[agent_id] -= is_large

    async def passable(self) -> None:
        """At every seam: returns when the process lives and runs."""
        if not self._awake.is_set():
            await self._awake.wait()  # a kill wakes, too
        if self.dead:
            await trio.sleep_forever()

    async def connected(self) -> None:
        """As ``passable``, at a stream's end: what is shielded there must not hold up the next process."""
        if not self._awake.is_set():
            await self._awake.wait()
        if self.dead:
            raise trio.BrokenResourceError("the process is dead")


class Seam:
    """A store as one process has it: ``Seam(process, "events", store)`` has the store's methods."""

    def __init__(self, process: Process, place: str, target: Any) -> None:
        self._process = process
        self._place = place
        self._target = target
        self._turns: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not iscoroutinefunction(method):  # a property, a context manager, a generator, or a word from memory
            return method
        place = f"{self._place}.{name}"

        async def call(*args: Any, **options: Any) -> Any:
            # Look-ups of one agent end in order: a store that is slow to know it is so for all of its requests.
            async with self._turns[args[0]] if place == "agents.lookup" else nullcontext():
                with self._counted(place, options):
                    return await self._call(place, lambda: method(*args, **options))

        setattr(self, name, call)
        return call

    def _counted(self, place: str, options: Mapping[str, Any]) -> AbstractContextManager[None]:
        if place != "engine.send_events":
            return nullcontext()
        length = options["length"]
        return self._process.sending(options["agent_id"], is_large=length is None or length > base.TRANSFER_BYTES)

    async def _call(self, place: str, apply: Callable[[], Awaitable[T]]) -> T:
        process, world = self._process, self._process.world
        await trio.lowlevel.checkpoint_if_cancelled()  # then nothing has begun; a turn is taken further down
        await process.passable()
        only = (*ONCE, *LEFT) if world.plan.stores == "indexer" and self._place in INDEXER_STORES else None
        fault = None if place.endswith("wait_news") else world.meets(place, process, only)
        if fault is None:
            if not place.endswith(("wait_news", "send_events")) and place not in AT_ONCE:
                await self._wait(world.rng_calls.uniform(0.0002, 0.003), place, apply)
            world.stores.call_begins(place)
            result = await apply()
            world.stores.call_ends(place)
            await process.passable()
            return result
        if fault.kind in LEFT:
            result = await apply()
            await self._leave(result)
            await process.passable()
            return result
        if fault.kind == "die" and fault.amount >= WITH_RESULT and not (result := await apply()):
            world.spare(fault)
            return result
        world.trace.strike(fault.kind, place, process.name)
        if fault.kind == "fail":
            await trio.sleep(min(fault.amount, 0.5))
            raise _failure(self._place)
        if fault.kind == "full":
            await trio.lowlevel.checkpoint()
            raise StorageFull
        if fault.kind == "die":  # at the worst moments: before it is carried out, and when nobody knows yet that it was
            if 0.1 < fault.amount < WITH_RESULT:
                await apply()
            process.kill()
            await process.passable()
        if fault.kind == "told to stop":  # which gives it the time to end what it has begun
            node = world.nodes[process.node]
            if node.is_up:
                node.stop()
            await self._wait(fault.amount, place, apply)
            return await apply()
        # What a registry has read it answers from memory from then on, before who has it read knows it.
        if fault.kind == "slow" and self._place != "agents" and world.rng_calls.random() < 0.5:
            return await self._late(fault.amount, place, await apply())
        if fault.kind == "slow":
            await self._wait(fault.amount, place, apply)
            return await apply()
        if fault.kind == "hang":
            await self._wait(max(0.0, fault.start + fault.seconds - trio.current_time()), place, apply)
            return await apply()
        await self._unheard(place, await apply())  # "lose answer"
        raise _failure(self._place, answer=True)

    async def _unheard(self, place: str, result: Any) -> None:
        """By contract what a process has claimed without learning of it is its own to take again."""
        if place != "commands.claim":
            return
        while True:  # a disk that is full just now must not keep them claimed by a process that lives on
            try:
                await self._target.release([command.document_id for command in result])
            except BackendUnavailable:
                await trio.sleep(0.5)
            else:
                return

    async def _leave(self, claimed: Any) -> None:
        """Those leave for whom there is something, which our side may know before it is offered to them, or after."""
        world, agents = self._process.world, {command.target.id for command in claimed}
        for agent in (each for each in world.agents if each.uuid in agents):
            for _, poll in agent.polls:
                connection = poll.connection
                if connection is None or connection.replied or connection.server.process is not self._process:
                    continue
                world.trace.strike("polls leave", self._place, agent.name)
                connection.cut()
        await trio.lowlevel.checkpoint()

    async def _late(self, seconds: float, place: str, result: T) -> T:
        """The call is carried out, and its answer is what comes late: others are carried out meanwhile."""
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            with trio.move_on_after(1.0, shield=True), suppress(BackendUnavailable):
                await self._unheard(place, result)
            raise
        await self._process.passable()
        return result

    async def _wait(self, seconds: float, place: str, apply: Callable[[], Awaitable[object]]) -> None:
        """The call is under way. Who is cancelled doesn't know whether it was carried out."""
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            if self._place != "engine" and self._process.world.rng_calls.random() < 0.5:
                with trio.move_on_after(1.0, shield=True):  # who isn't the leader waits in ``expire`` until it is
                    self._process.world.trace.strike("applied all the same", self._place, self._process.name)
                    with suppress(BackendUnavailable):
                        await self._unheard(place, await apply())
            raise


def _failure(place: str, *, answer: bool = False) -> BackendUnavailable:
    if place == "engine":
        return EngineTimeout() if answer else EngineRequestError()
    return BackendUnavailable("injected")
