"""The quarantine on disk: one SQLite file, and a file for each large payload beside it.

Any process may open it beside the daemon. Large payloads are written and synced before the row that names them, under a
lock, so a file that has neither row nor lock was left by a killed process and is removed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import apsw
import msgspec
import trio
from attrs import evolve

from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
from wazuh_comms_trio.backends.embedded.database.file_watch import MadeMark
from wazuh_comms_trio.backends.embedded.database.log.log_check import has_kept_log
from wazuh_comms_trio.backends.embedded.ndjson.segments import is_full
from wazuh_comms_trio.backends.embedded.row_reading import read_rows
from wazuh_comms_trio.backends.embedded.state_lock import hold_state
from wazuh_comms_trio.backends.unavailable import reported
from wazuh_comms_trio.backends.unreadable import UnreadableLog
from wazuh_comms_trio.errors import BackendUnavailable, DocumentUnreadable, StorageFull
from wazuh_comms_trio.foundation.file_writes import remove
from wazuh_comms_trio.foundation.folders import open_file
from wazuh_comms_trio.foundation.outage_log import QUIET, OutageLog
from wazuh_comms_trio.quarantine.interface import (
    AGENT_SHARE,
    FULL_FOR,
    PAYLOAD_CHUNK,
    Entry,
    Kind,
    Rejected,
    Remaining,
    Usage,
    describe_full,
    digest,
)
from wazuh_comms_trio.quarantine.payload_files import (
    FILE,
    FILES,
    PayloadFiles,
    candidates,
    lock_unreferenced,
    own_name,
    set_aside,
)
from wazuh_comms_trio.quarantine.rows import (
    INLINE_BYTES,
    EqualIsGone,
    NoRoom,
    Row,
    insert_rows,
    is_known,
    replace_row,
)
from wazuh_comms_trio.quarantine.schema import QUARANTINE

logger = logging.getLogger(__name__)

_ENTRY: Final = (
    "id, agent_id, kind, reason, size, payload_bytes, first_at, last_at, count, replayed_at, replay_error,"
    " coalesce(document, ''), coalesce(version, ''), overtaken_at"
)


#: Seconds until it is logged again that an agent's share, or the whole quarantine, is full.
_REPEAT_WARNING: Final = 3600.0


class _EntryRow(msgspec.Struct, array_like=True):
    id: int
    agent_id: str
    kind: Kind
    reason: str
    size: int
    payload_bytes: int
    first_at: float
    last_at: float
    count: int
    replayed_at: float | None
    replay_error: str | None
    document: str
    version: str
    overtaken_at: float | None


def _entry(row: Any) -> Entry:
    """An entry from its row. Raises ``ValueError``."""
    return Entry(*msgspec.structs.astuple(msgspec.convert(row, _EntryRow)))


def _whole(row: Any) -> tuple[Entry, bytes]:
    *columns, metadata = row
    if not isinstance(metadata, bytes):
        raise msgspec.ValidationError("the metadata isn't bytes")
    return _entry(tuple(columns)), metadata


class StoredQuarantine:
    """``Quarantine``. Use ``open_quarantine_store``."""

    def __init__(self, folder: Path, database: Database, max_bytes: int, wall_clock: Callable[[], float]) -> None:
        self._files = folder / FILES
        self._unreadable = UnreadableLog()
        self._database = database
        self._max_bytes = max_bytes
        self._now = wall_clock
        self._outage = OutageLog(logger, "quarantine", quiet=QUIET)
        self._warned_at: dict[str | None, float] = {}  # at most the agents' number
        self._full: dict[str | None, float] = {}  # whose share was met full, and when last; None: all of it
        #: Files of calls that failed or were cancelled: no more than calls at a time, since the next one settles them.
        self._uncertain: set[str] = set()

    # --- for the services ----------------------------------------------------------------------------------------

    async def add(self, entries: Sequence[Rejected]) -> None:
        if not entries:
            return
        rows = [Row(entry, digest(entry, [entry.payload]), len(entry.payload)) for entry in entries]
        if all(row.payload_bytes <= INLINE_BYTES for row in rows):
            await self._insert(rows)
            return
        async with self._writing() as files:
            try:
                for number, row in enumerate(rows):
                    if row.payload_bytes > INLINE_BYTES:
                        rows[number] = await self._with_file(row, files, [row.rejected.payload])
                await self._insert(rows)
            except EqualIsGone:
                for number, row in enumerate(rows):
                    if row.payload_bytes > INLINE_BYTES and row.file is None:
                        rows[number] = evolve(row, file=await files.write([row.rejected.payload]))
                await self._insert(rows)
            files.keep_only(await self._named(files.names))

    async def add_file(self, rejected: Rejected, file: BinaryIO, size: int, *, start: int = 0) -> None:
        async with self._writing() as files:
            mark = await trio.to_thread.run_sync(digest, rejected, _chunks(file, start, size))
            row = await self._with_file(Row(rejected, mark, size), files, _chunks(file, start, size))
            await self._insert([row])
            files.keep_only(await self._named(files.names))

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[PayloadFiles]:
        await self.settle_files()
        try:
            async with PayloadFiles(self._files) as files:
                try:
                    yield files
                except BaseException:
                    self._uncertain.update(files.names)
                    raise
        except OSError as exc:
            raise self._translated(exc) from exc
        self._outage.worked()

    async def settle_files(self) -> None:
        """Removes the files of earlier calls that failed or were cancelled, unless a row names them: what comes after
        their rows in the order of writes knows. Raises ``BackendUnavailable``."""
        if names := tuple(self._uncertain):
            named = await self._database.write(lambda connection: _named(connection, names))
            self._remove(set(names).difference(named))
            self._uncertain.difference_update(names)

    def _translated(self, exc: OSError) -> BackendUnavailable:
        if is_full(exc):
            self._outage.failed(
                "what can't be taken gets 503 until there is room", kind="the disk is full", level=logging.ERROR
            )
            return reported(StorageFull)
        self._outage.failed(
            f"what can't be taken gets 503 ({exc.strerror})", kind=f"can't use {self._files}", level=logging.ERROR
        )
        return reported()

    async def _with_file(self, row: Row, files: PayloadFiles, pieces: Iterable[bytes]) -> Row:
        """The row with its payload written, unless an equal entry is there or there is no room."""
        with self._warning_when_full():
            known = await self._database.read(lambda connection: is_known(connection, row, self._max_bytes))
        if known:
            return row
        return evolve(row, file=await files.write(pieces))

    async def _insert(self, rows: Sequence[Row]) -> None:
        now = self._now()
        weight = sum(row.payload_bytes for row in rows if row.file is None)
        with self._warning_when_full():
            gone = await self._database.write(
                lambda connection: insert_rows(connection, rows, now, self._max_bytes), weight=weight
            )
        self._remove(gone)
        for whose in {None, *(row.rejected.agent_id for row in rows)}:
            self._full.pop(whose, None)

    def _remove(self, names: Iterable[str]) -> None:
        """Removes files that no row names any more; one that can't be removed is left to the next opening."""
        for name in names:
            try:
                remove(self._files / name)
            except OSError as exc:
                logger.warning("quarantine: %s can't be removed: %s", self._files / name, exc.strerror)

    def alarm(self) -> str | None:
        now = trio.current_time()
        self._full = {whose: when for whose, when in self._full.items() if now - when < FULL_FOR}
        return describe_full(self._full)

    @contextmanager
    def _warning_when_full(self) -> Iterator[None]:
        """A quota that is reached is the operator's to know: an agent stands still until entries are dropped."""
        try:
            yield
        except NoRoom as exc:
            now = self._full[exc.agent_id] = trio.current_time()
            if now - self._warned_at.get(exc.agent_id, -_REPEAT_WARNING) >= _REPEAT_WARNING:
                self._warned_at[exc.agent_id] = now
                if exc.agent_id is None:
                    whose = f"its {self._max_bytes} bytes are full: what can't be taken gets 503"
                else:
                    share = self._max_bytes // AGENT_SHARE
                    whose = f"agent {exc.agent_id} has filled its share of {share} bytes: what can't be taken gets 503"
                logger.warning("quarantine: %s until entries are dropped or replayed", whose)
            raise

    async def _named(self, names: Collection[str]) -> Collection[str]:
        """The files, of these, that a row names."""
        return await self._database.read(lambda connection: _named(connection, names))

    # --- for the operator's tool ---------------------------------------------------------------------------------

    async def list(self, *, agent_id: str | None = None, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        """Entries that can't be read aren't counted in ``limit``: only behind the last there are none."""
        rest = "WHERE id > ?1 AND (?2 IS NULL OR agent_id = ?2) ORDER BY id LIMIT ?3"
        found: list[Entry] = []

        def select(connection: apsw.Connection) -> tuple[list[Entry | DocumentUnreadable], Any]:
            values = (after, agent_id, limit - len(found))
            page = list(read_rows(connection, "entries", _ENTRY, rest, values, _entry, file=QUARANTINE.name))
            return page, connection.execute(f"SELECT max(id) FROM (SELECT id FROM entries {rest})", values).get

        while after is not None and len(found) < limit:
            page, after = await self._database.read(select)
            found += self._unreadable.without(page)
        return found

    async def get(self, entry_id: int) -> tuple[Entry, Rejected] | None:
        """Reads an entry. Raises ``DocumentUnreadable`` beside what the Protocol says."""
        columns = f"{_ENTRY}, metadata"

        def select(connection: apsw.Connection) -> tuple[Entry, bytes] | DocumentUnreadable | None:
            found = read_rows(connection, "entries", columns, "WHERE id = ?", (entry_id,), _whole, file=QUARANTINE.name)
            return next(found, None)

        row = await self._database.read(select)
        if isinstance(row, DocumentUnreadable):
            raise row
        if row is None:
            return None
        entry, metadata = row
        payload = b"".join([piece async for piece in self.payload(entry_id)])
        return entry, Rejected(
            entry.agent_id, entry.kind, entry.reason, metadata, payload, entry.document, entry.version
        )

    async def payload(self, entry_id: int) -> AsyncGenerator[bytes, None]:
        """Reads a payload. Raises as ``get``."""
        query = f"SELECT payload, {FILE} FROM entries WHERE id = ?"
        row: Any = await self._database.read(lambda connection: connection.execute(query, (entry_id,)).fetchone())
        if row is None:
            return
        payload, raw = row
        if payload is not None:
            if payload:
                yield payload
            return
        name = own_name(raw)
        if name is None:
            raise _unreadable(entry_id, "its payload's name is damaged")
        try:
            with await trio.to_thread.run_sync(open_file, self._files / name) as file:
                while piece := await trio.to_thread.run_sync(file.read, PAYLOAD_CHUNK):
                    yield piece
        except OSError as exc:
            raise _unreadable(entry_id, f"its payload: {exc.strerror}") from exc

    async def drop(self, entry_ids: Collection[int]) -> int:
        def delete(connection: apsw.Connection) -> list[str | None]:
            query = f"DELETE FROM entries WHERE id = ? RETURNING id, {FILE}"
            rows = [connection.execute(query, (entry_id,)).fetchone() for entry_id in entry_ids]
            return [own_name(row[1]) for row in rows if row is not None]

        dropped = await self._database.write(delete)
        self._remove(name for name in dropped if name is not None)
        return len(dropped)

    async def replace(self, entry_id: int, remaining: Sequence[Remaining]) -> None:
        async with self._writing() as files:
            rows = []
            for one in remaining:
                payload = one.rejected.payload
                row = Row(one.rejected, digest(one.rejected, [payload]), len(payload))
                if row.payload_bytes > INLINE_BYTES:
                    row = evolve(row, file=await files.write([payload]))
                rows.append((row, one.error))
            now = self._now()
            gone = await self._database.write(
                lambda connection: replace_row(connection, entry_id, rows, now, self._max_bytes)
            )
            self._remove(gone)

    async def note_replay(self, entry_id: int, error: str) -> None:
        query = "UPDATE entries SET replayed_at = ?, replay_error = ? WHERE id = ?"
        values = (self._now(), error, entry_id)
        await self._database.write(lambda connection: connection.execute(query, values).get)

    async def mark_overtaken(self, entry_ids: Collection[int]) -> None:
        query = "UPDATE entries SET overtaken_at = ? WHERE id = ? AND overtaken_at IS NULL"
        values = [(self._now(), entry_id) for entry_id in entry_ids]
        await self._database.write(lambda connection: connection.executemany(query, values).get)

    async def usage(self) -> Usage:
        def select(connection: apsw.Connection) -> Any:
            return connection.execute("SELECT entries, bytes FROM usage WHERE agent_id = ''").fetchone()

        entries, used = await self._database.read(select)
        return Usage(entries, used, self._max_bytes)

    async def remove_unreferenced(self) -> None:
        """Removes files that no row names and no process is writing; none while a log that lost rows is kept, or while
        a row's file isn't there: the row's name may be what is damaged, and one of these its payload."""
        names = candidates(self._files)
        if not names or has_kept_log(self._files.with_name(QUARANTINE.name)) or await self._misses_a_file(names):
            return
        for name in names:
            descriptor = lock_unreferenced(self._files, name)
            if descriptor is None:
                continue
            try:
                if not await self._named([name]):
                    self._remove([name])
            finally:
                os.close(descriptor)

    async def _misses_a_file(self, there: Collection[str]) -> bool:
        """Whether a row names no file, of these or of those that came since."""
        query = f"SELECT {FILE} FROM entries WHERE file IS NOT NULL"
        rows: list[Any] = await self._database.read(lambda connection: connection.execute(query).fetchall())
        others = {own_name(raw) for (raw,) in rows}.difference(there)
        return any(name is None or not (self._files / name).exists() for name in others)


def _named(connection: apsw.Connection, names: Collection[str]) -> list[str]:
    query = "SELECT 1 FROM entries WHERE file = ?"
    return [name for name in names if connection.execute(query, (name,)).get is not None]


def _unreadable(entry_id: int, why: str) -> DocumentUnreadable:
    return DocumentUnreadable(f"{QUARANTINE.name}: entries/{entry_id}", why)


def _chunks(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    file.seek(start)
    while size > 0:
        piece = file.read(min(PAYLOAD_CHUNK, size))
        if not piece:
            raise EOFError("the payload's file is shorter than its size")
        size -= len(piece)
        yield piece


@asynccontextmanager
async def open_quarantine_store(
    folder: Path,
    *,
    max_bytes: int,
    wall_clock: Callable[[], float] = time.time,
    tolerant: bool = False,
    made: MadeMark | None = None,
) -> AsyncIterator[StoredQuarantine]:
    """The quarantine in ``folder``, which is made if it isn't there. Raises ``StateUnusable``, ``tolerant`` and
    ``made`` as ``open_database``."""
    path = folder / "quarantine.db"
    with hold_state(folder):
        with suppress(OSError):  # what can't be moved stays, and the database says what is wrong with the folder
            set_aside(folder / FILES, path)
        async with open_database(path, QUARANTINE, tolerant=tolerant, made=made) as database:
            quarantine = StoredQuarantine(folder, database, max_bytes, wall_clock)
            with suppress(BackendUnavailable):  # the next opening tries again
                await quarantine.remove_unreferenced()
            yield quarantine
            with suppress(BackendUnavailable):
                await quarantine.settle_files()
