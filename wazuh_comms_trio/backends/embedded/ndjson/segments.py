"""The embedded engine's folder: segment files that are appended to, rotated and kept within a quota. Blocking calls.

Every process appends to segments of its own and holds a lock on the one it writes, so no other process deletes it.
Names begin with the time of their making, so they sort by age.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from attrs import field, frozen

from wazuh_comms_trio.backends.embedded.ndjson.ledger import Promise, Slot, forget, promises, take_in
from wazuh_comms_trio.backends.embedded.ndjson.records import envelope, envelope_room
from wazuh_comms_trio.backends.embedded.ndjson.shares import Shares, agent_mark
from wazuh_comms_trio.backends.embedded.ndjson.spool import SpoolFile, spooled_bytes
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.foundation.file_writes import cut, sync_data, write_pieces
from wazuh_comms_trio.foundation.folders import adopt, make_folder, open_regular, sync_folder, try_lock
from wazuh_comms_trio.metrics.refusal_log import RefusalLog

SUFFIX: Final = ".ndjson"

#: What may be a segment: names that a backup takes. Other files and folders are somebody else's.
_NAME: Final = re.compile(r"[A-Za-z0-9-]+\.ndjson")
#: What this program calls them; only these are ever deleted, or missed.
_OWN_NAME: Final = re.compile(r"\d{14}-\d+-\d{6,}-[0-9a-f]{8}\.ndjson")

#: Seconds for which the sum of the files' sizes, other processes' too, is believed.
_SIZES_VALID: Final = 1.0

_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class QuotaReached(Exception):
    """Raised where ``max_bytes`` are there, and nothing may be deleted for more."""


class ShareReached(QuotaReached):
    """Raised where one agent has all of its share."""

    def __init__(self, agent_id: str, limit: int) -> None:
        super().__init__(agent_id, limit)
        self.agent_id = agent_id
        self.limit = limit


@frozen
class Appended:
    """One small body to append. ``room``: how many bytes it takes in a segment, at most."""

    agent_id: str
    body: bytes
    room: int = field(init=False)

    @room.default
    def _room(self) -> int:
        return envelope_room(self.agent_id) + len(self.body) + 1


@frozen
class SegmentFile:
    path: Path
    size: int


def is_full(exc: OSError) -> bool:
    """Whether an ``OSError`` says that there is no room."""
    return exc.errno in _FULL_ERRORS


def looks_full(folder: Path, length: int) -> bool:
    """Whether the disk hardly has room for ``length`` bytes. Only a write tells whether that is so: some of a disk may
    be root's alone. Raises ``OSError``."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < length


def segment_files(folder: Path) -> list[SegmentFile]:
    """The segments of a folder, oldest first; none when it isn't there."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    try:
                        found.append(SegmentFile(Path(entry.path), entry.stat(follow_symlinks=False).st_size))
                    except FileNotFoundError:
                        continue
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda segment: segment.path.name)


def take_in_segments(folder: Path) -> None:
    """Notes the segments of this folder that the ledger doesn't know and nobody writes to. Raises ``OSError``."""
    known = promises(folder)
    unknown = [segment for segment in segment_files(folder) if segment.path.name not in known]
    found = [
        Promise(segment.path.name, segment.size, None, "found")
        for segment in unknown
        if is_own(segment) and not is_locked(segment.path)
    ]
    if found:
        take_in(folder, found)


def is_own(segment: SegmentFile) -> bool:
    """Whether a segment's name is one that this program gives."""
    return _OWN_NAME.fullmatch(segment.path.name) is not None


