"""The embedded stores of one node, the real ones, on a memory file system."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import apsw
import trio
from attrs import evolve

from tests.simulation.checks.backups import check_backup, check_damages, check_left, check_whole, move, segment_bodies
from tests.simulation.loop.inline import PROCESS, is_dead
from tests.simulation.nodes.versions import VERSION
from tests.simulation.plans.faults import DISK, METHODS
from tests.simulation.plans.limits import KEEP
from tests.simulation.stores.disk import Disk
from tests.simulation.stores.earlier_state import write_earlier
from tests.simulation.stores.quarantines import drop_of, replay_all
from tests.simulation.stores.scratch import own_folder
from tests.simulation.stores.tool import Tool
from wazuh_comms_trio.backends.embedded.command_rows import COLUMNS, decode
from wazuh_comms_trio.backends.embedded.group_expansion import hidden
from wazuh_comms_trio.backends.embedded.ndjson.engine import open_engine
from wazuh_comms_trio.backends.embedded.state_lock import hold_state
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Agent, Backends, Command
from wazuh_comms_trio.backends.memory.engine import MemoryEngine, MemoryFiles
from wazuh_comms_trio.config.models import Config, EmbeddedEvents
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.store import open_quarantine_store

if TYPE_CHECKING:
    from tests.simulation.nodes.node import Node
    from tests.simulation.nodes.process import Process
    from tests.simulation.plans.faults import Fault
    from tests.simulation.world import World

__all__ = ["EmbeddedStores"]


@lru_cache(1000)
def _command(row: tuple[Any, ...]) -> Command:
    """Most are as they were when they were looked at last."""
    return decode(row)


class EmbeddedStores:
    """Everything of one node, on a disk that is gone at the end. The operator's tool has stores of its own, closed
    while the machine is off."""

    keeps_posted = True

    def __init__(self, world: World) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stores-", dir=own_folder()))
        self.excused: set[str] = set()
        self.disk = Disk(
            self.folder,
            Random(f"{world.plan.seed} disk"),
            is_exempt=lambda: PROCESS.get() is None or is_dead(),
            meets=self._meets,
            on_cut=self._power_goes,
        )
        self._world = world
        self._armed_for = ""
        self._goes_after: dict[str, Fault] = {}  # by the call after which the power does
        self._moves = self._node_is_down = False
        api = world.config.communications_api
        embedded = evolve(api.embedded, path=self.folder)
        self._config = Config(evolve(api, backend="embedded", embedded=embedded))
        self._rng = Random(f"{world.plan.seed} power")
        self.rng_tool = Random(f"{world.plan.seed} tool") if world.has_earlier_state else None
        self.rng_kills = Random(f"{world.plan.seed} kills") if world.plan.features.tool_killed else None
        self._tokens: dict[Process, str] = {}
        self._read: dict[str, tuple[object, Any]] = {}  # what was read last, at which version of the file
        self._tool: SqliteStores
        self._quarantine: Any
        self._open, self._closing, self._closed = trio.Event(), trio.Event(), trio.Event()
        self._users, self._unused = 0, trio.Event()

    # --- the machine

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        world = self._world
        with self.disk.mounted():
            try:
                if world.has_earlier_state:
                    write_earlier(world, self.folder)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_tool)
                    await self._open.wait()
                    yield
                    self._end = True
                    self._closing.set()
                fails = any(fault.kind in DISK for fault in world.plan.faults)
                check_left(self.folder, tears_logs=fails or world.power_went > 0)
                if not fails:
                    check_whole(self._config)
                async for said in check_damages(self._config, self._rng, world.plan.damages):
                    world.trace.strike("damage", said, "disk")
            finally:
                shutil.rmtree(self.folder)

    async def _run_tool(self) -> None:
        VERSION.set(self._world.plan.first_version)
        self._end = False
        clock = self._world.agents_clock
        while not self._end:
            async with AsyncExitStack() as stack:
                stack.enter_context(hold_state(self.folder))
                self._tool = await stack.enter_async_context(open_sqlite(self.folder, wall_clock=clock))
                self._quarantine = await stack.enter_async_context(
                    open_quarantine_store(
                        self.folder / "quarantine", max_bytes=self._world.plan.quarantine, wall_clock=clock
                    )
                )
                self._closing, self._closed = trio.Event(), trio.Event()
                self._open.set()
                await self._closing.wait()
                if self._open.is_set():
                    self._open = trio.Event()
                while self._users:
                    self._unused = trio.Event()
                    await self._unused.wait()
            self._closed.set()
            if self.disk.image is not None:
                self.disk.come_back()
            if self._moves and self._node_is_down:  # not where the tool alone has ended
                self._moves = False
                self._world.trace.add("operator", f"puts {move(self._config)} rows and records back")

    @asynccontextmanager
    async def used(self) -> AsyncIterator[SqliteStores]:
        """The tool's stores, once the machine is on; it is off later than this is left."""
        while not self._open.is_set():
            await self._open.wait()
        self._users += 1
        try:
            yield self._tool
        finally:
            self._users -= 1
            self._unused.set()

    def power_cut(self, node: Node, fault: Fault) -> None:
        """With one of the next writes, of any call or of the next one of a kind; or a moment after that one's end."""
        self._node = node
        number = int(fault.amount * 1000)
        if fault.place:
            self._goes_after[fault.place] = fault
        elif fault.alone:
            self._armed_for = METHODS[number % len(METHODS)]
        else:
            self.disk.arm(1 + number % 40)

    def call_begins(self, place: str) -> None:
        """A call is about to be carried out."""
        if place == self._armed_for:
            self._armed_for = ""
            self.disk.arm(1 + self._rng.randrange(4))

    def call_ends(self, place: str) -> None:
        """It was, and its answer is about to be known."""
        if self._world.faults_ended is None and (fault := self._goes_after.pop(place, None)) is not None:
            self._world.nursery.start_soon(self._go_after, fault.amount)

    async def _go_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        if self._node.is_up:
            self.disk.cut()

    def _power_goes(self) -> None:
        world = self._world
        world.trace.strike("power cut", "disk", self._node.name)
        world.power_went = trio.current_time()
        for life in world.commands.values():
            life.excused = True  # what wasn't synced of its delivery is forgotten
        for agent in world.agents:
            agent.groups.unsettle()
        self._open = trio.Event()
        world.tail.end()
        self._node.kill()

    def move(self) -> None:
        """When the node has ended its state is put back from a backup, before the node starts again."""
        self._moves = True

    async def take_backup(self) -> None:
        """While the node serves."""
        async with self.used():
            if self.disk.image is None:
                self._world.trace.add("operator", f"has a backup of {check_backup(self._config)} rows and records")

    async def replay(self, world: World) -> None:
        async with self.used() as stores:
            files, engine = MemoryFiles({}), MemoryEngine()
            backends = Backends(stores.agents, stores.events, stores.commands, engine, files, stores.presence)
            await replay_all(world, backends, self._quarantine)

    async def node_ended(self) -> None:
        """After a power cut: all that was unsaid is lost, before the node starts again."""
        if self.disk.image is not None or self._moves:
            self._node_is_down = True
            self._closing.set()
            await self._closed.wait()
            await self._open.wait()
            self._node_is_down = False

    async def tool_ended(self) -> None:
        """The tool's process, whose call failed: what it began with is others' to go on with, and the next one's."""
        if self._open.is_set() and not self._closing.is_set():
            self._closing.set()
            await self._closed.wait()

    def _meets(self, call: str) -> str | None:
        process = PROCESS.get()
        assert process is not None
        fault = self._world.meets("disk", process)
        if fault is None:
            return None
        self._world.trace.strike(fault.kind, call, process.name)
        return fault.kind.removeprefix("disk ")

    # --- as a process has them

    @asynccontextmanager
    async def open_process(self, process: Process, node: object) -> AsyncIterator[tuple[Backends, Any]]:
        PROCESS.set(process)
        features = self._world.plan.features
        async with AsyncExitStack() as stack:
            stack.enter_context(hold_state(self.folder))
            sqlite = await stack.enter_async_context(
                open_sqlite(
                    self.folder,
                    wall_clock=process.wall_clock,
                    tolerant=True,
                    leadership=process.leadership,
                    keep=KEEP if features.prunes else None,
                    documents=self._world.quota.settings if features.small_quota else None,
                )
            )
            self._tokens[process] = sqlite.commands._process_lock.token
            engine = await stack.enter_async_context(
                open_engine(
                    self.folder / "events",
                    self._world.event_quota.settings
                    if features.small_events
                    else EmbeddedEvents(max_file_bytes=self._world.plan.segment),
                    wall_clock=process.wall_clock,
                    count_agents=sqlite.agents.count if features.small_events else None,
                    database=sqlite.database,
                )
            )
            quarantine = await stack.enter_async_context(
                open_quarantine_store(
                    self.folder / "quarantine",
                    max_bytes=self._world.plan.quarantine,
                    wall_clock=process.wall_clock,
                    tolerant=True,
                )
            )
            files = MemoryFiles({"default.conf": b"default"})
            yield Backends(sqlite.agents, sqlite.events, sqlite.commands, engine, files, sqlite.presence), quarantine

    def reader(self) -> apsw.Connection | None:
        """The tool's; None while the machine is off."""
        return self._tool.database._connections.loop_reader

    def held(self, process: Process) -> list[str]:
        reader = self.reader()
        token = self._tokens.get(process)
        if reader is None or token is None:
            return []
        return [row[0] for row in reader.execute("SELECT id FROM commands WHERE owner = ?", (token,))]

    def process_died(self, process: Process) -> None:
        self.excused.update(self.held(process))

    # --- as the operator has them

    @property
    def tool(self) -> Any:
        return Tool(self, "commands")

    @property
    def registry(self) -> Any:
        return Tool(self, "agents")

    @property
    def presence(self) -> Any:
        return Tool(self, "presence")

    @property
    def events(self) -> Any:
        return Tool(self, "events")

    async def add_agent(self, agent: Agent) -> None:
        async with self.used() as stores:
            await stores.agents.add(agent)

    async def documents(self) -> Mapping[tuple[str, str], bytes]:
        query = "SELECT indices.name, documents.id, body FROM documents JOIN indices ON index_no = indices.no"

        async def read(stores: SqliteStores) -> Any:
            rows = await stores.database.read(lambda connection: connection.execute(query).fetchall())
            return {(name, document_id): bytes(body) for name, document_id, body in rows}

        return await self._read_once("documents", read)

    async def commands(self) -> Mapping[str, Command]:
        async def read(stores: SqliteStores) -> Any:
            return {command.document_id: command for command in await stores.commands.list(limit=100_000)}

        return await self._read_once("commands", read)

    async def groups(self) -> Mapping[str, Sequence[str]]:
        """By agent, as the registry has them."""

        async def read(stores: SqliteStores) -> Any:
            return {agent.id: agent.groups for agent in await stores.agents.list()}

        return await self._read_once("groups", read) if self._open.is_set() else {}

    async def _read_once(self, what: str, read: Callable[[SqliteStores], Awaitable[Any]]) -> Any:
        """Again only when the file has changed since."""
        async with self.used() as stores:
            reader = stores.database._connections.loop_reader
            if reader is None:
                return await read(stores)
            version = reader, reader.pragma("data_version")
            if what not in self._read or self._read[what][0] != version:
                self._read[what] = version, await read(stores)
            return self._read[what][1]

    async def stored_commands(self) -> Mapping[str, Command]:
        """As they are, whatever faults there are; none while the machine is off."""

        def select(connection: apsw.Connection) -> list[tuple[Any, ...]]:
            condition, values = hidden(connection)
            return connection.execute(f"SELECT {COLUMNS} FROM commands WHERE NOT ({condition})", values).fetchall()

        async def read(stores: SqliteStores) -> Any:
            return {row[0]: _command(row) for row in await stores.database.read(select)}

        return await self._read_once("stored commands", read) if self._open.is_set() else {}

    def bodies(self) -> bytes:
        return b"\n".join(segment_bodies(self.folder / "events"))

    async def quarantined(self) -> list[tuple[str, bytes]]:
        found = []
        async with self.used():
            for entry in await self._quarantine.list(limit=100_000):
                got = await self._quarantine.get(entry.id)
                found.append((entry.agent_id, got[1].payload))
        return found

    def quarantine_used(self, agent_id: str | None) -> Sequence[int]:
        reader = self._quarantine._database._connections.loop_reader
        if reader is None:
            return []
        query = "SELECT sum(size) FROM entries WHERE overtaken_at IS NULL AND agent_id = ifnull(?, agent_id)"
        return [row[0] or 0 for row in reader.execute(query, (agent_id,))]

    async def quarantine(self, rejected: Sequence[Rejected]) -> None:
        async with self.used():
            await self._quarantine.add(rejected)

    async def drop_quarantined(self, agent_id: str) -> Sequence[bytes]:
        async with self.used():
            return await drop_of(self._quarantine, agent_id)
