"""What the contract suite is run against: one harness for each implementation of the backends.

To add an implementation, write an async context manager that takes a fresh folder and yields a ``Harness``, and enter
it in
``HARNESSES``. A suite asks only for what every implementation must do; what a harness can't do (``outage``, ``second``)
is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
import trio
from attrs import define, evolve, field

from tests.backends.embedded.faulty_files import faulty_files
from wazuh_comms_trio.backends.embedded.ndjson.records import records
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent, Backends, DocumentOperation
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Embedded, Files, Ssl
from wazuh_comms_trio.errors import BackendUnavailable

A1 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
A2 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d2"
A3 = "0194857f-39b5-7bfb-a7bc-c5c6835f03d3"
INDEX = "wazuh-states-fim"


class Clock:
    """A wall clock that stands still until it is told to go on. Epoch seconds."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


T = TypeVar("T")


async def until_it_works(attempt: Callable[[], Awaitable[T]], *, within: float = 10) -> T:
    """Tries until the store has noticed that it is well again."""
    with trio.fail_after(within):
        while True:
            try:
                return await attempt()
            except BackendUnavailable:
                await trio.sleep(0.01)


@define
class Harness:
    """One open implementation.

    ``settle`` returns when what was promised "soon" (the last log-in) is there; ``refreshed`` when searches see what
    was written. ``outage`` makes the backends unavailable while it is entered. ``second`` opens the same state once
    more, as another process would. ``notice``: after how many seconds at most what another process did to an agent is
    seen here.
    """

    name: str
    backends: Backends
    clock: Clock
    settle: Callable[[], Any] = trio.lowlevel.checkpoint
    refreshed: Callable[[], Any] = trio.lowlevel.checkpoint
    outage: Callable[[], AbstractAsyncContextManager[None]] | None = None
    second: Callable[[], AbstractAsyncContextManager[Backends]] | None = None
    put_file: Callable[[str, bytes | None], None] | None = None
    taken: Callable[[], list[tuple[str, bytes]]] | None = None
    notice: float = 0.0
    agents_made: int = field(default=0, init=False)

    async def enrol(self, agent_id: str, **more: Any) -> Agent:
        """A new agent with a key hash of its own."""
        self.agents_made += 1
        agent = Agent(id=agent_id, name=f"agent-{agent_id[-1]}", key_hash=f"hash-{self.agents_made}", **more)
        await self.backends.agents.add(agent)
        return agent

    async def noticed(self, check: Callable[[], Awaitable[bool]]) -> bool:
        """Whether ``check`` holds within ``notice`` seconds, and a second for a slow machine."""
        deadline = trio.current_time() + (self.notice and self.notice + 1)
        while not await check():
            if trio.current_time() >= deadline:
                return False
            await trio.sleep(0.02)
        return True


@asynccontextmanager
async def open_memory(folder: Path) -> AsyncIterator[Harness]:
    clock = Clock()
    backends = memory_backends(wall_clock=clock)

    @asynccontextmanager
    async def outage() -> AsyncIterator[None]:
        stores = (backends.agents, backends.events, backends.commands, backends.engine, backends.presence)
        for store in stores:
            store.faults.error = BackendUnavailable()
        yield
        for store in stores:
            store.faults.error = None

    def put_file(name: str, content: bytes | None) -> None:
        backends.files.contents[name] = content

    yield Harness(
        "memory",
        backends,
        clock,
        outage=outage,
        put_file=put_file,
        taken=lambda: [(taken.agent_id, taken.body) for taken in backends.engine.bodies],
    )


def embedded_config(folder: Path) -> Config:
    """State under ``folder/state``, files under ``folder/files``. Certificates aren't looked at here."""
    return Config(
        CommunicationsApi(
            ssl=Ssl(key=folder / "key.pem", cert=folder / "cert.pem"),
            backend="embedded",
            embedded=Embedded(path=folder / "state"),
            files=Files(path=folder / "files"),
        )
    )


@asynccontextmanager
async def open_embedded(folder: Path) -> AsyncIterator[Harness]:
    clock = Clock()
    config = embedded_config(folder)
    (folder / "files").mkdir()
    state = folder / "state"

    async with open_backends(config, wall_clock=clock) as backends:

        async def settle() -> None:
            await backends.commands.mark_sent(["nothing"])  # writes are done in the order they come

        @asynccontextmanager
        async def outage() -> AsyncIterator[None]:
            """The files are taken away and come back."""
            for name in ("state.db", "events"):
                os.rename(state / name, state / f"{name}.away")
            (state / "events").touch()
            with pytest.raises(BackendUnavailable):
                await settle()
            yield
            (state / "events").unlink()
            for name in ("state.db", "events"):
                os.rename(state / f"{name}.away", state / name)
            await until_it_works(settle)

        def put_file(name: str, content: bytes | None) -> None:
            path = folder / "files" / name
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)

        yield Harness(
            "embedded",
            backends,
            clock,
            settle=settle,
            outage=outage,
            second=lambda: open_backends(config, wall_clock=clock),
            put_file=put_file,
            taken=lambda: stored_bodies(state),
        )


@asynccontextmanager
async def open_embedded_with_short_writes(folder: Path) -> AsyncIterator[Harness]:
    """Every write takes a half of what it is given."""
    with faulty_files("short"):
        async with open_embedded(folder) as harness:
            yield evolve(harness, name="embedded-short-writes")


def stored_bodies(state: Path) -> list[tuple[str, bytes]]:
    """Agent and body of each record in the embedded engine's folder."""
    found = []
    for segment in segment_files(state / "events"):
        with segment.path.open("rb") as file:
            for record in records(file, segment.size):
                file.seek(record.body_start)
                found.append((record.agent_id, file.read(record.body_bytes)))
    return found


def open_wazuh(folder: Path) -> AbstractAsyncContextManager[Harness]:
    """On a real OpenSearch, started by the first test that needs it."""
    from tests.indexer.harness import open_real

    return open_real(folder)


def open_fake_wazuh(folder: Path) -> AbstractAsyncContextManager[Harness]:
    """On the fake OpenSearch that tests on the mock clock use."""
    from tests.indexer.harness import open_fake

    return open_fake(folder)


#: name -> (opener, marks of its tests)
HARNESSES: dict[
    str, tuple[Callable[[Path], AbstractAsyncContextManager[Harness]], tuple[pytest.MarkDecorator, ...]]
] = {
    "memory": (open_memory, ()),
    "embedded": (open_embedded, (pytest.mark.real_clock,)),
    "embedded-short-writes": (open_embedded_with_short_writes, (pytest.mark.real_clock,)),
    "fake-wazuh": (open_fake_wazuh, (pytest.mark.real_clock,)),
    "wazuh": (open_wazuh, (pytest.mark.indexer, pytest.mark.real_clock)),
}


def op(action: Literal["create", "update", "delete"], document_id: str, **data: Any) -> DocumentOperation:
    """A write of a document that is its agent's own."""
    body = None if action == "delete" else json.dumps(data).encode()
    return DocumentOperation(action, INDEX, document_id, body, own=True)
