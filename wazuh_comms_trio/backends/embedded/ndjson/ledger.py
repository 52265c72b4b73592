"""What the segments of a folder should hold: a file of slots, one a segment, that its writer brings up to date after
each acknowledged append. With it an emptied, shortened or missing segment is noticed.

A slot is written in place and not synced, but where it is freed: after a power cut it may say less than what is there,
never more, and nothing at all where one behind it was kept: it is zeros. Slots of dropped segments are used again.
Blocking calls; no failure here is a failure of the events.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal
from zlib import crc32

from attrs import define, field, frozen

from wazuh_comms_trio.foundation.file_writes import sync_data, write_all_at
from wazuh_comms_trio.foundation.folders import adopt, open_regular

logger = logging.getLogger(__name__)

LEDGER: Final = "segments.ledger"

#: Where something else has its name.
NO_LEDGER: Final = "what has the name of the list of segments is no file: nobody knows whether one is missing"

#: A slot's length; two fit into a disk's smallest sector, so that none is written by halves.
_SLOT: Final = 256
_FREE: Final = b" " * (_SLOT - 1) + b"\n"
#: One that never came onto the disk, before the power went.
_UNWRITTEN: Final = bytes(_SLOT)

#: ``written``: whole records up to ``size``. ``found``: a file's size and no more, of an earlier version's writer.
Source = Literal["written", "found"]


@frozen
class Promise:
    """What a segment holds at least: ``size`` bytes, ``records`` (None: unknown)."""

    segment: str
    size: int
    records: int | None
    source: Source = "written"


def _encode(promise: Promise) -> bytes:
    segment, records = json.dumps(promise.segment), "null" if promise.records is None else promise.records
    fields = f'[{segment},{promise.size},{records},"{promise.source}"]'.encode()
    line = b"%s %08x" % (fields, crc32(fields))
    return line.ljust(_SLOT - 1) + b"\n"


def _decode(slot: bytes) -> Promise | None:
    """None for a free slot, and for a damaged one."""
    fields, _, checksum = slot.rstrip().rpartition(b" ")
    try:
        if int(checksum, 16) != crc32(fields):
            return None
        values: list[Any] = json.loads(fields)
        return Promise(*values)
    except (ValueError, TypeError):
        return None


def promises(folder: Path) -> dict[str, Promise]:
    """What each segment that has a slot should hold; none when there is no ledger, or something else has its name.
    Raises ``OSError``."""
    data = _read(folder)
    slots = (data[start : start + _SLOT] for start in range(0, len(data), _SLOT))
    return {promise.segment: promise for slot in slots if (promise := _decode(slot)) is not None}


def damaged_slots(folder: Path) -> int:
    """How many slots are neither free nor readable. Raises ``OSError``."""
    data = _read(folder)
    slots = (data[start : start + _SLOT] for start in range(0, len(data), _SLOT))
    return sum(not _is_free(slot) and _decode(slot) is None for slot in slots)


def _read(folder: Path) -> bytes:
    try:
        descriptor = open_regular(folder / LEDGER)
    except FileNotFoundError:
        return b""
    if descriptor is None:
        return b""
    with open(descriptor, "rb") as file:
        return file.read()


def is_something_else(folder: Path) -> bool:
    """Whether a folder, a link or the like has the ledger's name: nothing is noted then."""
    path = folder / LEDGER
    return os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode)


@define
class Slot:
    """The slot of one segment, for the segment's writer."""

    folder: Path
    segment: str
    size: int = 0
    records: int = 0
    _place: int | None = None
    _path: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._path = str(self.folder / LEDGER)

    def hold(self, size: int, records: int) -> None:
        """``records`` more were acknowledged; the segment has ``size`` bytes now."""
        self.size = size
        self.records += records
        promise = Promise(self.segment, self.size, self.records)
        try:
            if self._place is None:
                with _locked(self.folder) as descriptor:
                    self._place = next(_free_places(descriptor))
                    write_all_at(descriptor, _encode(promise), self._place)
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                write_all_at(descriptor, _encode(promise), self._place)
            finally:
                os.close(descriptor)
        except OSError as exc:
            self._place = None
            logger.debug("events: the ledger of segments can't be written: %s", exc)


def forget(folder: Path, segments: Collection[str]) -> None:
    """Frees the slots of segments that are about to be dropped, durably: after a power cut none is missed that was.
    Raises ``OSError``."""
    if not (folder / LEDGER).exists():
        return
    with _locked(folder) as descriptor:
        decoded = ((place, _decode(slot)) for place, slot in _slots(descriptor))
        places = [place for place, promise in decoded if promise is not None and promise.segment in segments]
        for place in places:
            write_all_at(descriptor, _FREE, place)
        if places:
            sync_data(descriptor)


def clear_damaged(folder: Path) -> None:
    """Frees the slots that can't be read, durably. Raises ``OSError``."""
    with _locked(folder) as descriptor:
        for place, slot in _slots(descriptor):
            if not _is_free(slot) and _decode(slot) is None:
                write_all_at(descriptor, _FREE, place)
        sync_data(descriptor)


def take_in(folder: Path, found: Iterable[Promise]) -> None:
    """Gives segments that have no slot one: what another version wrote, or a restore brought. Raises ``OSError``."""
    with _locked(folder) as descriptor:
        known = {promise.segment for _, slot in _slots(descriptor) if (promise := _decode(slot)) is not None}
        new = [promise for promise in found if promise.segment not in known]
        for promise, place in zip(new, _free_places(descriptor), strict=False):
            write_all_at(descriptor, _encode(promise), place)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(folder / LEDGER, flags, 0o600)
    try:
        adopt(descriptor, folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _slots(descriptor: int) -> Iterator[tuple[int, bytes]]:
    size = os.fstat(descriptor).st_size
    for place in range(0, size, _SLOT):
        yield place, os.pread(descriptor, _SLOT, place)


def _is_free(slot: bytes) -> bool:
    return slot in (_FREE, _UNWRITTEN)


def _free_places(descriptor: int) -> Iterator[int]:
    """Never ends: behind the last slot there is room."""
    slots = list(_slots(descriptor))
    yield from (place for place, slot in slots if _is_free(slot) or len(slot) < _SLOT)
    yield from count(len(slots) * _SLOT, _SLOT)
