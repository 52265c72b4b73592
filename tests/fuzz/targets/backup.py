"""Backup files: a damaged one is refused with a sentence, and what the node has is as it was."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import apsw
from attrs import evolve

from tests.fuzz.target import Target
from wazuh_comms_trio.backends.embedded.database.schema import migrate
from wazuh_comms_trio.backends.embedded.row_checksums import document_checksum, row_checksum
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.backup.format import BackupError, Contents, Member, decode_manifest, encode_manifest
from wazuh_comms_trio.backup.restore import restore
from wazuh_comms_trio.backup.verify import verify
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import Config

__all__ = ["TARGETS"]

#: Files in memory, where there are such.
SHM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CONFIG = "communications_api:\n  backend: embedded\n  ssl: {key: k, cert: c}\n"


@cache
def settings() -> Config:
    """Reading a file costs more than most inputs."""
    return load_config(Path("/nowhere/c.yml"), check_files=False, credentials=False, text=CONFIG).config


def settings_for(folder: Path) -> Config:
    api = settings().communications_api
    return evolve(settings(), communications_api=evolve(api, embedded=evolve(api.embedded, path=folder)))


@cache
def state(rows: bool = False) -> bytes:
    """An empty ``state.db``, or one with a row of each kind, in the smallest pages, so that inputs are small."""
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        path = Path(folder) / "state.db"
        connection = apsw.Connection(str(path))
        connection.execute("PRAGMA page_size=512")
        migrate(connection, STATE)
        if rows:
            agent = ("a1", "web-1", "hash", "endpoint", "v5", '["web"]', "{}")
            columns = "id, name, key_hash, type, version, groups, host, status, checksum"
            values = (*agent, "active", row_checksum(*agent))
            connection.execute(f"INSERT INTO agents ({columns}) VALUES (?,?,?,?,?,?,?,?,?)", values)
            connection.execute("INSERT INTO indices VALUES (1, 'wazuh-states-fim')")
            document = (1, 1, "a1_d", 1, 1.0, b"{}", document_checksum("a1_d", b"{}"))
            columns = "no, index_no, id, version, changed_at, body, checksum"
            connection.execute(f"INSERT INTO documents ({columns}) VALUES (?,?,?,?,?,?,?)", document)
            command = ("c1", "agent", "a1", "pending", 1.0, 60.0, "{}")
            columns = "id, target_type, target_id, status, created_at, timeout, body"
            connection.execute(f"INSERT INTO commands ({columns}) VALUES (?,?,?,?,?,?,?)", command)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        return path.read_bytes()


def archive(*files: tuple[str, bytes], tar_format: int = tarfile.PAX_FORMAT, manifest: bytes | None = None) -> bytes:
    members = tuple(Member(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files)
    last = encode_manifest(Contents("2025-01-01T00:00:00Z", "1", members)) if manifest is None else manifest
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in (*files, ("manifest.json", last)):
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))
    return buffer.getvalue()


def seen(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def check(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=SHM) as name:
        folder = Path(name) / "state"
        (folder / "events").mkdir(parents=True)
        (folder / "events" / "kept.ndjson").write_bytes(b"kept")
        file = Path(name) / "a.backup"
        file.write_bytes(data)
        config = settings_for(folder)
        before = seen(folder)
        with suppress(StateUnusable):
            try:
                contents = restore(config, file, replace=True)
            except BackupError as error:
                assert str(error)  # a sentence for the operator
                left = seen(folder)
                assert {path: left.get(path) for path in before} == before
                assert not [path for path in left if ".restore-" in path]
                return
            assert contents.embedded_state
            assert (folder / "state.db").exists()
            assert {path.name for path in folder.parent.iterdir()} <= {"state", "a.backup"}
            assert all(str(finding.damage) for finding in verify(config))


def check_database(data: bytes) -> None:
    """``data``: a database that the manifest says is so."""
    check(archive(("state.db", data), _SEGMENT))


def check_manifest(data: bytes) -> None:
    try:
        contents = decode_manifest(data)
    except BackupError as error:
        assert str(error)  # a sentence for the operator
        return
    assert len({member.name: member for member in contents.members}) <= len(contents.members)
    assert decode_manifest(encode_manifest(contents)) == contents


_SEGMENT = ("events/20250101-a.ndjson", b"{}\n")
_MANIFEST = encode_manifest(Contents("2025-01-01T00:00:00Z", "1", (Member("state.db", 5, "ab"),), ("x is lost",)))
TARGETS = {
    "backup": Target(
        check,
        (
            archive(("state.db", state()), _SEGMENT),
            archive(("state.db", b"no database"), _SEGMENT),
            archive(_SEGMENT, ("quarantine/payloads/00ff", b"x")),
            archive(("events/é.ndjson", b"x"), tar_format=tarfile.PAX_FORMAT),
            archive(("events/" + "a" * 200 + ".ndjson", b"x"), tar_format=tarfile.GNU_FORMAT),
            archive(manifest=b'{"format":1,"program":"1","created":"c","files":[]}'),
        ),
        (
            b"ustar",
            b"\x80" + b"\0" * 11,
            b"\xff" * 12,
            b"00000000000",
            b"77777777777",
            b"L",
            b"x",
            b"g",
            b"S",
            b"K",
            b"5",
            b"2",
            b"../../x",
            b"/etc/x",
            b"30 path=",
            b"20 size=-1\n",
            b"25 GNU.sparse.size=x\n",
            b"-1",
        ),
        longest=100_000,
        cases=50,
    ),
    "backup-database": Target(
        check_database,
        (state(), state(rows=True)),
        (
            b"CREATE TABLE agents (",
            b"CREATE TRIGGER",
            b"AFTER DELETE",
            b"SQLite format 3\0",
            b"\0" * 8,
            b"\xff" * 8,
            b"WITHOUT ROWID",
        ),
        longest=60_000,
        cases=50,
    ),
    "manifest": Target(
        check_manifest,
        (_MANIFEST, encode_manifest(Contents("c", "p", (), (), False))),
        (b'"format": ', b'"files": [', b"null", b"true", b"1e999", b"[" * 3000, b'"name": []', b"NaN", b"\xff", b"-1"),
        longest=4000,
        cases=1500,
    ),
}
