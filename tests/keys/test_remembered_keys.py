"""The file of the keys that signed: what it keeps, for how long, and what a process does that can't write it."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from wazuh_comms_trio.daemon.remembered_keys import (
    EARLIER_KEYS_LIFETIME,
    FILE_NAME,
    LONGEST_GRACE,
    KeyMemory,
    RememberedKeys,
    find_fault,
)

NOW = 1_750_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def memory(folder: Path, clock: Clock) -> KeyMemory:
    """As the next process sees the file."""
    found = KeyMemory(folder, wall_clock=clock)
    found.read()
    return found


def test_a_key_counts_as_long_as_its_last_token(tmp_path: Path, clock: Clock) -> None:
    memory(tmp_path, clock).note_signing("first")
    assert memory(tmp_path, clock).known.seconds_left(NOW) == {"first": EARLIER_KEYS_LIFETIME}
    memory(tmp_path, clock).note_signing("second")
    clock.now += 100
    memory(tmp_path, clock).note_signing("second")  # another restart: the first one's time goes on
    left = memory(tmp_path, clock).known.seconds_left(clock.now)
    assert left == {"first": EARLIER_KEYS_LIFETIME - 100, "second": EARLIER_KEYS_LIFETIME}
    clock.now = NOW + EARLIER_KEYS_LIFETIME
    assert "first" not in memory(tmp_path, clock).known.seconds_left(clock.now)


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path, clock: Clock) -> None:
    one, other = memory(tmp_path, clock), memory(tmp_path, clock)
    one.note_signing("first")
    other.revoke({"bad": NOW})
    one.keep("first", 3600)
    known = memory(tmp_path, clock).known
    assert known == RememberedKeys("first", {"first": NOW + 3600}, {"bad": NOW})
    assert other.read() == known


def test_nothing_is_kept_longer_than_a_day(tmp_path: Path, clock: Clock) -> None:
    memory(tmp_path, clock).keep("first", 1e9)
    clock.now -= 5 * 86400  # it was wrong, and is set
    assert memory(tmp_path, clock).known.seconds_left(clock.now) == {"first": LONGEST_GRACE}


def test_what_cant_be_written_is_said_once_and_remembered_here(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "file"
    folder.write_text("")
    here = KeyMemory(folder, wall_clock=clock)
    assert not here.revoke({"bad": NOW})
    here.note_signing("first")
    here.note_signing("second")
    assert here.known.revoked == {"bad": NOW}
    assert here.known.seconds_left(NOW) == {"first": EARLIER_KEYS_LIFETIME, "second": EARLIER_KEYS_LIFETIME}
    assert sum("can't be written" in record.getMessage() for record in caplog.records) == 1


def test_the_file_is_the_services_alone_and_bounded(tmp_path: Path, clock: Clock) -> None:
    here = memory(tmp_path, clock)
    here.revoke({"known": NOW})
    here.revoke({f"k{number}": NOW + number for number in range(1500)}, own=False)
    here.revoke({"own": NOW})  # what others say leaves room for it, and for what was known
    for number in range(40):
        here.keep(f"pem{number}", 1000 + number)
    kept = memory(tmp_path, clock).known
    assert (len(kept.revoked), len(kept.earlier)) == (1001, 32)
    assert {"known", "own"} < kept.revoked.keys()
    assert "k1499" in kept.revoked
    assert "pem39" in kept.earlier
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "token-keys.lock"]


def test_a_link_in_its_place_isnt_followed(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    victim = tmp_path / "victim"
    victim.write_text('{"signing": "x"}')
    (tmp_path / FILE_NAME).symlink_to(victim)
    assert memory(tmp_path, clock).known == RememberedKeys()
    assert "can't be read" in caplog.text
    memory(tmp_path, clock).note_signing("first")
    assert victim.read_text() == '{"signing": "x"}'


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b'{"earlier": 3}', b'{"earlier": [{}]}', b"[" * 100_000])
def test_what_isnt_understood_is_a_warning(
    tmp_path: Path, clock: Clock, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    here = memory(tmp_path, clock)
    assert here.known == RememberedKeys()
    assert "isn't understood" in caplog.text
    here.note_signing("first")
    assert memory(tmp_path, clock).known.signing == "first"


def test_a_byte_that_changed_is_told_and_the_file_kept(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A revoked key's id that changes would make the key count again."""
    memory(tmp_path, clock).revoke({"0123abcd": 5.0, "4567abcd": 6.0})
    assert find_fault(tmp_path) is None
    path = tmp_path / FILE_NAME
    damaged = path.read_bytes().replace(b"0123", b"0133")
    path.write_bytes(damaged)
    assert find_fault(tmp_path) == "isn't what was written"
    here = memory(tmp_path, clock)
    assert "isn't what was written" in caplog.text
    assert set(here.known.revoked) == {"0133abcd", "4567abcd"}
    here.revoke({"0123abcd": 5.0})
    assert find_fault(tmp_path) is None
    assert set(memory(tmp_path, clock).known.revoked) == {"0133abcd", "0123abcd", "4567abcd"}
    assert path.with_name(f"{FILE_NAME}.damaged").read_bytes() == damaged


def test_an_earlier_versions_file_has_no_checksum(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"signing":"first","earlier":[],"revoked":{}}')
    assert find_fault(tmp_path) is None
    assert memory(tmp_path, clock).known.signing == "first"


def test_a_later_versions_members_are_no_damage(tmp_path: Path, clock: Clock) -> None:
    memory(tmp_path, clock).revoke({"0123": 5})  # whole seconds, as another node may tell them
    assert find_fault(tmp_path) is None
    path = tmp_path / FILE_NAME
    members = {**msgspec.json.decode(path.read_bytes()), "later": ["x"], "checksum": None}
    members["checksum"] = crc32(msgspec.json.encode(members))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(members)))
    assert find_fault(tmp_path) is None
    assert memory(tmp_path, clock).known.revoked == {"0123": 5}
    path.write_bytes(path.read_bytes().replace(b'"x"', b'"y"'))
    assert find_fault(tmp_path) is not None
