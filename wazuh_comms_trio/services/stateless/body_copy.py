"""A copy of a body that may have to go to the quarantine whole: in memory while it is short, then in a file that has no
name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from wazuh_comms_trio.backends.interfaces import ConsumedBody
from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.foundation.file_writes import write_all
from wazuh_comms_trio.metrics.refusal_log import RefusalLog

__all__ = ["BodyCopy"]

_IN_MEMORY: Final = 1024 * 1024


class BodyCopy:
    """``add`` never fails: a copy that couldn't be kept is missed only by a caller that asks for it: ``StorageFull``.

    A context manager: leaving it closes the file. At most 1 MiB (and one chunk) is in memory at a time.
    """

    def __init__(self, folder: Path | None, run_blocking: RunBlocking, refusals: RefusalLog) -> None:
        self.size = 0
        self.start = 0  # where it begins in its file
        self._folder = folder
        self._run_blocking = run_blocking
        self._refusals = refusals
        self._held = bytearray()
        self._file: BinaryIO | None = None
        self._lost: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = bytearray()
        if self._file is not None:
            self._file.close()

    def resume(self, consumed: ConsumedBody) -> None:
        """The copy, which is empty, goes on behind what an engine had taken, and kept."""
        self._held = bytearray(consumed.rest)
        self.size = consumed.size + len(consumed.rest)
        if consumed.descriptor is not None:
            self.start = consumed.start
            self._file = os.fdopen(consumed.descriptor, "r+b", buffering=0)
            self._file.seek(consumed.start + consumed.size)

    async def add(self, chunk: bytes) -> None:
        """Keeps ``chunk``. No fsync: it is worth nothing after a crash."""
        if self._lost is not None:
            return
        self.size += len(chunk)
        self._held += chunk
        if len(self._held) > _IN_MEMORY:
            await self._write_held()

    async def _write_held(self) -> None:
        held, self._held = self._held, bytearray()
        try:
            await self._run_blocking(self._write, held)
        except OSError as exc:
            self._lost = exc
            text = "a request's body can't be kept for the quarantine: %s"
            self._refusals.refused("bodies that can't be kept for the quarantine", text, exc)

    def _write(self, held: bytearray) -> None:
        if self._file is None:
            folder = self._folder if self._folder is not None and self._folder.is_dir() else None
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by __exit__
        write_all(self._file.fileno(), held)

    async def file(self) -> BinaryIO | None:
        """The whole copy as a file, None when it is short: then it is ``held``. Raises ``StorageFull``."""
        if self._file is not None and self._held and self._lost is None:
            await self._write_held()
        if self._lost is not None:
            raise StorageFull
        return self._file

    @property
    def held(self) -> bytes:
        """The part of the copy that is in memory."""
        return bytes(self._held)
