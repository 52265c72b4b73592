"""The files that agents may fetch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

__all__ = ["FileStore", "StoredFile"]


class StoredFile(Protocol):
    """One file, open for reading; ``size`` in bytes holds for what ``chunks`` yields. A reader that stops early closes
    the generator."""

    size: int

    def chunks(self) -> AsyncGenerator[bytes, None]: ...


class FileStore(Protocol):
    def open_file(self, name: str) -> AbstractAsyncContextManager[StoredFile]:
        """Raises ``FileNameHasFolders``, ``FileIsFolder`` or ``FileMissing`` on entering (a link that leads out of the
        folder, a name too long, and what isn't a regular file are missing).
        """
        ...