class Segments:
    """This process's end of the folder. Any thread; one at a time gets on."""

    def __init__(
        self, folder: Path, settings: EmbeddedEvents, *, wall_clock: Callable[[], float], logger: logging.Logger
    ) -> None:
        self.folder = folder
        self._settings = settings
        self._now = wall_clock
        self._logger = logger
        self._deletions = RefusalLog(logger, level=logging.INFO)  # a large body is a segment
        self._descriptor: int | None = None
        self._path = folder
        self._made = 0
        self._slot = Slot(folder, "")
        self._size = 0
        self._total = 0
        self._total_at = -_SIZES_VALID
        self._spooled: dict[str, int] = {}  # by agent: what is being received
        self.shares = Shares(folder, settings)
        self._lock = threading.RLock()

    def append(self, bodies: Sequence[Appended]) -> int:
        """Appends the first of ``bodies`` that fit into one segment, at least one; how many. They are durable on
        return; on ``OSError`` and ``QuotaReached`` none is there."""
        now = self._now()
        with self._lock:
            self._make_room(sum(item.room for item in bodies))
            descriptor = self._open_for(bodies[0].room)
            before = self._size
            pieces, count = self._pieces(bodies, now)
            try:
                self._write(descriptor, pieces)
                sync_data(descriptor)
            except OSError:
                self._take_back(descriptor, before)
                raise
            self._slot.hold(self._size, count)
            name = self._path.name
            for item in bodies[:count]:
                self.shares.note(name, item.agent_id, item.room)
            self.shares.appended(name, self._size - before)
        return count

    def _pieces(self, bodies: Sequence[Appended], now: float) -> tuple[list[bytes], int]:
        """What to write of the first of ``bodies`` that fit into the present segment: at least one."""
        pieces: list[bytes] = []
        size = self._size
        count = 0
        for item in bodies:
            size += item.room
            if count and size > self._settings.max_file_bytes:
                break
            pieces += (envelope(item.agent_id, now, len(item.body), crc32(item.body)), item.body)
            if not item.body.endswith(b"\n"):
                pieces.append(b"\n")
            count += 1
        return pieces, count

    def _write(self, descriptor: int, pieces: Sequence[bytes]) -> None:
        write_pieces(descriptor, pieces)
        length = sum(map(len, pieces))
        self._size += length
        self._total += length

    def _take_back(self, descriptor: int, size: int) -> None:
        """After an error: readers aren't to find events that no agent was promised. A segment that can't be cut back
        is left as it is: readers skip what is incomplete."""
        try:
            cut(descriptor, size)
        except OSError as exc:
            self._logger.debug("events: %s can't be cut back: %s", self._path, exc)
        # After a failed fsync the kernel has forgotten what wasn't written: only a new file can be trusted.
        self.rotate()
        self._total_at = -_SIZES_VALID

    def publish(self, spool: SpoolFile, agent_id: str, size: int) -> None:
        """Gives a complete, fsynced file, which has counted since it was begun, its place as a segment of its own.
        Raises as ``append``."""
        with self._lock:
            self._make_room(0)
            path = self._new_path()
            spool.give_name(path)
            sync_folder(self.folder)
            Slot(self.folder, path.name).hold(size, 1)
            self.shares.note(path.name, agent_id, size)

    def _open_for(self, length: int) -> int:
        """The segment to append to: the present one, if ``length`` bytes more fit and it is still there for others."""
        if self._descriptor is not None:
            room = self._settings.max_file_bytes - self._size
            if (length > room and self._size) or not self._is_there(self._descriptor):
                self.rotate()
        if self._descriptor is None:
            make_folder(self.folder)
            self._path = self._new_path()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                adopt(descriptor, self.folder)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sync_folder(self.folder)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            self._size = 0
            self._slot = Slot(self.folder, self._path.name)
        return self._descriptor

    def _is_there(self, descriptor: int) -> bool:
        """Whether the present segment is still found under its name: written elsewhere, events are as good as lost."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(descriptor))
        except OSError:
            return False

    def _new_path(self) -> Path:
        self._made += 1
        name = f"{int(self._now() * 1000):014d}-{os.getpid()}-{self._made:06d}-{secrets.token_hex(4)}{SUFFIX}"
        return self.folder / name

    def rotate(self) -> None:
        """Ends the present segment: the next append begins another one."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
                self.shares.finished()

    # --- the quota -----------------------------------------------------------------------------------------------

    def check_room(self, agent_id: str, length: int) -> None:
        """Raises ``QuotaReached`` when ``length`` bytes more find no room, ``ShareReached`` when they are too many of
        one agent. Deletes nothing: they may never come."""
        if self._settings.on_full == "refuse":
            with self._lock:
                self._add_up()
                self._make_room(length)
                self.check_share(agent_id, length)

    def take_room(self, agent_id: str, length: int) -> None:
        """As ``append``, for bytes of a body that is being received: they count from now on. Raises ``ShareReached``,
        too."""
        with self._lock:
            if time.monotonic() - self._total_at > _SIZES_VALID:
                self._add_up()
            self.check_share(agent_id, length)
            self._make_room(length)
            self._total += length
            mark = agent_mark(agent_id)
            self._spooled[mark] = self._spooled.get(mark, 0) + length

    def check_share(self, agent_id: str, length: int) -> None:
        """Raises ``ShareReached``. Where the oldest are deleted those of this agent are (``_deletable``), and only what
        it is sending at once is limited: others' go for that."""
        if self._exceeds_share(agent_id, length):
            with self._lock:
                self._add_up()
                if self._exceeds_share(agent_id, length):
                    raise ShareReached(agent_id, self.shares.limit)

    def depends_on_agents(self, agent_id: str, length: int) -> bool:
        """Whether ``length`` bytes may be too many of one agent if there are more agents than is known."""
        return self.shares.depends_on_agents(agent_id, length + self._spooled_of(agent_id))

    def _spooled_of(self, agent_id: str) -> int:
        return self._spooled.get(agent_mark(agent_id), 0) if self._spooled else 0

    def _exceeds_share(self, agent_id: str, length: int) -> bool:
        length += self._spooled_of(agent_id)
        if self._settings.on_full == "refuse":
            return self.shares.exceeded(agent_id, length)
        # One body as large as a file is never too much.
        return length > max(self.shares.limit, self._settings.max_file_bytes + envelope_room(agent_id) + 1)

    def size(self) -> int:
        """Bytes of all segments, those of other processes included. From any thread."""
        return sum(segment.size for segment in segment_files(self.folder))

    def _make_room(self, length: int) -> None:
        limit = self._settings.max_bytes
        if time.monotonic() - self._total_at > _SIZES_VALID or self._total + length > limit:
            self._add_up()
        if self._total + length <= limit:
            return
        if self._settings.on_full == "delete_oldest" and length <= limit:  # else nothing that is deleted would help
            self._delete_oldest(self._total + length - limit)
        if self._total + length > limit:
            raise QuotaReached

    def _add_up(self) -> None:
        segments = segment_files(self.folder)
        self._spooled = spooled_bytes(self.folder)
        self._total = sum(segment.size for segment in segments) + sum(self._spooled.values())
        self._total_at = time.monotonic()
        self.shares.look([(segment.path, segment.size) for segment in segments])

    def _delete_oldest(self, needed: int) -> None:
        chosen = []
        for segment in self._deletable():
            if needed <= 0:
                break
            chosen.append(segment)
            needed -= segment.size
        with suppress(OSError):
            forget(self.folder, [segment.path.name for segment in chosen])
        for segment in chosen:
            segment.path.unlink(missing_ok=True)
            self.shares.forget(segment.path.name)
            self._total -= segment.size
            text = "events: %s deleted (events.on_full: delete_oldest)"
            self._deletions.refused("segments deleted", text, segment.path.name)

    def _deletable(self) -> Iterator[SegmentFile]:
        """Oldest first, those first that are from an agent that has more than its share, and without those that a
        process writes to; our own comes last and can be closed for it."""
        for segment in sorted(
            segment_files(self.folder), key=lambda one: not self.shares.is_from_excess(one.path.name)
        ):
            if segment.path == self._path and self._descriptor is not None:
                self.rotate()
                yield segment
            elif is_own(segment) and not is_locked(segment.path):
                yield segment


def is_locked(path: Path) -> bool:
    """Whether a process writes to this segment, as far as can be told."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return True
    if descriptor is None:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
