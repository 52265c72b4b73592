"""Agents' keys that were verified on this node, in a file: the keys of a fleet that comes back after a restart aren't
hashed again.

A file of lines, ``<uuid> <mark>``: the mark is a keyed digest of uuid, stored hash and key. It is worth nothing without
the secret, which is derived from the key that signs tokens and isn't stored, and nothing once the agent is rekeyed.
Only keys of the agents' own form are kept, which nobody guesses at a billion tries a second; of others a fast digest
would be a help to whoever reads the file. Workers append to one file, and read what others appended when a key isn't
known. Losing it, or a part, costs hashing.

A worker's file is written, and what others appended read, by a task beside its log-ins: a disk that hangs holds up none
of them.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import RunBlocking
from wazuh_comms_trio.foundation.file_writes import rename, write_all
from wazuh_comms_trio.foundation.folders import adopt, draft, remove_left_drafts
from wazuh_comms_trio.services.authentication.secret_hashes import is_own_form, secret_mark

__all__ = ["FILE_NAME", "VerifiedKeys"]

logger = logging.getLogger(__name__)

FILE_NAME: Final = "proven-keys"

#: Agents that are remembered, some 200 bytes each in memory: at most 26 MB.
_REMEMBERED: Final = 131_072
#: Lines of agents that have others, from which on the file is written anew.
_OVERTAKEN: Final = 4096
#: No file of ours is longer; of one that is, the end is read.
_LONGEST: Final = 32 * 1024 * 1024
_MARK_BYTES: Final = 16
#: Seconds between two writes of what was noted, and between two looks at what others have. At a worker's end it has so
#: many for the last one.
WRITTEN_EACH: Final = 1.5
_LOOKS_EACH: Final = 4
LAST_WRITE: Final = 0.5
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_DRAFT: Final = re.compile(rf"\.{FILE_NAME}-\d+-[0-9a-f]{{8}}")
_LINE: Final = re.compile(rb"([0-9a-f-]{36}) ([0-9a-f]{32})")


class VerifiedKeys:
    """One process's view of the file, read when it is made: a hundred thousand lines take a quarter of a second. Calls
    of several threads after that; nothing here raises. ``written_by_task``: it is read and written by ``run`` alone;
    else by each call that has to."""

    def __init__(self, path: Path, secret: bytes, *, written_by_task: bool = False) -> None:
        self._path = path
        self._secret = secret
        self._by_task = written_by_task
        self._noted: deque[bytes] = deque(maxlen=_REMEMBERED)  # lines that aren't in the file yet
        self._marks: dict[str, bytes] = {}
        self._lines = 0
        self._inode = 0
        self._read_to = 0
        self._rest = b""
        remove_left_drafts(path.parent, _DRAFT)
        self._read_more()

    def knows(self, agent_id: str, stored: str, key: str) -> bool:
        """Whether ``key`` was verified to be what ``stored`` was made of."""
        if not is_own_form(key):
            return False
        mark = self._mark(agent_id, stored, key)
        if self._is(agent_id, mark) or self._by_task:
            return self._is(agent_id, mark)
        return self._read_more() and self._is(agent_id, mark)

    def note(self, agent_id: str, stored: str, key: str) -> None:
        """Notes that ``key`` was verified just now."""
        if not is_own_form(key):
            return
        mark = self._mark(agent_id, stored, key)
        if self._is(agent_id, mark):
            return
        self._put(agent_id, mark)
        self._noted.append(b"%b %b\n" % (agent_id.encode(), mark.hex().encode()))
        if not self._by_task:
            self._write_noted()

    async def run(self, run_blocking: RunBlocking) -> None:
        """Until cancelled. ``run_blocking`` has a thread of its own, which isn't waited for at the end."""
        ticks = 0
        try:
            while True:
                await sleep_until_next_tick(WRITTEN_EACH)
                ticks += 1
                if self._noted or not ticks % _LOOKS_EACH:
                    await run_blocking(self._write_and_read)
        finally:
            if self._noted:
                with trio.CancelScope(deadline=trio.current_time() + LAST_WRITE, shield=True):
                    await run_blocking(self._write_noted)

    def _write_and_read(self) -> None:
        self._write_noted()
        self._read_more()

    def _write_noted(self) -> None:
        lines = list[bytes]()
        with suppress(IndexError):  # others note meanwhile, and may write
            while True:
                lines.append(self._noted.popleft())
        if lines:
            self._append(b"".join(lines))

    def _append(self, lines: bytes) -> None:
        try:
            descriptor = os.open(self._path, _FLAGS, 0o600)
            try:
                adopt(descriptor, self._path.parent)
                write_all(descriptor, lines)
            finally:
                os.close(descriptor)
        except OSError as exc:
            logger.debug("%s can't be written: %s", self._path, exc)

    def _mark(self, agent_id: str, stored: str, key: str) -> bytes:
        return secret_mark(self._secret, agent_id, stored, key, size=_MARK_BYTES)

    def _is(self, agent_id: str, mark: bytes) -> bool:
        known = self._marks.get(agent_id)
        return known is not None and hmac.compare_digest(known, mark)

    def _put(self, agent_id: str, mark: bytes) -> None:
        self._marks.pop(agent_id, None)
        self._marks[agent_id] = mark
        while len(self._marks) > _REMEMBERED:
            with suppress(RuntimeError, StopIteration):  # another thread changed it just then
                self._marks.pop(next(iter(self._marks)), None)

    # --- what is in the file

    def _read_more(self) -> bool:
        """Reads what was appended since the last look; whether there was anything."""
        try:
            state = os.stat(self._path, follow_symlinks=False)
            if state.st_ino == self._inode and state.st_size == self._read_to:
                return False
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            state = os.fstat(descriptor)
            if state.st_ino != self._inode or state.st_size < self._read_to:
                self._inode, self._read_to, self._rest, self._lines = state.st_ino, 0, b"", 0
            start = max(self._read_to, state.st_size - _LONGEST)
            data = os.pread(descriptor, state.st_size - start, start)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        self._read_to = start + len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._lines += 1
            if (match := _LINE.fullmatch(line)) is not None:
                self._put(match[1].decode(), bytes.fromhex(match[2].decode()))
        if self._lines > len(self._marks) + _OVERTAKEN:
            self._write_anew()
        return True

    def _write_anew(self) -> None:
        """Writes the file anew, without lines that were overtaken. What another process appends meanwhile may be
        lost."""
        path = self._path.with_name(f".{FILE_NAME}-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with draft(path) as descriptor:
                marks = self._marks.copy()  # at once: threads note others meanwhile
                lines = [b"%b %b\n" % (name.encode(), mark.hex().encode()) for name, mark in marks.items()]
                write_all(descriptor, b"".join(lines))
                rename(path, self._path)
                state = os.fstat(descriptor)
        except OSError as exc:
            logger.debug("%s can't be written: %s", self._path, exc)
            return
        self._inode, self._read_to, self._rest, self._lines = state.st_ino, state.st_size, b"", len(lines)
