"""Each byte of a small store flipped once, one at a time: it is found, or changes nothing that is read, or only what
``docs/guarantees.md`` lists; and everything else is kept."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing import Pool
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
import trio
from attrs import frozen

from tests.backup.small_store import make_store, state
from tests.contract.harness import A1, INDEX, embedded_config
from wazuh_comms_trio.audit.log import User, audit_log
from wazuh_comms_trio.backends.embedded.database.schema import Schema, migrate
from wazuh_comms_trio.backends.embedded.ndjson.records import records
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.embedded.row_checksums import AGENT_COLUMNS, COMMAND_COLUMNS
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.backup import verify as verify_module
from wazuh_comms_trio.backup.verify import Finding, verify
from wazuh_comms_trio.cli.commands.store import check_token_keys
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.remembered_keys import FILE_NAME as TOKEN_KEYS
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory, RememberedKeys
from wazuh_comms_trio.quarantine import rows, store
from wazuh_comms_trio.services.authentication.verified_keys import FILE_NAME as PROVEN_KEYS
from wazuh_comms_trio.services.authentication.verified_keys import VerifiedKeys

#: So much is kept inside the quarantine's database, for once: a payload beside it is of few bytes, too.
INLINE: Final = 1024
PAYLOAD: Final = b"y" * (INLINE + 1)
KEY: Final = "k" * 32

Content = tuple[dict[str, Any], dict[str, Any]]
"""What must not change unnoticed, by what it is called; and what may."""

DATABASES: Final = ("state.db", "quarantine/quarantine.db")
#: By database and table: which columns are read, of each row by the first.
PROTECTED: Final = {
    ("state.db", "agents"): AGENT_COLUMNS,
    ("state.db", "commands"): COMMAND_COLUMNS,
    ("state.db", "documents LEFT JOIN indices AS i ON i.no = index_no"): "name || '/' || id, body",
    ("quarantine/quarantine.db", "entries"): "id, kind, metadata, payload, file, size",
}
#: What ``guarantees.md`` says that nothing notices.
LISTED: Final = {
    ("state.db", "agents"): "id, no, status, last_login, group_turns, groups_of_turn",
    ("state.db", "commands"): "id, no, status, sent_at, result, owner, offered, news, ended_age, group_turn",
    ("state.db", "documents"): "id, no, version, changed_at",
    ("state.db", "counters"): "name, value",
    ("state.db", "removed_agents"): "id, age",
    ("state.db", "document_marks"): "no, age",
    ("state.db", "agent_changes"): "no, id",
    ("state.db", "agent_presence"): "id, seen, sent",
    ("state.db", "presence_watch"): "no, state",
    ("state.db", "sqlite_sequence"): "name, seq",
    ("quarantine/quarantine.db", "sqlite_sequence"): "name, seq",
    ("quarantine/quarantine.db", "entries"): "id, reason, first_at, last_at, count, replayed_at, replay_error, "
    "document, version, overtaken_at, arrival",
}


def _rows(folder: Path, name: str, tables: Mapping[tuple[str, str], str]) -> Iterator[tuple[str, Any]]:
    try:
        connection = apsw.Connection(str(folder / name))
    except apsw.Error:
        return
    try:
        for (database, table), columns in tables.items():
            if database != name:
                continue
            casts = ", ".join(f"typeof({c}), CAST({c} AS BLOB)" for c in columns.split(", "))
            with suppress(apsw.Error):
                for row in connection.execute(f"SELECT {casts} FROM {table}"):
                    yield f"{name} {table.split()[0]} {row[1]!r}", row
    finally:
        connection.close()


def read_changed(folder: Path, name: str, before: Content) -> Content:
    """As ``read_all``, where only the file ``name`` has changed since it gave ``before``."""
    database = name.removesuffix("-wal")
    if database not in DATABASES:
        return read_all(folder)
    kept, listed = ({p: v for p, v in part.items() if not p.startswith(f"{database} ")} for part in before)
    return kept | dict(_rows(folder, database, PROTECTED)), listed | dict(_rows(folder, database, LISTED))


def read_all(folder: Path) -> Content:
    """What can be read of a state: what must not change unnoticed, and what may."""
    kept: dict[str, Any] = {}
    listed: dict[str, Any] = {}
    for name in DATABASES:
        kept |= dict(_rows(folder, name, PROTECTED))
        listed |= dict(_rows(folder, name, LISTED))
    for segment in segment_files(folder / "events"):
        with segment.path.open("rb") as file:
            for record in records(file, segment.size):
                file.seek(record.body_start)
                body = file.read(record.body_bytes)
                kept[f"event {body!r}"] = (record.agent_id, record.received, body)
    for payload in (folder / "quarantine" / "payloads").iterdir():
        kept[f"payload {payload.name}"] = payload.read_bytes()
    kept |= {f"audit {line!r}": line for line in (folder / "audit.log").read_bytes().split(b"\n")}
    with suppress(ValueError, OSError):
        known = RememberedKeys.decode((folder / TOKEN_KEYS).read_bytes())
        kept["token keys"] = (known.signing, dict(known.earlier), dict(known.revoked))
    verified_keys = VerifiedKeys(folder / PROVEN_KEYS, b"secret")
    listed["a key that was proven"] = verified_keys.knows(A1, "hash", KEY)
    kept["a key that wasn't"] = verified_keys.knows(A1, "hash", "x" + KEY[1:])
    return kept, listed


def _shrink(database: Path) -> None:
    """To pages of few bytes, most of which are used."""
    connection = apsw.Connection(str(database))
    try:
        for statement in ("journal_mode = DELETE", "page_size = 512"):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


async def make(folder: Path) -> tuple[Config, Path]:
    """Its configuration, and a copy of it as a kill leaves it, with logs."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (rows, store):
            patch.setattr(module, "INLINE_BYTES", INLINE)
        config = await make_store(folder, large=PAYLOAD)
    log = audit_log(state(config))
    for number in range(3):
        log.append(User(0, "root"), "agents add", f"a{number}")
    memory = KeyMemory(state(config))
    for key in ("key one", "key two"):
        memory.note_signing(key)
    memory.revoke({"0123456789abcdef": 5.0})
    verified_keys = VerifiedKeys(state(config) / PROVEN_KEYS, b"secret")
    verified_keys.note(A1, "hash", KEY)
    for database in DATABASES:
        _shrink(state(config) / database)
    killed = folder / "killed"
    async with open_backends(config) as backends:
        await backends.agents.set_groups(A1, ["web", "db", "dmz"])
        await backends.events.bulk([DocumentOperation("create", INDEX, "late", b'{"late":1}')])
        shutil.copytree(state(config), killed)
    return config, killed


