"""Backups of the embedded stores while they are used, the same state after a restore, and damage to its files."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import apsw
import trio
from attrs import evolve

from tests.simulation.determinism import EPOCH
from tests.simulation.stores.scratch import own_folder
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.embedded.ndjson import folder_id
from wazuh_comms_trio.backends.embedded.ndjson.ledger import promises
from wazuh_comms_trio.backends.embedded.ndjson.records import records
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.embedded.row_checksums import AGENT_COLUMNS, COMMAND_COLUMNS
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.backup.create import backup
from wazuh_comms_trio.backup.format import BackupError
from wazuh_comms_trio.backup.restore import restore
from wazuh_comms_trio.backup.verify import verify
from wazuh_comms_trio.config.models import Config

__all__ = ["check_backup", "check_damages", "check_left", "check_whole", "move", "segment_bodies"]

Tables = Mapping[tuple[str, str], str]
#: What is done to the files: mostly one flipped bit, anywhere, or in what a row of the state has; one is cut, or gone,
#: or all of the events are.
_HOW: Final = ("flip", "flip", "flip", "row", "row", "cut", "gone", "folder gone")
#: Bytes of what a row has, by which that is found in its file.
_LEAST_FOUND: Final = 8
#: By database and table, what damage doesn't change unnoticed (docs/guarantees.md) ...
_PROTECTED: Final = {
    ("state.db", "agents"): AGENT_COLUMNS,
    ("state.db", "commands"): COMMAND_COLUMNS,
    ("state.db", "documents JOIN indices AS i ON i.no = index_no"): "name, id, body",
    ("quarantine/quarantine.db", "entries"): "id, agent_id, kind, metadata, payload, file",
}
#: ... and what a backup has besides.
_ELSE: Final = {
    ("state.db", "commands"): "id, status, sent_at, result, offered",
    ("state.db", "agents"): "id, status, last_login",
    ("quarantine/quarantine.db", "entries"): "id, reason, document, version, count, overtaken_at",
}

#: The files of a state that nobody uses, also where a disk that failed kept SQLite from putting its log away.
_STATE: Final = re.compile(
    r"state\.(db(-wal|-shm)?|lock)|quarantine/(quarantine\.db(-wal|-shm)?|state\.lock)|events/(\d+-[^/]+\.ndjson|segments\.ledger|\.events-id)"
    r"|events/shares/\d+-[^/]+\.json|\.(state|quarantine)\.db\.made"
)
_KEPT_LOG: Final = re.compile(r"(state|quarantine)\.db-wal\.damaged-\d+(-\d+)?")
_FILES: Final = "SELECT CAST(file AS BLOB) FROM entries WHERE file IS NOT NULL"

Content = dict[str, Any]


def check_backup(config: Config) -> int:
    """Of a state that is used: what comes back from a backup is what was there at that moment. Returns the number of
    rows and records."""
    before = _content(config)
    with _scratch() as scratch, _told("backup"):
        backup(config, scratch / "backup")
        elsewhere = _moved(config, scratch / "state")
        restore(elsewhere, scratch / "backup")
        if findings := list(verify(elsewhere)):
            raise Violation("backup", f"what comes back isn't whole: {findings[0].place}: {findings[0].damage}")
        _compare("backup", before, _content(elsewhere))
    return len(before)


def move(config: Config) -> int:
    """Of a state that nobody uses: it is put back from a backup of itself."""
    before = _content(config)
    with _scratch() as scratch, _told("restore"):
        backup(config, scratch / "backup")
        restore(config, scratch / "backup", replace=True)
    _compare("restore", before, _content(config))
    return len(before)


async def check_damages(config: Config, rng: Random, number: int) -> AsyncIterator[str]:
    """Of a state that nobody uses: so many damages. Says of each what was done, and what became of it."""
    if number:
        yield f"lost while it begins: {await _check_loss(config, rng)}"
    for _ in range(number):
        yield _check_damage(config, rng)


def _check_damage(config: Config, rng: Random) -> str:
    """Of a state that nobody uses: what damages a copy of its files is found, or changes nothing that the program
    promises to notice. Returns what was done, and what became of it."""
    how = rng.choice(_HOW)
    folder = config.communications_api.embedded.path
    with _scratch() as scratch:
        copy = _moved(config, scratch / "state")
        shutil.copytree(folder, scratch / "state")
        list(verify(copy))
        before = _content(copy, [_PROTECTED])
        events = scratch / "state" / "events"
        files = [path for path in sorted((scratch / "state").rglob("*")) if path.is_file() and path.stat().st_size]
        path = rng.choice([each for each in files if each.suffix in (".db", ".ndjson") or "payloads" in each.parts])
        place = rng.randrange(path.stat().st_size)
        if how == "row" and (found := _row_place(scratch / "state" / "state.db", rng)) is not None:
            path, place = scratch / "state" / "state.db", found
        promise = promises(events).get(path.name)
        if how == "folder gone":
            path = events
            shutil.rmtree(events)
        elif how == "gone":
            path.unlink()
        else:
            damaged = bytearray(path.read_bytes())
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged[:place] if how == "cut" else damaged)
        if list(verify(copy)):
            return f"{how}: found"
        if how == "folder gone" and not _knows_its_folder(copy):
            return f"{how}: unknown"
        if path.suffix == ".ndjson" and (promise is None or promise.source != "written" or place >= promise.size):
            return f"{how}: listed"  # as what a crash cut off
        try:
            _compare("damage", before, _content(copy, [_PROTECTED]))
        except (Violation, UnicodeDecodeError) as error:
            raise Violation("damage", f"{how}: byte {place} of {path.name}: {error}") from None
        return f"{how}: harmless"


def _row_place(path: Path, rng: Random) -> int | None:
    """The place of a byte of what some row has that damage doesn't change unnoticed."""
    tables = [(table, columns) for (database, table), columns in _PROTECTED.items() if database == path.name]
    table, columns = rng.choice(tables)
    if any(_rows(path, f"SELECT 1 FROM {table.split()[0]} WHERE checksum IS NULL LIMIT 1") for table, _ in tables):
        return None  # an earlier version has written something
    rows = _rows(path, f"SELECT {columns} FROM {table} ORDER BY id")
    values = [value.encode() if isinstance(value, str) else value for row in rows for value in row]
    values = [value for value in values if isinstance(value, bytes) and len(value) >= _LEAST_FOUND]
    if not values:
        return None
    value = rng.choice(values)
    start = path.read_bytes().rfind(value)
    return None if start < 0 else start + rng.randrange(len(value))


