"""Which acknowledged events can't be read any more, by file. Blocking calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from attrs import define, frozen

from wazuh_comms_trio.backends.embedded.ndjson.ledger import Promise, promises, take_in
from wazuh_comms_trio.backends.embedded.ndjson.records import Gap, Record, scan
from wazuh_comms_trio.backends.embedded.ndjson.segments import SegmentFile, is_own, segment_files

#: Bytes between two pauses of a reader that has time: a few milliseconds of a processor.
_PAUSE_BYTES: Final = 128 * 1024


@frozen
class Damage:
    """``bytes`` of ``file`` that can't be read, and how many records were in them: at least so many where ``exact`` is
    false. ``cause``: what is seen of it."""

    file: str
    bytes: int
    records: int
    exact: bool
    cause: str

    def __str__(self) -> str:
        return f"{self.file}: {self.sentence}"

    @property
    def sentence(self) -> str:
        """The damage in words, without the file's name."""
        count = f"{'' if self.exact else 'at least '}{self.records} record{'' if self.records == 1 else 's'}"
        return f"{self.bytes} bytes with {count} can't be read ({self.cause})"


@define
class Reading:
    """What one look through a segment has found so far. ``offset``: where the next look begins."""

    name: str
    offset: int = 0
    _records: int = 0
    _lost: int = 0
    _gaps: int = 0
    _first_gap: int = 0
    _short: int = 0

    def parts(self, file: BinaryIO, size: int, promise: Promise | None) -> Iterator[Record | Damage]:
        """The records of the file's first ``size`` bytes from ``offset`` on; last, what the file has lost if that has
        grown. What a crash cut off was promised to nobody, and is no damage. ``promise``: taken before the size."""
        before = self._lost
        written = promise.size if promise is not None and promise.source == "written" else None
        unpromised = 0
        for part in scan(file, size, self.offset):
            if isinstance(part, Gap):
                if part.tail and (written is None or part.start >= written):
                    break  # it may become a record yet
                self._gaps += 1
                self._first_gap = part.start if self._gaps == 1 else self._first_gap
                self._lost += part.end - part.start
                self.offset = part.end
                continue
            self.offset = part.end
            self._records += 1
            unpromised += written is not None and part.end > written
            yield part
        short = max(0, promise.size - size) if promise is not None else 0
        if self._lost > before or (short and short != self._short):
            self._short = short
            yield self._damage(size, None if written is None else promise, short, self._records - unpromised)

    def _damage(self, size: int, promise: Promise | None, short: int, found: int) -> Damage:
        known = None if promise is None else promise.records
        records = max(1, self._gaps) if known is None else max(0, known - found)
        if size == 0:
            cause = "the file is empty"
        elif short:
            cause = f"the file is {short} bytes shorter than it was"
        else:
            places = "" if self._gaps == 1 else f"in {self._gaps} places, "
            cause = f"{places}from byte {self._first_gap} on"
        return Damage(self.name, self._lost + short, records, known is not None, cause)


def read_segment(
    segment: SegmentFile, reading: Reading, promise: Promise | None
) -> Iterator[tuple[Record, BinaryIO] | Damage]:
    """The records that are new since the last look, each with the open file; then what the segment has lost. A file
    that can't be opened has lost everything, one that is gone nothing: ``missing_segments`` knows."""
    try:
        file = segment.path.open("rb")
    except FileNotFoundError:
        return
    except OSError as exc:
        records = None if promise is None else promise.records
        cause = exc.strerror or "it can't be opened"
        yield Damage(segment.path.name, segment.size, records or 1, records is not None, cause)
        return
    with file:
        for part in reading.parts(file, os.fstat(file.fileno()).st_size, promise):
            yield part if isinstance(part, Damage) else (part, file)


def missing_segments(folder: Path) -> list[Damage]:
    """Segments that the ledger knows and that aren't in the folder."""
    missing = _missing(folder)
    # One that was dropped meanwhile lost its slot before its file.
    again = _missing(folder) if missing else {}
    return [
        Damage(name, promise.size, promise.records or 1, promise.records is not None, _why_missing(folder / name))
        for name, promise in again.items()
        if name in missing and promise.size
    ]


def _why_missing(path: Path) -> str:
    return "what has its name is no file" if os.path.lexists(path) else "the file is missing"


def _missing(folder: Path) -> Mapping[str, Promise]:
    known = promises(folder)
    there = {segment.path.name for segment in segment_files(folder)}
    return {name: promise for name, promise in known.items() if name not in there}


def find_damage(folder: Path, *, pause: Callable[[int], None] = lambda size: None) -> Iterator[Damage]:
    """Reads all segments through, the newest first: it is the most likely to be waited for. ``pause`` is called again
    and again, with the bytes read since."""
    yield from missing_segments(folder)
    for segment in reversed(segment_files(folder)):
        promise = promises(folder).get(segment.path.name)
        damage: list[Damage] = []
        paused_at = 0
        for part in read_segment(segment, Reading(segment.path.name), promise):
            if isinstance(part, Damage):
                damage.append(part)
            elif part[0].end - paused_at > _PAUSE_BYTES:
                pause(part[0].end - paused_at)
                paused_at = part[0].end
        if segment.path.exists():
            yield from damage


def promise_whole_records(folder: Path) -> None:
    """Notes what the segments of a folder hold that was restored: its records were acknowledged, each of them, and what
    follows the last was cut off by a crash. Raises ``OSError``."""
    found = []
    for segment in filter(is_own, segment_files(folder)):
        end = count = gaps = 0
        with segment.path.open("rb") as file:
            for part in scan(file, segment.size):
                if isinstance(part, Record):
                    end, count = part.end, count + 1
                elif not part.tail:
                    gaps += 1  # of which nobody knows how many records they were
        if end:
            found.append(Promise(segment.path.name, end, None if gaps else count))
    if found:
        take_in(folder, found)
