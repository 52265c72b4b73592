"""The audit log: a chain of entries, in parts."""

import json
import threading
from pathlib import Path

import pytest

from tests.contract.harness import Clock
from wazuh_comms_trio.audit.chain import DAY, DROPPED, line_hash
from wazuh_comms_trio.audit.log import AuditLog, User, audit_log

USER = User(0, "root")


def entries(log: AuditLog) -> list[dict[str, object]]:
    lines = b"".join(path.read_bytes() for path in (*log.parts(), log.path)).splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path / "audit.log", Clock())
    for number in range(5):
        made.append(USER, "agents add", f"agent {number}")
    return made


def test_entries_are_chained(log: AuditLog) -> None:
    lines = log.path.read_bytes().splitlines()
    assert [json.loads(line)["prev"] for line in lines] == ["", *map(line_hash, lines[:-1])]
    assert list(log.faults()) == []
    assert list(AuditLog(log.path.with_name("none")).faults()) == []


def test_what_was_changed_or_taken_out_is_found(log: AuditLog) -> None:
    whole = log.path.read_bytes()
    for position in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[position] ^= 0x01
        log.path.write_bytes(spoilt)
        assert list(log.faults()) != [], position
    lines = whole.splitlines(keepends=True)
    for number in range(len(lines) - 1):
        log.path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
        assert list(log.faults()) != [], number


def test_an_earlier_versions_entries_and_cut_ones_are_gone_over(log: AuditLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"time": "2025-06-15T15:06:40.000Z", "action": "agents add", "object": "x"}\n{"time": "2025-06')
    log.append(USER, "agents remove", "x")
    log.append(USER, "agents remove", "y")
    assert list(log.faults()) == []
    assert log.path.read_bytes().count(b"\n") == 9


def test_several_at_once(tmp_path: Path) -> None:
    def write() -> None:
        for number in range(20):
            audit_log(tmp_path, max_bytes=20_000).append(USER, "a", f"{number}")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = audit_log(tmp_path)
    assert len(log.parts()) > 2
    assert len(entries(log)) == 80
    assert list(log.faults()) == []


def test_the_oldest_part_goes_after_its_days_and_that_is_recorded(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path / "audit.log", clock, max_bytes=16_000, min_days=90)
    for number in range(200):
        log.append(USER, "a", f"{number}")
    assert len(log.parts()) > 16  # far above the limit, and too young
    first = log.parts()[0]
    clock.advance(10_000 * DAY)  # a clock that jumps counts for a day
    for number in range(20):
        log.append(USER, "b", f"{number}")
    assert first.exists()
    for number in range(200):
        clock.advance(DAY)
        log.append(USER, "c", f"{number}")
    assert not first.exists()
    dropped = [entry for entry in entries(log) if entry["action"] == DROPPED]
    assert dropped
    assert [entry["object"] for entry in dropped[:1]] == [first.name] or dropped[0]["object"] > first.name  # type: ignore[operator]
    assert list(log.faults()) == []
    oldest = log.parts()[0]
    oldest.unlink()
    assert list(log.faults()) == ["its beginning is missing, and no entry says that it was deleted"]
