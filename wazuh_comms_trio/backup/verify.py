"""Whether embedded state is whole, and what can be saved of it where it isn't. Blocking calls; the daemon may run.

What is damaged stays beside what was saved of it, under a name of its own: nothing is thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Final, cast

import apsw
from attrs import evolve, frozen

from wazuh_comms_trio.audit.log import audit_log
from wazuh_comms_trio.backends.embedded.database.file_watch import MadeMark
from wazuh_comms_trio.backends.embedded.database.log.log_check import LogNotKept, check_log, keep_damaged_log
from wazuh_comms_trio.backends.embedded.database.schema import Schema, check_usable, migrate
from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage, Reading, find_damage, read_segment
from wazuh_comms_trio.backends.embedded.ndjson.folder_id import accept_loss, find_loss, noted_id
from wazuh_comms_trio.backends.embedded.ndjson.ledger import (
    LEDGER,
    NO_LEDGER,
    Slot,
    clear_damaged,
    damaged_slots,
    forget,
    is_something_else,
    promises,
)
from wazuh_comms_trio.backends.embedded.ndjson.records import envelope, envelope_room
from wazuh_comms_trio.backends.embedded.ndjson.scrub import was_read_through
from wazuh_comms_trio.backends.embedded.ndjson.segments import is_locked, segment_files, take_in_segments
from wazuh_comms_trio.backends.embedded.ndjson.spool import SAVING
from wazuh_comms_trio.backends.embedded.quota.counting import TRIGGERS, count_anew, wrong_sums
from wazuh_comms_trio.backends.embedded.row_checksums import damaged_rows
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.unavailable import StateForeign
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.foundation.file_writes import link_file, rename, sync, write_all
from wazuh_comms_trio.foundation.folders import draft, open_file, open_folder, sync_folder
from wazuh_comms_trio.quarantine.interface import OVERHEAD_BYTES, Rejected, digest
from wazuh_comms_trio.quarantine.opening import made_marks, quarantine_folder
from wazuh_comms_trio.quarantine.payload_files import FILES, candidates
from wazuh_comms_trio.quarantine.schema import QUARANTINE

_CHUNK: Final = 1024 * 1024
_BUSY_TIMEOUT: Final = 30_000


@frozen
class Finding:
    """One thing that isn't as it should be. ``damage``: the sentence; ``remedy``: what ``--repair`` does, empty where
    it can do nothing; ``repaired``: it did."""

    place: str
    damage: str
    remedy: str = ""
    repaired: bool = False


def verify(config: Config, *, repair: bool = False) -> Iterator[Finding]:
    """Reads all of the state and reports what is damaged. Raises ``OSError`` where it can't save something."""
    folder = config.communications_api.embedded.path
    quarantine = quarantine_folder(config)
    events = folder / "events"
    yield from _told("events", lambda: _events(events, repair))
    embedded = config.communications_api.backend == "embedded"
    has_run = embedded and (was_read_through(events) or _knows_its_folder(folder / "state.db"))
    has_kept = {
        "state.db": has_run or (embedded and (folder / "owners").is_dir()),
        "quarantine.db": has_run or bool(candidates(quarantine / FILES)),
    }
    for name, mark in sorted(made_marks(config).items(), reverse=True):
        yield from _missing(mark, repair, has_kept[name])
    yield from check_database(folder / "state.db", STATE, partial(check_state, events=events), repair)

    def entries(connection: apsw.Connection, repair: bool) -> Iterator[Finding]:
        yield from check_entries(connection, quarantine / "payloads", connection, repair)
        yield from _usage(connection, repair)

    yield from _told("audit.log", lambda: (Finding("audit.log", fault) for fault in audit_log(folder).faults()))
    yield from check_database(quarantine / "quarantine.db", QUARANTINE, entries, repair)


