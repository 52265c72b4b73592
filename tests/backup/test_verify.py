"""``verify``: what is damaged is found, and what can be saved is saved."""

import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.backup.small_store import LARGE, make_store, state
from tests.contract.harness import A1, A2, stored_bodies
from wazuh_comms_trio.backends.embedded.row_checksums import AGENT_COLUMNS, COMMAND_COLUMNS
from wazuh_comms_trio.backup.create import backup
from wazuh_comms_trio.backup.verify import Finding, verify
from wazuh_comms_trio.config.models import Config

pytestmark = pytest.mark.real_clock


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    """A small store with a little of everything, whose daemon has ended."""
    return await make_store(tmp_path)


def found(config: Config, **options: Any) -> list[Finding]:
    return list(verify(config, **options))


def spoil(path: Path, position: int, bits: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


async def test_a_whole_store_is_whole(config: Config) -> None:
    assert found(config) == []
    assert found(config, repair=True) == []


def protected(config: Config) -> list[Any]:
    """What has checksums, as it is read."""
    rows: list[Any] = []
    for name, queries in (
        ("state.db", [f"SELECT {AGENT_COLUMNS} FROM agents", f"SELECT {COMMAND_COLUMNS} FROM commands"]),
        ("state.db", ["SELECT d.id, body, name FROM documents AS d JOIN indices AS i ON i.no = index_no"]),
        ("quarantine/quarantine.db", ["SELECT kind, metadata, payload, file FROM entries"]),
    ):
        connection = apsw.Connection(str(state(config) / name))
        try:
            rows += [sorted(map(repr, connection.execute(query))) for query in queries]
        finally:
            connection.close()
    return rows


@pytest.mark.parametrize(("name", "step"), [("state.db", 211), ("quarantine/quarantine.db", 101)])
async def test_bytes_of_a_database_flipped_once(config: Config, name: str, step: int) -> None:
    """Found, or of no consequence to what has a checksum; besides the steps, every byte of a row's own content."""
    path = state(config) / name
    whole = path.read_bytes()
    before = protected(config)
    contents = [b'{"n":2}', b"another hash", b"nonsense", b'["web","db"]', b"c1_", b'{"name":"restart"}', A2.encode()]
    positions = {*range(100), *range(100, len(whole), step)}
    for content in contents:
        start = whole.find(content)
        positions.update(range(start, start + len(content)) if start >= 0 else ())
    noticed = 0
    for position in sorted(positions):
        spoilt = bytearray(whole)
        spoilt[position] ^= 0x10
        path.write_bytes(spoilt)
        findings = found(config)
        noticed += bool(findings)
        if not findings:
            assert protected(config) == before, position
    assert noticed > 50
    path.write_bytes(whole)
    assert found(config) == []


async def test_every_byte_of_a_segment_flipped_once_and_repaired(config: Config, tmp_path: Path) -> None:
    events = state(config) / "events"
    (segment,) = events.glob("*.ndjson")
    whole = stored_bodies(state(config))
    shutil.copytree(events, tmp_path / "kept")
    for position in range(0, segment.stat().st_size, 7):
        spoil(segment, position)
        (finding,) = found(config) or [None]
        if finding is not None:
            assert finding.place == f"events/{segment.name}"
            (repaired,) = found(config, repair=True)
            assert repaired.repaired
            kept = stored_bodies(state(config))
            assert len(kept) >= 3
            assert [body for body in whole if body in kept] == kept
            assert found(config) == []
            assert (events / f"{segment.name}.damaged").exists()
        else:
            assert stored_bodies(state(config)) == whole
        shutil.rmtree(events)
        shutil.copytree(tmp_path / "kept", events)


async def test_payloads_and_sums(config: Config, tmp_path: Path) -> None:
    payloads = state(config) / "quarantine" / "payloads"
    (payload,) = payloads.iterdir()
    spoil(payload, 1000)
    (finding,) = found(config)
    assert "300000 bytes aren't what was kept" in finding.damage
    payload.unlink()
    (finding,) = found(config)
    assert "is missing" in finding.damage
    contents = backup(config, tmp_path / "one.backup")
    assert contents.damaged == (f"{finding.place}: {finding.damage}",)
    payload.write_bytes(LARGE)
    connection = apsw.Connection(str(state(config) / "quarantine" / "quarantine.db"))
    connection.execute("UPDATE usage SET bytes = bytes + 1")
    connection.close()
    (finding,) = found(config, repair=True)
    assert finding.repaired
    assert found(config) == []


async def test_a_missing_segment_is_missed_until_it_is_repaired(config: Config) -> None:
    (segment,) = (state(config) / "events").glob("*.ndjson")
    segment.unlink()
    assert "missing" in found(config)[0].damage
    assert found(config, repair=True)[0].repaired
    assert found(config) == []


async def test_what_an_earlier_version_changes_has_no_checksum(config: Config) -> None:
    """Its statements don't know the columns: triggers take the checksums away, so that nothing false is told."""
    connection = apsw.Connection(str(state(config) / "state.db"))
    connection.execute("UPDATE agents SET groups = '[]' WHERE id = ?", (A1,))
    connection.execute("UPDATE agents SET last_login = 5 WHERE id = ?", (A2,))
    connection.execute(
        "INSERT OR REPLACE INTO documents (no, index_no, id, version, changed_at, body)"
        " SELECT no + 100, index_no, id, 2, 3.0, x'7b7d' FROM documents WHERE id = 'd1'"
    )
    connection.execute("UPDATE counters SET value = 200 WHERE name = 'documents'")
    rows = connection.execute("SELECT id, checksum IS NULL FROM agents ORDER BY id").fetchall()
    connection.close()
    assert rows == [(A1, 1), (A2, 0)]
    assert found(config) == []
