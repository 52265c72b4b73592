"""The embedded stores of one node, the real ones, on a memory file system. SQLite and files are used inline: on the
mock clock nothing may wait in a thread, and nothing pauses inside a transaction."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database import connections, database, writer
from wazuh_comms_trio.backends.embedded.ndjson.engine import open_engine
from wazuh_comms_trio.backends.embedded.ndjson.records import records
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.embedded.state_lock import hold_state
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Agent, Backends, Command
from wazuh_comms_trio.backends.memory.engine import MemoryFiles
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.quarantine.store import open_quarantine_store

if TYPE_CHECKING:
    from tests.simulation.process import Process

__all__ = ["EmbeddedStores", "use_inline"]

#: Whose task this is; None: the operator's tool.
PROCESS: ContextVar[Process | None] = ContextVar("simulated process", default=None)
QUARANTINE_BYTES = 1024**3


class _Inline:
    """In the place of a connection with a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.plain = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)

    async def aclose(self, force: bool = False) -> None:
        if is_dead():
            self.plain.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.plain.close(force)
        await trio.lowlevel.checkpoint()


def is_dead() -> bool:
    process = PROCESS.get()
    return process is not None and process.dead


async def _open_connection(path: Path, what: str) -> _Inline:
    await trio.lowlevel.checkpoint()
    return _Inline(path)


async def _in_thread(connection: _Inline, function: Callable[..., Any], *args: object) -> Any:
    await trio.lowlevel.checkpoint()
    if is_dead():
        if function.__name__ == "_keep_log_if_damaged":
            return None  # on the way to closing
        raise apsw.IOError("the process is dead")
    return function(connection.plain, *args)


async def _run_sync(function: Callable[..., Any], *args: object, **_: object) -> Any:
    await trio.lowlevel.checkpoint()
    if is_dead():
        raise OSError("the process is dead")
    return function(*args)


def use_inline() -> None:
    """Once: in the place of threads."""
    replacements: list[tuple[Any, str, object]] = [(trio.to_thread, "run_sync", _run_sync)]
    replacements += [(module, "in_thread", _in_thread) for module in (connections, database, writer)]
    replacements += [(connections, "open_connection", _open_connection)]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)


class EmbeddedStores:
    """Everything of one node, in a folder that is gone at the end."""

    keeps_posted = True

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="simulation-", dir="/dev/shm"))
        self.excused: set[str] = set()
        self._clock = wall_clock
        self._tokens: dict[Process, str] = {}
        self._tool: SqliteStores
        self._quarantine: Any

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """The tool's own."""
        async with AsyncExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            stack.enter_context(hold_state(self.folder))
            self._tool = await stack.enter_async_context(open_sqlite(self.folder, wall_clock=self._clock))
            self._quarantine = await stack.enter_async_context(
                open_quarantine_store(self.folder / "quarantine", max_bytes=QUARANTINE_BYTES, wall_clock=self._clock)
            )
            yield

    @asynccontextmanager
    async def open_process(self, process: Process, node: object) -> AsyncIterator[tuple[Backends, Any]]:
        PROCESS.set(process)
        async with AsyncExitStack() as stack:
            stack.enter_context(hold_state(self.folder))
            sqlite = await stack.enter_async_context(
                open_sqlite(self.folder, wall_clock=process.wall_clock, tolerant=True)
            )
            self._tokens[process] = sqlite.commands._process_lock.token
            engine = await stack.enter_async_context(
                open_engine(self.folder / "events", EmbeddedEvents(), wall_clock=process.wall_clock)
            )
            quarantine = await stack.enter_async_context(
                open_quarantine_store(
                    self.folder / "quarantine",
                    max_bytes=QUARANTINE_BYTES,
                    wall_clock=process.wall_clock,
                    tolerant=True,
                )
            )
            files = MemoryFiles({"default.conf": b"default"})
            yield Backends(sqlite.agents, sqlite.events, sqlite.commands, engine, files), quarantine

    @property
    def tool(self) -> Any:
        return self._tool.commands

    async def add_agent(self, agent: Agent) -> None:
        await self._tool.agents.add(agent)

    async def documents(self) -> Mapping[tuple[str, str], bytes]:
        query = "SELECT indices.name, documents.id, body FROM documents JOIN indices ON index_no = indices.no"
        rows = await self._tool.database.read(lambda connection: connection.execute(query).fetchall())
        return {(name, document_id): bytes(body) for name, document_id, body in rows}

    async def commands(self) -> Mapping[str, Command]:
        return {command.document_id: command for command in await self._tool.commands.list(limit=100_000)}

    def bodies(self) -> bytes:
        found = []
        for segment in segment_files(self.folder / "events"):
            with segment.path.open("rb") as file:
                for record in records(file, segment.size):
                    file.seek(record.body_start)
                    found.append(file.read(record.body_bytes))
        return b"\n".join(found)

    async def quarantined(self) -> list[tuple[str, bytes]]:
        found = []
        for entry in await self._quarantine.list(limit=100_000):
            got = await self._quarantine.get(entry.id)
            found.append((entry.agent_id, got[1].payload))
        return found

    def held(self, process: Process) -> list[str]:
        loop_reader = self._tool.database._connections.loop_reader
        token = self._tokens.get(process)
        if loop_reader is None or token is None:
            return []
        return [row[0] for row in loop_reader.execute("SELECT id FROM commands WHERE owner = ?", (token,))]

    def process_died(self, process: Process) -> None:
        self.excused.update(self.held(process))
