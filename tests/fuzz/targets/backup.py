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

from tests.fuzz.target import Target
from wazuh_comms_trio.backends.embedded.database.schema import migrate
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.backup.format import BackupError, Contents, Member, decode_manifest, encode_manifest
from wazuh_comms_trio.backup.restore import restore
from wazuh_comms_trio.config.load import load_config

__all__ = ["TARGETS"]

#: Files in memory, where there are such.
SHM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
CONFIG = "communications_api:\n  backend: embedded\n  ssl: {{key: k, cert: c}}\n  embedded:\n    path: {}\n"


@cache
def state() -> bytes:
    """An empty ``state.db``."""
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        path = Path(folder) / "state.db"
        connection = apsw.Connection(str(path))
        migrate(connection, STATE)
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
        config = load_config(
            Path(name) / "c.yml", check_files=False, credentials=False, text=CONFIG.format(folder)
        ).config
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
        longest=400_000,
        cases=12,
    ),
    "manifest": Target(
        check_manifest,
        (_MANIFEST, encode_manifest(Contents("c", "p", (), (), False))),
        (b'"format": ', b'"files": [', b"null", b"true", b"1e999", b"[" * 3000, b'"name": []', b"NaN", b"\xff", b"-1"),
        longest=4000,
        cases=1500,
    ),
}