#: Each file kind: whether it is that of the store that ended in order, and its names.
KINDS: Final = {
    "segments": (False, "events/*.ndjson"),
    "ledger": (False, "events/segments.ledger"),
    "shares": (False, "events/shares/*"),
    "state.db": (False, "state.db"),
    "quarantine.db": (False, "quarantine/quarantine.db"),
    "payloads": (False, "quarantine/payloads/*"),
    "audit log": (False, "audit.log"),
    "token keys": (False, TOKEN_KEYS),
    "proven keys": (False, PROVEN_KEYS),
    "log": (True, "state.db-wal"),
}


@frozen
class Verdict:
    """``word``: found, harmless, listed, or what must not be: lost, unnoticed, crashed."""

    word: str
    detail: str = ""


def _findings(config: Config, *, repair: bool = False) -> list[Finding]:
    """As ``wazuh-comms store verify`` has them."""
    return [*verify(config, repair=repair), *check_token_keys(config, repair)]


def judge(config: Config, before: Content, kind: str, name: str) -> Verdict:
    """Of a store with a flipped byte in the file ``name``."""
    folder = state(config)
    findings = _findings(config)
    if not findings:
        kept, listed = read_changed(folder, name, before)
        if kept != before[0]:
            return Verdict("unnoticed", _difference(before[0], kept))
        if listed != before[1]:
            return Verdict("listed", _difference(before[1], listed))
        return Verdict("harmless")
    _findings(config, repair=True)
    kept, _ = read_all(folder)
    gone = {place for place in before[0] if kept.get(place) != before[0][place]}
    if kind == "segments":
        foreign = len(gone) > 1 or not all(place.startswith("event ") for place in gone)
    elif kind in ("ledger", "shares"):
        foreign = bool(gone)
    elif kind == "log":
        foreign = any(not place.startswith("state.db") for place in gone)
    else:
        own = {"state.db": "state.db", "quarantine.db": "quarantine/", "payloads": "payload ", "audit log": "audit "}
        foreign = any(not place.startswith(own.get(kind, "token")) for place in gone)
        if kind == "audit log":
            foreign = foreign or len(gone) > 2  # lines that became one
    if foreign:
        return Verdict("lost", f"{sorted(gone)} beside {[str(f.damage) for f in findings]}")
    return Verdict("found", findings[0].place)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    places = {place for place in {*before, *after} if before.get(place) != after.get(place)}
    return ", ".join(f"{place}: {before.get(place)!r:.200} -> {after.get(place)!r:.200}" for place in sorted(places))