async def _check_loss(config: Config, rng: Random) -> str:
    """Of a state that nobody uses, whose folder of events is gone: that is found also where the daemon that notices it
    is killed just then. Returns what became of it."""
    with _scratch() as scratch:
        copy = _moved(config, scratch / "state")
        shutil.copytree(config.communications_api.embedded.path, scratch / "state")
        if not _knows_its_folder(copy):
            return "unknown"
        events = scratch / "state" / "events"
        shutil.rmtree(events)
        events.mkdir(0o700)
        with _unheard(folder_id.logger):
            async with (
                open_sqlite(scratch / "state", wall_clock=lambda: EPOCH) as stores,
                trio.open_nursery() as daemon,
            ):
                daemon.start_soon(folder_id.watch_folder, events, stores.database)
                for _ in range(rng.randrange(12)):
                    await trio.lowlevel.checkpoint()
                shutil.copytree(scratch / "state", scratch / "killed")
                daemon.cancel_scope.cancel()
        if not list(verify(_moved(config, scratch / "killed"))):
            raise Violation("damage", "the folder of events was lost, and once a daemon has begun nothing says so")
        return "found"


def _knows_its_folder(config: Config) -> bool:
    """Has a daemon noted which folder its events are in? That may have been kept from it all the time."""
    query = f"SELECT 1 FROM counters WHERE name = '{folder_id.ROW}'"
    return bool(_rows(config.communications_api.embedded.path / "state.db", query))


@contextmanager
def _unheard(logger: logging.Logger) -> Iterator[None]:
    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


def check_left(folder: Path, *, tears_logs: bool) -> None:
    """When all processes have ended there are no files but those of the state, and none that the quarantine doesn't
    know. After a power cut, or writes that failed (``tears_logs``), a log that was torn in its middle is kept."""
    known = {bytes(name).decode() for (name,) in _rows(folder / "quarantine/quarantine.db", _FILES)}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if tears_logs and _KEPT_LOG.fullmatch(path.name):
            continue
        if path.is_file() and not _STATE.fullmatch(name) and path.name not in known:
            raise Violation("leaks", f"{name} is left")


def check_whole(config: Config) -> None:
    """Of a state that nobody uses, and that nothing has damaged."""
    for finding in verify(config):
        raise Violation("damage", f"nothing has damaged {finding.place}, of which is said: {finding.damage}")


def segment_bodies(folder: Path) -> list[bytes]:
    """Of the whole records."""
    found = []
    for segment in segment_files(folder):
        with segment.path.open("rb") as file:
            for record in records(file, segment.size):
                file.seek(record.body_start)
                found.append(file.read(record.body_bytes))
    return found


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="backup-", dir=own_folder()) as name:
        yield Path(name)


@contextmanager
def _told(check: str) -> Iterator[None]:
    try:
        yield
    except BackupError as error:
        raise Violation(check, str(error)) from error


def _moved(config: Config, folder: Path) -> Config:
    api = config.communications_api
    return Config(evolve(api, embedded=evolve(api.embedded, path=folder)))


def _content(config: Config, which: Sequence[Tables] = (_PROTECTED, _ELSE)) -> Content:
    """What can be read of a state, by what it is called."""
    folder = config.communications_api.embedded.path
    found: Content = {}
    for tables in which:
        for (database, table), columns in tables.items():
            for number, row in enumerate(_rows(folder / database, f"SELECT {columns} FROM {table} ORDER BY id")):
                found[f"{table.split()[0]} {columns[:10]} {number}"] = row
    found |= {f"body {number}": body for number, body in enumerate(sorted(segment_bodies(folder / "events")))}
    payloads = folder / "quarantine" / "payloads"
    if payloads.is_dir():  # a payload is written before the row that names it, and belongs to the state with that
        named = {bytes(name) for (name,) in _rows(folder / "quarantine/quarantine.db", _FILES)}
        paths = [path for path in payloads.iterdir() if os.fsencode(path.name) in named]
        found |= {f"payload {path.name}": path.read_bytes() for path in paths}
    return found


def _rows(path: Path, query: str) -> list[Any]:
    if not path.exists():
        return []
    connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)
    try:
        return list(connection.execute(query))
    finally:
        connection.close()


def _compare(check: str, before: Content, after: Content) -> None:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            raise Violation(check, f"{name} was {before.get(name)!r:.200} and is {after.get(name)!r:.200}")