def _told(place: str, findings: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turns an error of reading into a finding, so that the rest is read all the same."""
    try:
        yield from findings()
    except OSError as exc:
        yield Finding(place, f"can't be read: {exc}")


def _missing(made: MadeMark, repair: bool, has_run: bool) -> Iterator[Finding]:
    loss = made.loss()
    if not made.database.exists():
        if has_run or loss is not None:
            yield Finding(made.database.name, "the file is missing; restore a backup")
    elif loss is not None:
        if repair:
            made.accept()
        yield Finding(made.database.name, loss, "it is no longer missed; restore a backup, if there is one", repair)


def _knows_its_folder(database: Path) -> bool:
    """Whether a daemon has run on this database, whatever has become of the folder of events."""
    if not database.exists() or check_log(database):
        return False  # opening it would take a damaged log away
    try:
        connection = apsw.Connection(str(database), apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(_BUSY_TIMEOUT)
            return noted_id(connection) is not None
        finally:
            connection.close()
    except apsw.Error:
        return False  # it is looked at by itself


# --- events ----------------------------------------------------------------------------------------------------------


def _events(folder: Path, repair: bool) -> Iterator[Finding]:
    if is_something_else(folder):
        beside = _kept_name(folder / LEDGER)
        if repair:
            rename(folder / LEDGER, folder / beside)
            take_in_segments(folder)
        remedy = f"it is called {beside} then; sizes are noted anew"
        yield Finding(f"events/{LEDGER}", NO_LEDGER, remedy, repair)
    broken = damaged_slots(folder)
    if broken:
        if repair:
            clear_damaged(folder)
        sentence = f"{broken} entries of the list of segments can't be read"
        yield Finding(f"events/{LEDGER}", sentence, "they are taken out; sizes are noted anew", repair)
    for damage in list(find_damage(folder)):
        path = folder / damage.file
        if not path.is_file() or path.is_symlink():
            if repair:
                forget(folder, [damage.file])
            yield Finding(f"events/{damage.file}", damage.sentence, "it is no longer missed", repair)
        elif is_locked(path):
            sentence = f"{damage.sentence}; a process writes to it: stop the daemon to repair it"
            yield Finding(f"events/{damage.file}", sentence)
        else:
            beside = _kept_name(path)
            saved = _save_segment(folder, damage, beside, write=repair)
            kept = "1 record is" if saved == 1 else f"{saved} records are"
            remedy = f"{kept} kept; the damaged file is {beside}"
            yield Finding(f"events/{damage.file}", damage.sentence, remedy, repair)


def _kept_name(path: Path) -> str:
    """Of what is damaged; it may have been damaged before."""
    names = chain((f"{path.name}.damaged",), (f"{path.name}.damaged-{number}" for number in count(2)))
    return next(name for name in names if not os.path.lexists(path.with_name(name)))


def _save_segment(folder: Path, damage: Damage, beside: str, *, write: bool) -> int:
    """Saves the whole records of a damaged segment; how many there are. ``write``: they take the damaged file's place,
    which is then called ``beside``."""
    segment = next(segment for segment in segment_files(folder) if segment.path.name == damage.file)
    promise = promises(folder).get(damage.file)
    fresh = folder / f".{damage.file}{SAVING}"
    saved = size = 0
    if write:
        fresh.unlink(missing_ok=True)
    with draft(fresh) if write else nullcontext(-1) as descriptor:
        for part in read_segment(segment, Reading(damage.file), promise):
            if isinstance(part, Damage):
                continue
            record, file = part
            saved += 1
            if not write:
                continue
            width = envelope_room(record.agent_id)
            checksum = record.checksum
            head = envelope(record.agent_id, record.received, record.body_bytes, checksum, width=width)
            write_all(descriptor, head)
            file.seek(record.body_start)
            left, last = record.body_bytes, b""
            while left > 0 and (piece := file.read(min(_CHUNK, left))):
                write_all(descriptor, piece)
                left, last = left - len(piece), piece[-1:]
            if last != b"\n":
                write_all(descriptor, b"\n")
            size += len(head) + record.body_bytes + (last != b"\n")
        if write:
            sync(descriptor)
            with open_folder(folder) as opened:
                link_file(segment.path, beside, opened)
            forget(folder, [damage.file])
            if saved:
                rename(fresh, segment.path)
            else:
                segment.path.unlink()
    if write:
        if saved:
            Slot(folder, damage.file).hold(size, saved)
        sync_folder(folder)
    return saved


# --- SQLite ----------------------------------------------------------------------------------------------------------


def check_database(
    path: Path, schema: Schema, rows: Callable[[apsw.Connection, bool], Iterator[Finding]], repair: bool = False
) -> Iterator[Finding]:
    """One SQLite file: its log, its structure, and by ``rows`` what is in it."""
    if not path.exists():
        return
    place = path.name
    dropped = check_log(path)
    if dropped:
        sentence = f"the log is damaged: up to {dropped} committed pages are lost when the file is opened"
        try:
            kept = repair and keep_damaged_log(path) > 0
        except LogNotKept as exc:
            kept, sentence = False, f"{sentence} ({exc})"
        yield Finding(f"{place}-wal", sentence, "a copy of the log is kept beside it, and the file opened", kept)
        if not kept:
            return  # opening it would take the log away
    try:
        connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as exc:
        yield Finding(place, f"can't be opened: {exc}")
        return
    try:
        connection.set_busy_timeout(_BUSY_TIMEOUT)
        complaints = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
        if complaints != ["ok"]:
            repaired = False
            if repair:
                connection.execute("REINDEX")
                repaired = connection.execute("PRAGMA integrity_check(1)").get == "ok"
            remedy = "its indexes are made anew; where its tables are damaged, only a backup helps"
            yield Finding(place, "; ".join(complaints), remedy, repaired)
        yield from _schema(connection, schema)
        yield from rows(connection, repair)
    except (apsw.Error, UnicodeDecodeError, OSError) as exc:
        yield Finding(place, f"can't be read: {exc}; restore a backup")
    finally:
        connection.close()


def _schema(connection: apsw.Connection, schema: Schema) -> Iterator[Finding]:
    """Compares tables, indexes and triggers with those that the file's version has."""
    try:
        check_usable(connection, schema)
    except StateForeign as exc:
        yield Finding(schema.name, exc.message)
        return
    version = cast("int", connection.execute("PRAGMA user_version").get)
    if version > schema.version:
        return  # a later version's, which this one can use
    optional = ", ".join(f"'{name}'" for name in TRIGGERS)
    query = (
        "SELECT type, name, tbl_name, sql FROM sqlite_schema"
        f" WHERE name NOT LIKE 'sqlite_stat%' AND name NOT IN ({optional}) ORDER BY type, name"
    )
    model = apsw.Connection(":memory:")
    try:
        migrate(model, evolve(schema, migrations=schema.migrations[:version]))
        if model.execute(query).fetchall() != connection.execute(query).fetchall():
            yield Finding(schema.name, "its tables, indexes or triggers aren't those of its version; restore a backup")
    finally:
        model.close()


def check_state(connection: apsw.Connection, repair: bool, *, events: Path) -> Iterator[Finding]:
    """Checks ``state.db``: its rows, and whether ``events`` is the folder that its daemon wrote to."""
    yield from check_rows(connection, repair)
    loss = find_loss(connection, events)
    if loss is not None:
        if repair:
            accept_loss(connection, events)
        yield Finding("events", loss, "it is no longer missed; restore a backup, if there is one", repair)


def check_rows(connection: apsw.Connection, repair: bool) -> Iterator[Finding]:
    """Checks ``state.db``: contents against checksums, counters against what is in use."""
    has_checksums = connection.execute("SELECT count(*) FROM pragma_table_info('documents') WHERE name = 'checksum'")
    if has_checksums.get:
        for row in damaged_rows(connection):
            yield Finding("state.db", f"{row}: its content isn't what was written")
    present = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for name, table, query in (
        ("documents", "documents", "SELECT max(no) FROM documents"),
        ("news", "commands", "SELECT max(news) FROM commands WHERE typeof(news) = 'integer'"),
        ("agents", "agent_changes", "SELECT max(no) FROM agent_changes"),
        ("age", "removed_agents", "SELECT 0"),
        ("age_at", "removed_agents", "SELECT 0"),
    ):
        if table not in present:  # an earlier version's
            continue
        highest = cast("int | None", connection.execute(query).get) or 0
        counter = "SELECT value FROM counters WHERE name = ? AND typeof(value) = 'integer'"
        value = cast("int | None", connection.execute(counter, (name,)).get)
        if value is None or value < highest:
            if repair:
                connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, highest))
            sentence = f"the counter of {name} is {value}, and {highest} is in use"
            yield Finding("state.db", sentence, f"it is set to {highest}", repair)
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'document_usage'").get:
        yield from _document_sums(connection, repair)