_models: dict[tuple[str, int], bytes] = {}


def _migrate_once(connection: apsw.Connection, schema: Schema) -> None:
    """As ``migrate`` does, of an empty database; thousands of times."""
    key = schema.name, len(schema.migrations)
    if key not in _models:
        migrate(connection, schema)
        _models[key] = connection.serialize("main")
    connection.deserialize("main", _models[key])


def run(task: tuple[str, str, str, Path, list[int]]) -> list[tuple[int, Verdict]]:
    """The flips of one file at these positions, in a copy of the store."""
    kind, name, source, work, positions = task
    with tempfile.TemporaryDirectory(dir=work) as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_module, "migrate", _migrate_once)
        config = embedded_config(Path(place))
        folder = state(config)
        shutil.copytree(source, folder)
        list(verify(config))
        before = read_all(folder)
        found = []
        for position in positions:
            shutil.rmtree(folder)
            shutil.copytree(source, folder, copy_function=shutil.copyfile)
            path = folder / name
            descriptor = os.open(path, os.O_RDWR)
            byte = os.pread(descriptor, 1, position)[0]
            os.pwrite(descriptor, bytes([byte ^ 1 << position % 8]), position)
            os.close(descriptor)
            try:
                verdict = judge(config, before, kind, name)
            except Exception as exc:
                verdict = Verdict("crashed", f"{type(exc).__name__}: {exc}")
            found.append((position, verdict))
        return found


def flip_all(
    config: Config, killed: Path, *, kinds: list[str], step: int, work: Path, workers: int = 1
) -> dict[str, tuple[Counter[str], list[str]]]:
    """By kind: how many ended how, and what must not be or is listed, a line each."""
    tasks = []
    for kind in kinds:
        as_killed, pattern = KINDS[kind]
        source = killed if as_killed else state(config)
        for path in sorted(source.glob(pattern)):
            positions = list(range(0, path.stat().st_size, step))
            for start in range(0, len(positions), 500):
                name = str(path.relative_to(source))
                tasks.append((kind, name, str(source), work, positions[start : start + 500]))
    counts: dict[str, tuple[Counter[str], list[str]]] = {kind: (Counter(), []) for kind in kinds}

    def note(task: Any, found: list[tuple[int, Verdict]]) -> None:
        counter, lines = counts[task[0]]
        for position, verdict in found:
            counter[verdict.word] += 1
            if verdict.word not in ("found", "harmless"):
                lines.append(f"{task[1]} byte {position}: {verdict.word}: {verdict.detail}")

    if workers == 1:
        for task in tasks:
            note(task, run(task))
    else:
        with Pool(workers) as pool:
            for task, found in zip(tasks, pool.imap(run, tasks), strict=True):
                note(task, found)
    return counts


def every_byte(folder: Path, *, step: int = 1, only: list[str] | None = None) -> int:
    """What ``scripts/soak bytes`` does: prints what became of the flips; 1 where one is what must not be."""
    config, killed = trio.run(make, folder)
    counts = flip_all(config, killed, kinds=only or list(KINDS), step=step, work=folder, workers=os.cpu_count() or 1)
    bad = False
    for kind, (counter, lines) in counts.items():
        print(f"{kind}: {counter.total()} flips: {json.dumps(counter, sort_keys=True)}")
        for line in lines:
            print(f"  {line}")
        bad = bad or not set(counter) <= {"found", "harmless", "listed"}
    return int(bad)
