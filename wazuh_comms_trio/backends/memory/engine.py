"""The engine and the folder of files in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.event_lines import find_bad_line
from wazuh_comms_trio.backends.file_names import check_name
from wazuh_comms_trio.backends.interfaces import EngineReply, StoredFile
from wazuh_comms_trio.backends.memory.faults import Faults
from wazuh_comms_trio.errors import EngineRefused, FileIsFolder, FileMissing

_FILE_CHUNK: Final = 65536


@frozen
class TakenBody:
    """One request's body, as the engine took it."""

    agent_id: str
    body: bytes


class MemoryEngine:
    """``Engine`` that keeps what it takes, in ``bodies``, whole or not at all.

    ``refuse``: set to a reason, every body is refused for good. ``answer``: what a scan gets. ``checks_json``: refuse
    lines that aren't JSON, as the embedded engine does.
    """

    keeps_refused = False

    def __init__(self) -> None:
        self.bodies: list[TakenBody] = []
        self.scans: list[bytes] = []
        self.refuse: str | None = None
        self.checks_json = True
        self.answer: Callable[[bytes], EngineReply] = lambda request: EngineReply(200, b"")
        self.faults = Faults()

    async def probe(self) -> None:
        await self.faults.probe()

    async def send_events(self, body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
        collected = bytearray()
        async for chunk in body:
            collected += chunk
        await self.faults.strike("send_events")
        if self.refuse is not None:
            raise EngineRefused(self.refuse)
        whole = bytes(collected)
        bad = find_bad_line(whole) if self.checks_json else None
        if bad is not None:
            raise EngineRefused(bad)
        self.bodies.append(TakenBody(agent_id, whole))

    async def scan(self, request: bytes) -> EngineReply:
        await self.faults.strike("scan")
        self.scans.append(request)
        return self.answer(request)


class MemoryFile:
    """``StoredFile`` of bytes."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, self.size, _FILE_CHUNK):
            await trio.lowlevel.checkpoint()
            yield self._content[start : start + _FILE_CHUNK]


class MemoryFiles:
    """``FileStore`` of ``contents``: name -> content, None for a folder."""

    def __init__(self, contents: Mapping[str, bytes | None]) -> None:
        self.contents: dict[str, bytes | None] = dict(contents)
        self.faults = Faults()

    def open_file(self, name: str) -> AbstractAsyncContextManager[StoredFile]:
        return self._open(name)

    @asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[StoredFile]:
        check_name(name)
        await self.faults.strike("open_file")
        if name not in self.contents:
            raise FileMissing
        content = self.contents[name]
        if content is None:
            raise FileIsFolder
        yield MemoryFile(content)