def _document_sums(connection: apsw.Connection, repair: bool) -> Iterator[Finding]:
    """Checks the sums that the documents' quota is judged by; where the daemon hasn't counted all yet there is nothing
    to compare."""
    connection.execute("BEGIN IMMEDIATE" if repair else "BEGIN")  # the sums and the documents of one moment
    try:
        wrong = wrong_sums(connection)
        if wrong and repair:
            count_anew(connection)
    finally:
        connection.execute("COMMIT")
    if wrong:
        sentence = f"the sums of {wrong} agents' documents aren't those of their documents"
        yield Finding("state.db", sentence, "they are counted anew", repair)


def check_entries(
    connection: apsw.Connection, files: Path, live: apsw.Connection, repair: bool = False
) -> Iterator[Finding]:
    """Finds entries of the quarantine whose bytes aren't what was kept, or that count for more or less; ``live``:
    which are still there. Raises SQLite's errors."""
    columns = ", ".join(f"CAST({name} AS BLOB)" for name in ("kind", "reason", "metadata", "payload", "file", "digest"))
    numbers = "CAST(payload_bytes AS INTEGER), iif(typeof(size) = 'integer', size, NULL)"
    wrong_sizes: dict[int, int] = {}
    for row in connection.execute(f"SELECT id, {numbers}, {columns} FROM entries"):
        entry_id, size, counted, kind, reason, metadata, payload, file, mark = row
        place = f"quarantine entry {entry_id}"
        name: str | None = None
        try:
            rejected = Rejected("", kind.decode("utf-8", "backslashreplace"), "", metadata, b"")
            name = None if file is None else os.fsdecode(file)
            there = len(payload) if name is None else (files / name).stat().st_size
            right = digest(rejected, [payload] if name is None else _pieces(files / name)) == mark and size == there
            counts = there + len(metadata) + len(reason) + OVERHEAD_BYTES
        except FileNotFoundError:
            if live.execute("SELECT 1 FROM entries WHERE id = ?", (entry_id,)).get is not None:
                yield Finding(place, f"its payload of {size} bytes, {name}, is missing")
            continue
        except (OSError, ValueError, TypeError, AttributeError) as exc:  # a column of another type, or a NUL in a name
            yield Finding(place, f"can't be read: {exc}")
            continue
        if not right:
            yield Finding(place, f"its {size} bytes aren't what was kept")
        elif counted != counts and _is_text(reason):  # a damaged one perhaps had another length
            wrong_sizes[entry_id] = counts
            yield Finding(place, f"it counts as {counted} bytes, and has {counts}", "that is set right", repair)
    if repair:
        sizes = [(size, entry_id) for entry_id, size in wrong_sizes.items()]
        connection.executemany("UPDATE entries SET size = ? WHERE id = ?", sizes).get  # noqa: B018


def _is_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(path: Path) -> Iterator[bytes]:
    with open_file(path) as file:
        while piece := file.read(_CHUNK):
            yield piece


def _usage(connection: apsw.Connection, repair: bool) -> Iterator[Finding]:
    """Checks the sums that limits are judged by, against the entries themselves."""
    column = connection.execute("SELECT count(*) FROM pragma_table_info('entries') WHERE name = 'overtaken_at'").get
    current = "overtaken_at IS NULL" if column else "1"
    right = (
        "SELECT '' AS agent_id, count(*), coalesce(sum(size), 0) FROM entries"
        f" UNION ALL SELECT agent_id, count(*), sum(size) FROM entries WHERE {current} GROUP BY agent_id"
    )
    wrong = f"SELECT count(*) FROM (SELECT * FROM ({right}) EXCEPT SELECT * FROM usage)"
    wrong_too = f"SELECT count(*) FROM (SELECT * FROM usage EXCEPT SELECT * FROM ({right}))"
    if connection.execute(wrong).get or connection.execute(wrong_too).get:
        if repair:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM usage")
            connection.execute(f"INSERT INTO usage {right}")
            connection.execute("COMMIT")
        yield Finding("quarantine.db", "its sums aren't those of its entries", "they are counted anew", repair)
