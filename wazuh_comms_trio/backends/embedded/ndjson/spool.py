"""A body while it arrives: the first MiB in memory, a larger one in a file of its own beside the segments.

The file begins with room for an envelope, so once it is complete it only needs another name to be a segment: it is
written once, and no other request waits for its fsync. Its first name lets every process count it to the quota, and to
its agent's share, while it grows.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from wazuh_comms_trio.backends.embedded.ndjson.records import envelope, envelope_room
from wazuh_comms_trio.backends.embedded.ndjson.shares import agent_mark
from wazuh_comms_trio.backends.event_lines import LineChecker
from wazuh_comms_trio.backends.interfaces import ConsumedBody
from wazuh_comms_trio.errors import EngineRefused
from wazuh_comms_trio.foundation.file_writes import link_descriptor, rename, sync, write_all_at
from wazuh_comms_trio.foundation.folders import adopt, make_folder, open_folder, remove_left_drafts

#: A body up to this size waits in memory.
MEMORY_BYTES: Final = 1024 * 1024

_CHECK_CHUNK: Final = 1024 * 1024

#: What file systems say that have no files without a name.
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})

PREFIX: Final = ".spool-"
_OWN_NAME: Final = re.compile(r"\.spool-\d+-[a-z0-9-]+")
#: Ends the name of what is saved of a damaged segment, while it is written.
SAVING: Final = ".saving"
_SAVED_NAME: Final = re.compile(rf"\.[A-Za-z0-9-]+\.ndjson{re.escape(SAVING)}")


class SpoolFile:
    """A new file in ``folder`` that is removed when it is closed unless it is given a name; until then it is called
    ``.spool-...`` and locked, which tells it from what a killed process left. Blocking calls."""

    def __init__(self, folder: Path, agent_id: str) -> None:
        make_folder(folder)
        self._hidden: Path | None = None
        hidden = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}-{agent_mark(agent_id)}"
        try:
            self.descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno not in _NO_TMPFILE:
                raise
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.descriptor = os.open(hidden, flags, 0o600)
            self._hidden = hidden
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            adopt(self.descriptor, folder)
            if self._hidden is None:
                with open_folder(folder) as parent:
                    link_descriptor(self.descriptor, hidden.name, parent)
                self._hidden = hidden
        except BaseException:
            self.close()
            raise

    def give_name(self, path: Path) -> None:
        """``path`` must be free and in the same folder."""
        assert self._hidden is not None
        rename(self._hidden, path)
        self._hidden = None

    def close(self) -> None:
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
            self._hidden = None
        os.close(self.descriptor)


def spooled_bytes(folder: Path) -> dict[str, int]:
    """What is being received now, by all processes, by the agents' marks. Raises ``OSError``."""
    found: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _OWN_NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    mark = entry.name.rpartition("-")[2]
                    found[mark] = found.get(mark, 0) + entry.stat(follow_symlinks=False).st_size
    return found


def remove_stale(folder: Path) -> None:
    """Removes what killed processes have left, on file systems where that can happen."""
    remove_left_drafts(folder, _OWN_NAME)
    remove_left_drafts(folder, _SAVED_NAME)


class LargeBody:
    """A body above ``MEMORY_BYTES`` on its way to becoming a segment. Blocking calls, one at a time."""

    def __init__(self, folder: Path, agent_id: str) -> None:
        self.agent_id = agent_id
        self.body_bytes = 0
        self.size = envelope_room(agent_id)
        self._head_bytes = self.size
        self._checksum = 0
        self._last = b""
        self.file = SpoolFile(folder, agent_id)

    def write(self, pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        write_all_at(self.file.descriptor, data, self.size)
        self._checksum = crc32(data, self._checksum)
        self._last = data[-1:] or self._last
        self.size += len(data)
        self.body_bytes += len(data)

    def finish(self, received: float) -> None:
        """Checks the lines, writes the envelope, makes it durable. Raises ``EngineRefused``, ``OSError``."""
        checker = LineChecker()
        for chunk in self._chunks():
            checker.feed(chunk)
        fault = checker.finish()
        if fault is not None:
            raise EngineRefused(fault)
        if self._last != b"\n":
            write_all_at(self.file.descriptor, b"\n", self.size)
            self.size += 1
        head = envelope(self.agent_id, received, self.body_bytes, self._checksum, width=self._head_bytes)
        write_all_at(self.file.descriptor, head, 0)
        sync(self.file.descriptor)

    def consumed(self, rest: bytes) -> ConsumedBody:
        """The body as far as it came, ``rest`` behind what was written. Its file outlives this object."""
        return ConsumedBody(os.dup(self.file.descriptor), self._head_bytes, self.body_bytes, rest)

    def _chunks(self) -> Iterator[bytes]:
        for start in range(self._head_bytes, self.size, _CHECK_CHUNK):
            yield os.pread(self.file.descriptor, min(_CHECK_CHUNK, self.size - start), start)

    def close(self) -> None:
        self.file.close()
