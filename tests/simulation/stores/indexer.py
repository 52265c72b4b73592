"""Our OpenSearch client against the fake indexer of ``tests/indexer``, which passes the contract suite. Faults strike
its answers, not our calls; a kill cuts a process's connections to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache, partial
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from tests.indexer.fake import error
from tests.simulation.forms.foreign import FOREIGN
from tests.simulation.injected import INDEXER_STORES
from tests.simulation.nodes.network import SimStream
from tests.simulation.plans.faults import INDEXER
from tests.simulation.stores.engine import SimEngine
from tests.simulation.stores.indexer_nodes import CALLER, PORT, IndexerNodes
from tests.simulation.stores.quarantines import MemoryQuarantines, replay_all
from wazuh_comms_trio.backends.interfaces import Agent, Backends, Command
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.memory.engine import MemoryFiles
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import Indexer, IndexerCommands, IndexerHost
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.memory import MemoryQuarantine

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = ["IndexerStores"]


@lru_cache(1000)
def _command(document_id: str, raw: bytes) -> Command:
    return Document(document_id, json.loads(raw), 0, 1, 0.0).command


class IndexerStores:
    """Shared by all nodes, but for the quarantine, of which each node has one."""

    keeps_posted = False

    def __init__(self, world: World, wall_clock: Callable[[], float], *, lease: float) -> None:
        self._left: set[str] = set()  # in the hands of processes that died
        self._lease = lease
        self._world = world
        self._clock = wall_clock
        commands = IndexerCommands(interval=0.5, idle_interval=1.0, lease=lease)
        hosts = [IndexerHost(f"10.1.0.{number}", PORT) for number in range(world.plan.indexer_nodes)]
        self._settings = Indexer(hosts=tuple(hosts), commands=commands)
        self._engine = SimEngine(world)
        self._files = MemoryFiles({"default.conf": b"default"})
        self.quarantines = MemoryQuarantines(world.plan.quarantine)
        self._opened: dict[Process, OpenSearchStores] = {}
        self._tool: OpenSearchStores
        self._fake: IndexerNodes

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._fake = IndexerNodes(nursery, self._world, self._world.is_passing)
            self._fake.faults.malformed = lambda source: self._world.is_poison(str(source.get("text")).encode())
            self._fake.faults.before = self._before
            self._fake.faults.whole = self._whole
            async with open_opensearch(
                self._settings, wall_clock=self._clock, rng=self._rng("tool"), connect=partial(self._connect, None)
            ) as self._tool:
                for fault in self._world.plan.faults:
                    if fault.kind in INDEXER:
                        nursery.start_soon(self._fake.strike, fault)
                yield
            nursery.cancel_scope.cancel()

    def _rng(self, name: str) -> Random:
        return Random(f"{self._world.plan.seed} indexer {name}")

    def _node(self, number: int) -> LocalNode | None:
        """As nodes know each other, where that is looked at."""
        if not self._world.plan.features.presence:
            return None
        return LocalNode.of(27000 + number, "", self._world.keys.kid)

    async def _before(self, method: str, path: str) -> None:
        world = self._world
        await trio.sleep(world.rng_calls.uniform(0.0002, 0.003))
        await self._fake.awake()
        fault = world.meets_any(INDEXER_STORES, CALLER.get())
        if fault is not None and fault.kind in ("slow", "hang"):
            world.trace.strike(fault.kind, "indexer", f"{method} {path[:20]}")
            end = fault.start + fault.seconds - trio.current_time()
            await trio.sleep(fault.amount if fault.kind == "slow" else max(0.0, end))

    def _whole(self, method: str, path: str) -> Any:
        world = self._world
        fault = world.meets_any(INDEXER_STORES, CALLER.get())
        if fault is None or fault.kind in ("slow", "hang"):
            return None
        world.trace.strike(fault.kind, "indexer", f"{method} {path[:20]}")
        if fault.kind == "lose answer":
            self._fake.faults.lost = 1
            return None
        if fault.kind == "full":
            return error(429, "circuit_breaking_exception", "Data too large")
        return error(503, "cluster_block_exception", "no master")

    @asynccontextmanager
    async def open_process(self, process: Process, node: int) -> AsyncIterator[tuple[Backends, MemoryQuarantine]]:
        async with AsyncExitStack() as stack:
            stores = await stack.enter_async_context(
                open_opensearch(
                    self._settings,
                    wall_clock=process.wall_clock,
                    rng=self._rng(process.name),
                    connect=partial(self._connect, process),
                    leadership=process.leadership,
                    node=self._node(node),
                )
            )
            self._opened[process] = stores
            engine = await stack.enter_async_context(self._engine.open_client(process))
            backends = Backends(stores.agents, stores.events, stores.commands, engine, self._files, stores.presence)
            yield backends, self.quarantines.of(process)

    async def _connect(self, process: Process | None, host: str, port: int) -> SimStream:
        return await self._fake.connect_from(process, host)

    @property
    def tool(self) -> Any:
        return self._tool.commands

    @property
    def registry(self) -> Any:
        return self._tool.agents

    @property
    def presence(self) -> Any:
        return self._tool.presence

    async def add_agent(self, agent: Agent) -> None:
        await self._tool.agents.add(agent)

    async def replay(self, world: World) -> None:
        tool = self._tool
        async with self._engine.open_client(None) as engine:
            backends = Backends(tool.agents, tool.events, tool.commands, engine, self._files, tool.presence)
            for quarantine in self.quarantines.all():
                await replay_all(world, backends, quarantine)

    async def documents(self) -> Mapping[tuple[str, str], bytes]:
        return {
            (name, document_id): stored.raw
            for name, index in self._fake.indices.items()
            if name.startswith("wazuh-states")
            for document_id, stored in index.documents.items()
        }

    async def commands(self) -> Mapping[str, Command]:
        return {command.document_id: command for command in await self._tool.commands.list(limit=1000)}

    def call_begins(self, place: str) -> None:
        """A call is about to be carried out."""

    def call_ends(self, place: str) -> None:
        """It was, and its answer is about to be known."""

    async def stored_commands(self) -> Mapping[str, Command]:
        """As they are, whatever faults there are."""
        await trio.lowlevel.checkpoint()
        index = self._fake.indices.get("wazuh-commands")
        stored = {} if index is None else index.documents
        return {each: _command(each, kept.raw) for each, kept in stored.items() if not each.startswith(FOREIGN)}

    def write_foreign(self, index: str, document_id: str, source: Any) -> None:
        """As another program does, by a request of its own."""
        if (there := self._fake.indices.get(index)) is not None:
            there.write(document_id, json.dumps(source).encode())

    def add_foreign(self, index: str, document_id: str, members: Mapping[str, Any]) -> None:
        """Members beside those of a document that is there."""
        there = self._fake.indices.get(index)
        if there is not None and document_id in there.documents:
            there.update(document_id, members, None)

    async def groups(self) -> Mapping[str, Sequence[str]]:
        """Nobody but the operator changes them, who knows."""
        await trio.lowlevel.checkpoint()
        return {}

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

    def held(self, process: Process) -> list[str]:
        stores = self._opened.get(process)
        return [] if stores is None else [*stores.commands._pending.held, *stores.commands._pending.busy]

    def process_died(self, process: Process) -> None:
        self._left.update(self.held(process))

    @property
    def excused(self) -> set[str]:
        """Commands that may come a second time: a process that had them died, or couldn't renew its claim for a lease,
        so that others may have taken it over."""
        if not self._world.store_was_away("commands", self._lease):
            return self._left
        now = trio.current_time()
        pending = [stores.commands._pending for stores in self._opened.values()]
        lapsed = {
            document_id
            for each in pending
            for document_id, since in each.held_since.items()
            if now - since > self._lease
        }
        return self._left | lapsed
