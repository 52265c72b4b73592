"""Whether SQLite's write-ahead log is whole. After an end without order SQLite takes from it what comes before the
first frame with a wrong checksum, and drops the rest without a word.

Sources: "Database File Format", section 4 (sqlite.org/fileformat2.html); the byte whose lock says that a process has
the file open: "WAL-mode File Format", section 2.3.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import struct
from collections import Counter
from itertools import chain, count
from pathlib import Path
from typing import Final

from wazuh_comms_trio.foundation.file_writes import copy_to, rename
from wazuh_comms_trio.foundation.folders import draft, remove_left_drafts, sync_folder

logger = logging.getLogger(__name__)

_HEAD: Final = 32
_FRAME_HEAD: Final = 24
_IN_USE_BYTE: Final = 128
_KEPT: Final = ".damaged-"
_DRAFT: Final = ".saving"

#: Databases that this process has open: their shared memory isn't touched, since closing it would end SQLite's locks.
open_here: Counter[Path] = Counter()


class LogNotKept(Exception):
    """A damaged log can't be kept, and opening its database would take it away; the text says why it can't."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"its log is damaged, and can't be kept beside it: {cause.strerror}")


def dropped_frames(log: bytes) -> int:
    """How many frames SQLite would drop although a commit is among them: some was promised to somebody. A log that a
    power cut has torn at its end has none, or, where the disk wrote in another order, what nobody was promised."""
    if len(log) <= _HEAD:
        return 0
    magic, _, page_bytes, _, _, _, sum1, sum2 = struct.unpack(">8I", log[:_HEAD])
    order = ">" if magic & 1 else "<"
    frame_bytes = _FRAME_HEAD + page_bytes
    sound = magic & ~1 == 0x377F0682 and 512 <= page_bytes <= 65536
    first, second = _add(order, log[:24], 0, 0)
    if not sound or (first, second) != (sum1, sum2):
        return max(1, (len(log) - _HEAD) // 8216)  # nothing in it is used; most pages have 8192 bytes
    total = (len(log) - _HEAD) // frame_bytes
    for number in range(total):
        start = _HEAD + number * frame_bytes
        head = log[start : start + _FRAME_HEAD]
        first, second = _add(order, head[:8] + log[start + _FRAME_HEAD : start + frame_bytes], first, second)
        if head[8:16] != log[16:24] or struct.unpack(">2I", head[16:]) != (first, second):
            return _with_commit(log, number, total, frame_bytes)
    return 0


def _with_commit(log: bytes, bad: int, total: int, frame_bytes: int) -> int:
    """The frames from the damaged one on that belong to the same log, as far as its last commit."""
    last = 0
    for number in range(bad, total):
        start = _HEAD + number * frame_bytes
        size = int.from_bytes(log[start + 4 : start + 8], "big")
        # Frames of the log before have two other salts; damage leaves at least one of them.
        own = log[start + 8 : start + 12] == log[16:20] or log[start + 12 : start + 16] == log[20:24]
        if not own and number > bad:
            break
        if size and own:
            last = number - bad + 1
    return last


def _add(order: str, data: bytes, first: int, second: int) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def is_in_use(database: Path) -> bool:
    """Whether a process has the database open."""
    if open_here[database]:
        return True
    try:
        descriptor = os.open(database.with_name(f"{database.name}-shm"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _IN_USE_BYTE, 1, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, lock)
        return int(struct.unpack("hhqqi4x", answer)[0]) != fcntl.F_UNLCK
    finally:
        os.close(descriptor)


def check_log(database: Path) -> int:
    """How many frames of a log that nobody uses would be dropped. Raises ``OSError``."""
    log = database.with_name(f"{database.name}-wal")
    if not log.exists() or is_in_use(database):
        return 0
    return dropped_frames(log.read_bytes())


def has_kept_log(database: Path) -> bool:
    """Whether a damaged log was kept beside the database."""
    return any(database.parent.glob(f"{database.name}-wal{_KEPT}*"))


def keep_damaged_log(database: Path) -> int:
    """Before a database is opened: where SQLite would drop commits, the log is kept beside it and the operator told;
    how many frames that are. Raises ``LogNotKept``: then the database is to be left alone."""
    try:
        dropped = check_log(database)
    except OSError as exc:
        logger.warning("%s: its log can't be checked: %s", database, exc)
        return 0
    if dropped:
        log = database.with_name(f"{database.name}-wal")
        try:
            kept = _keep(log)
        except OSError as exc:
            raise LogNotKept(exc) from exc
        logger.error(
            "%s: its log is damaged: up to %d pages are dropped, which were committed unless the power went while"
            " they were written; the log is kept as %s",
            database,
            dropped,
            kept.name,
        )
    return dropped


def _keep(log: Path) -> Path:
    """A durable copy under a name of its own, whole or not there: one that has the same bytes will do, an earlier
    damage's won't. Other processes may keep it at the same time. Raises ``OSError``."""
    path, is_kept = _place_for(log)
    if is_kept:
        return path
    remove_left_drafts(log.parent, re.compile(rf"{re.escape(log.name + _DRAFT)}(-[0-9a-f]{{8}})?"))
    unnamed = log.with_name(f"{log.name}{_DRAFT}-{secrets.token_hex(4)}")
    with draft(unnamed) as descriptor:
        copy_to(log, descriptor)
        path, is_kept = _place_for(log)
        if not is_kept:
            rename(unnamed, path)
    sync_folder(log.parent)
    return path


def _place_for(log: Path) -> tuple[Path, bool]:
    """The first name that is free or has such a copy already; whether it has. Raises ``OSError``."""
    name = f"{log.name}{_KEPT}{log.stat().st_mtime_ns}"
    for path in (log.with_name(f"{name}{suffix}") for suffix in chain(("",), (f"-{number}" for number in count(2)))):
        if not os.path.lexists(path):
            return path, False
        if path.is_file() and path.read_bytes() == log.read_bytes():
            return path, True
    raise AssertionError  # there are names without end
