"""The stores that all nodes share, and that outlive every one of them: the memory stores, but with claims that belong
to a process and end when it does, and news of commands and of agents for each process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

from tests.simulation.stores.quarantines import MemoryQuarantines, replay_all
from tests.simulation.stores.shards import shard_of
from wazuh_comms_trio.backends.interfaces import Agent, Backends, Command, DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.memory.commands import MemoryCommands
from wazuh_comms_trio.backends.memory.engine import MemoryFiles
from wazuh_comms_trio.backends.memory.stores import MemoryAgents, MemoryEvents, MemoryPresence
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.stores.engine import SimEngine
    from tests.simulation.world import World

__all__ = ["MemoryStores"]


class Claims(dict[str, "Process | None"]):
    """Document id -> who has it; None: a dead process, until its lease is over."""

    def discard(self, document_id: str) -> None:
        self.pop(document_id, None)

    def __ior__(self, other: Any) -> Any:
        return self  # ``OwnCommands.claim`` enters the owner


class SharedCommands(MemoryCommands):
    """``claimed`` knows the owners. ``excused``: commands that were in the hands of a process that died, and may come a
    second time."""

    def __init__(self, agents: MemoryAgents, wall_clock: Callable[[], float], lease: float) -> None:
        super().__init__(agents, wall_clock)
        self.claimed: Any = Claims()
        self.own: list[OwnCommands] = []
        self.excused: set[str] = set()
        self.lease = lease
        self.nursery: trio.Nursery | None = None

    def _announce(self, agent_id: str) -> None:
        for own in self.own:
            own.announce(agent_id)

    def free_agents(self) -> set[str]:
        return {command.target.id for command in self.stored.values() if self._is_free(command)}

    def process_died(self, process: Process) -> None:
        held = [document_id for document_id, owner in self.claimed.items() if owner is process]
        self.excused.update(held)
        self.own = [own for own in self.own if own.process is not process]
        for document_id in held:
            self.claimed[document_id] = None
        if held and self.nursery is not None:
            self.nursery.start_soon(self._end_leases, held)

    async def _end_leases(self, held: Sequence[str]) -> None:
        await trio.sleep(self.lease)
        for document_id in held:
            if document_id in self.claimed and self.claimed[document_id] is None:
                del self.claimed[document_id]
                if (command := self.stored.get(document_id)) is not None and command.status == "pending":
                    self._announce(command.target.id)


class OwnCommands:
    """``CommandStore`` of one process on the shared one."""

    def __init__(self, shared: SharedCommands, process: Process) -> None:
        self.shared = shared
        self.process = process
        self.keeps_posted = shared.keeps_posted
        self._news = shared.free_agents()
        self._arrived = trio.Event()
        shared.own.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shared, name)

    def announce(self, agent_id: str) -> None:
        self._news.add(agent_id)
        self._arrived.set()

    async def wait_news(self) -> Collection[str]:
        while True:
            if not self._news:
                self._arrived = trio.Event()
                await self._arrived.wait()
            news, self._news = self._news & self.shared.free_agents(), set()
            if news:
                return news

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        commands = await self.shared.claim(agent_ids)
        for command in commands:
            if not self.process.dead:
                self.shared.claimed[command.document_id] = self.process
        return commands

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        await self.shared.mark_sent(document_ids)

    async def release(self, document_ids: Collection[str]) -> None:
        mine = [each for each in document_ids if self.shared.claimed.get(each) is self.process]
        await self.shared.release(mine)


class _Changed(set[str]):
    """Of the registry that is shared: each process is told of a change, and of each once."""

    def __init__(self) -> None:
        super().__init__()
        self.of_processes: list[set[str]] = []

    def add(self, agent_id: str) -> None:
        for changed in self.of_processes:
            changed.add(agent_id)


class SharedAgents(MemoryAgents):
    def __init__(self) -> None:
        super().__init__()
        self._changed: _Changed = _Changed()

    @contextmanager
    def opened(self) -> Iterator[OwnAgents]:
        """For a process, until it ends."""
        changed = set[str]()
        self._changed.of_processes.append(changed)
        try:
            yield OwnAgents(self, changed)
        finally:
            self._changed.of_processes[:] = [each for each in self._changed.of_processes if each is not changed]


class OwnAgents:
    """``AgentRegistry`` of one process on the shared one."""

    def __init__(self, shared: SharedAgents, changed: set[str]) -> None:
        self._shared = shared
        self._news = changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared, name)

    async def changed(self) -> Collection[str]:
        await self._shared.faults.strike("changed")
        changed = set(self._news)
        self._news.clear()
        return changed


class MemoryStores:
    """Shared by all nodes, but for the quarantine, of which each node has one. ``is_passing``: whether this shard of
    the index takes nothing now; ``is_poison``: whether it takes this body never."""

    def __init__(
        self,
        wall_clock: Callable[[], float],
        *,
        lease: float,
        keeps_posted: bool,
        is_passing: Callable[[int], bool],
        is_poison: Callable[[bytes], bool],
        engine: SimEngine,
        quarantine_bytes: int,
    ) -> None:
        self.keeps_posted = keeps_posted
        self._agents = SharedAgents()
        self._presence = MemoryPresence(self._agents.stored, wall_clock)
        self._commands = SharedCommands(self._agents, wall_clock, lease)
        self._commands.keeps_posted = keeps_posted
        self._agents.serve(self._commands)
        self._events = MemoryEvents()
        self._events.judge = _judge(is_passing, is_poison)
        self._engine = engine
        self._files = MemoryFiles({"default.conf": b"default"})
        self.quarantines = MemoryQuarantines(quarantine_bytes)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with BackgroundNursery() as nursery:
            self._commands.nursery = nursery
            yield

    @asynccontextmanager
    async def open_process(self, process: Process, node: int) -> AsyncIterator[tuple[Backends, MemoryQuarantine]]:
        own = OwnCommands(self._commands, process)
        quarantine = self.quarantines.of(process)
        async with self._engine.open_client(process) as engine:
            with self._agents.opened() as agents:
                stores = (cast(Any, agents), self._events, cast(Any, own), engine, self._files, self._presence)
                yield Backends(*stores), quarantine

    @property
    def tool(self) -> SharedCommands:
        return self._commands

    @property
    def registry(self) -> MemoryAgents:
        return self._agents

    @property
    def presence(self) -> MemoryPresence:
        return self._presence

    @property
    def excused(self) -> set[str]:
        return self._commands.excused

    async def add_agent(self, agent: Agent) -> None:
        await self._agents.add(agent)

    async def replay(self, world: World) -> None:
        async with self._engine.open_client(None) as engine:
            backends = Backends(self._agents, self._events, self._commands, engine, self._files, self._presence)
            for quarantine in self.quarantines.all():
                await replay_all(world, backends, quarantine)

    async def documents(self) -> Mapping[tuple[str, str], bytes]:
        return {key: document.body for key, document in self._events.documents.items()}

    async def commands(self) -> Mapping[str, Command]:
        return self._commands.stored

    def call_begins(self, place: str) -> None:
        """A call is about to be carried out."""

    def call_ends(self, place: str) -> None:
        """It was, and its answer is about to be known."""

    async def stored_commands(self) -> Mapping[str, Command]:
        """As they are, whatever faults there are."""
        return self._commands.stored

    async def groups(self) -> Mapping[str, Sequence[str]]:
        """By agent, as the registry has them."""
        return {agent.id: agent.groups for agent in self._agents.stored.values()}

    def bodies(self) -> bytes:
        return b"\n".join(self._engine.bodies)

    async def quarantined(self) -> list[tuple[str, bytes]]:
        return self.quarantines.rejected()

    def quarantine_used(self, agent_id: str | None) -> Sequence[int]:
        return self.quarantines.used(agent_id)

    async def quarantine(self, rejected: Sequence[Rejected]) -> None:
        await self.quarantines.add(rejected)

    async def drop_quarantined(self, agent_id: str) -> Sequence[bytes]:
        return await self.quarantines.drop_of(agent_id)

    def held(self, process: Process | None) -> list[str]:
        """What a process has claimed; None: those that have died, until the end of their leases."""
        return [document_id for document_id, owner in self._commands.claimed.items() if owner is process]

    def process_died(self, process: Process) -> None:
        self._commands.process_died(process)


def _judge(
    is_passing: Callable[[int], bool], is_poison: Callable[[bytes], bool]
) -> Callable[[DocumentOperation], ItemResult | None]:

    def judge(operation: DocumentOperation) -> ItemResult | None:
        if operation.body is not None and is_poison(operation.body):
            return ItemResult(400, "failed to parse: poison", Outcome.REFUSED)
        if is_passing(shard_of(operation.document_id)):
            return ItemResult(429, "rejected execution", Outcome.PASSING)
        return None

    return judge
