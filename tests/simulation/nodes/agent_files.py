"""The files that agents may fetch. In part of the worlds somebody replaces them while they are read, each by another
one that is as long, and a disk takes a while for each piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import cache
from math import inf
from pathlib import Path
from random import Random

import trio
from attrs import frozen

from tests.simulation.stores.scratch import own_folder
from wazuh_comms_trio.backends.files.folder import FolderFile, FolderFiles
from wazuh_comms_trio.backends.interfaces import StoredFile

__all__ = ["FILES", "AgentFiles"]

#: What there is for agents of which groups.
FILES = {
    f"{group}.{kind}": f"{kind} of {group}".encode() for group in ("default", "web", "web2") for kind in ("yml", "conf")
}
#: Bytes of each, where they change.
_LENGTH = 120


@cache
def _unchanging() -> Path:
    """For all runs of this process; nobody writes to it."""
    folder = own_folder() / "files"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


class AgentFiles:
    """``store``: as nodes have them. ``folder``: where they change; None: they don't."""

    def __init__(self, folder: Path | None, rng: Random) -> None:
        self._folder = folder
        self._rng = rng
        self._contents = {name: [(-inf, content)] for name, content in FILES.items()}
        if folder is None:
            self.store = FolderFiles(_unchanging())
            return
        for name, content in FILES.items():
            self._contents[name] = [(-inf, content.ljust(_LENGTH))]
            (folder / name).write_bytes(content.ljust(_LENGTH))
        self.store = _SlowFiles(folder, rng)

    async def change(self, until: float) -> None:
        """As an operator's tools do it: a whole file takes the place of the one before."""
        assert self._folder is not None
        number = 0
        while trio.current_time() < until:
            await trio.sleep(self._rng.expovariate(1.5))
            number += 1
            name = self._rng.choice(list(FILES))
            content = b"%b, version %d" % (FILES[name], number)
            new = self._folder / "new"
            new.write_bytes(content.ljust(_LENGTH))
            new.replace(self._folder / name)
            self._contents[name].append((trio.current_time(), content.ljust(_LENGTH)))

    def was(self, name: str, content: bytes, began: float, ended: float) -> bool:
        """Whether that was the file, whole, at any moment between these."""
        versions = self._contents[name]
        untils = [since for since, _ in versions[1:]] + [inf]
        return any(
            content == version and since <= ended and until >= began
            for (since, version), until in zip(versions, untils, strict=True)
        )


class _SlowFiles(FolderFiles):
    def __init__(self, folder: Path, rng: Random) -> None:
        super().__init__(folder)
        self._rng = rng

    def open_file(self, name: str) -> AbstractAsyncContextManager[StoredFile]:
        return self._open_slowly(name)

    async def _open_in_thread(self, name: str) -> FolderFile:
        """It is read a while before its readers have it."""
        file = await super()._open_in_thread(name)
        try:
            await trio.sleep(self._rng.choice([0.0, 0.05, 1.0]) * self._rng.random())
        except trio.Cancelled:
            self._close(file)
            raise
        return file

    @asynccontextmanager
    async def _open_slowly(self, name: str) -> AsyncIterator[StoredFile]:
        async with super().open_file(name) as file:
            yield _SlowFile(file, self._rng)


@frozen
class _SlowFile:
    _file: StoredFile
    _rng: Random

    @property
    def size(self) -> int:
        return self._file.size

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._file.chunks()) as chunks:
            async for chunk in chunks:
                await trio.sleep(self._rng.uniform(0.0, 0.1))
                yield chunk
