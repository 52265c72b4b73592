"""Segments of the embedded engine: whatever a crash leaves, readers see whole records only."""

import io
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.embedded.ndjson.records import (
    ENVELOPE_BYTES,
    Gap,
    Record,
    envelope,
    envelope_room,
    read_envelope,
    records,
    scan,
)
from wazuh_comms_trio.foundation.timestamps import to_iso

WHEN = 1_741_720_356.629
bodies = st.lists(
    st.binary(min_size=1, max_size=300) | st.just(b"{}\n") | st.just(envelope("x", WHEN, 3, 5)), max_size=6
)


def segment(contents: list[bytes]) -> bytes:
    whole = b""
    for number, body in enumerate(contents):
        whole += envelope(f"agent-{number}", WHEN + number, len(body), crc32(body)) + body
        whole += b"" if body.endswith(b"\n") else b"\n"
    return whole


def read(data: bytes, offset: int = 0) -> list[tuple[str, bytes]]:
    file = io.BytesIO(data)
    return [
        (record.agent_id, data[record.body_start : record.body_start + record.body_bytes])
        for record in records(file, len(data), offset)
    ]


def whole_end(data: bytes) -> int:
    """Where the last whole record ends."""
    return max((record.end for record in records(io.BytesIO(data), len(data))), default=0)


def expected(contents: list[bytes]) -> list[tuple[str, bytes]]:
    return [(f"agent-{number}", body) for number, body in enumerate(contents)]


@given(bodies)
def test_all_come_back(contents: list[bytes]) -> None:
    data = segment(contents)
    assert read(data) == expected(contents)
    assert whole_end(data) == len(data)


@given(bodies, st.data())
def test_a_cut_off_record_is_not_there(contents: list[bytes], data: st.DataObject) -> None:
    whole = segment(contents)
    cut = data.draw(st.integers(0, len(whole)))
    found = read(whole[:cut])
    assert found == expected(contents)[: len(found)]
    complete = sum(len(segment(contents[:count])) <= cut for count in range(1, len(contents) + 1))
    assert len(found) == complete
    assert whole_end(whole[:cut]) == len(segment(contents[:complete]))


@given(bodies.filter(bool), st.data())
def test_a_damaged_body_costs_its_record_only(contents: list[bytes], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(contents) - 1))
    whole = bytearray(segment(contents))
    start = len(segment(contents[:which])) + ENVELOPE_BYTES
    where = start + data.draw(st.integers(0, len(contents[which]) - 1))
    whole[where] ^= 0x20 if whole[where] != 0x2A else 0x01  # never makes or unmakes a newline
    found = read(bytes(whole))
    assert found == [item for number, item in enumerate(expected(contents)) if number != which]


@given(bodies, st.binary(max_size=200))
def test_zeros_and_garbage_after_the_end(contents: list[bytes], tail: bytes) -> None:
    """A power cut may leave a file longer than what was written."""
    whole = segment(contents)
    assert read(whole + bytes(500))[: len(contents)] == expected(contents)
    assert read(whole + tail)[: len(contents)] == expected(contents)


def test_an_agent_cannot_forge_a_record() -> None:
    inner = b"{}\n"
    forged = b"{}\n" + envelope("somebody else", WHEN, len(inner), crc32(inner)) + inner
    whole = segment([b"{}\n", forged])
    for cut in range(len(whole) + 1):
        assert "somebody else" not in [agent for agent, _ in read(whole[:cut])]


def test_records_from_an_offset() -> None:
    contents = [b"1\n", b"22", b"333\n"]
    first = len(segment(contents[:1]))
    assert read(segment(contents), first) == expected(contents)[1:]


@pytest.mark.parametrize("agent", ["a", "0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "ü" * 200, 'quo"te\\'])
def test_an_envelope_keeps_its_length(agent: str) -> None:
    room = envelope_room(agent)
    for size in (0, 1, 10**12):
        line = envelope(agent, WHEN, size, 0xDEADBEEF, width=room)
        assert len(line) == room
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert read_envelope(line) == (agent, WHEN, size, 0xDEADBEEF)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}\n",
        b'{"@received":1}\n',
        b'{"@received":"yesterday","agent":"a","bytes":1,"crc32":"0"}\n',
        b'{"@received":"2025-03-11T19:12:36Z","agent":1,"bytes":1,"crc32":"0"}\n',
        b'{"@received":"2025-03-11T19:12:36Z","agent":"a","bytes":-1,"crc32":"0"}\n',
        b'{"@received":"2025-03-11T19:12:36Z","agent":"a","bytes":1,"crc32":"xyz"}\n',
        b'{"@received":"2025-03-11T19:12:36Z","agent":"a","bytes":1,"crc32":5}\n',
        b'{"@received":"2025-03-11T19:12:36Z","agent":"a","bytes":1}\n',
        b'{"@received":[[[',
    ],
)
def test_what_is_no_envelope(line: bytes) -> None:
    assert read_envelope(line) is None


def test_time_is_utc() -> None:
    assert to_iso(0) == "1970-01-01T00:00:00.000Z"
    assert to_iso(WHEN) == "2025-03-11T19:12:36.629Z"


def scanned(data: bytes) -> list[Record | Gap]:
    return list(scan(io.BytesIO(data), len(data)))


@pytest.mark.parametrize("bits", [0x01, 0x20, 0xFF])
@pytest.mark.parametrize("last", [b'{"n":3}\n', b'{"n":3}'])
def test_every_byte_flipped_once_is_found_or_harmless(bits: int, last: bytes) -> None:
    contents = [b'{"n":1}\n', b'{"n":22}', b"{}\n", last]
    whole = segment(contents)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= bits
        found = read(bytes(damaged))
        assert [item for item in found if item not in expected(contents)] == [], position
        lost = len(contents) - len(found)
        gaps = [part for part in scanned(bytes(damaged)) if isinstance(part, Gap)]
        assert lost <= 1, position
        assert lost == 0 or gaps, position
        assert all(gap.start <= position < gap.end for gap in gaps), position


def test_a_zeroed_beginning_costs_what_it_covers() -> None:
    contents = [b"1\n", b"22", b"333\n", b"4444\n"]
    whole = segment(contents)
    for zeroed in range(1, len(segment(contents[:3]))):
        damaged = bytes(zeroed) + whole[zeroed:]
        covered = sum(len(segment(contents[:count])) < zeroed for count in range(len(contents))) if zeroed else 0
        assert read(damaged) == expected(contents)[covered:]
        first = scanned(damaged)[0]
        assert first == Gap(0, len(segment(contents[:covered])))


def test_records_of_earlier_versions_are_found_again() -> None:
    """They have no checksum of their envelopes; a length that is wrong by damage loses its own record only."""

    def old(number: int, body: bytes) -> bytes:
        line = b'{"@received":"2025-03-11T19:12:36.629Z","agent":"agent-%d","bytes":%d,"crc32":"%08x"}' % (
            number,
            len(body),
            crc32(body),
        )
        return line.ljust(ENVELOPE_BYTES - 1) + b"\n" + body

    data = old(0, b"{}\n") + old(1, b'{"n":11}\n') + old(2, b"[]\n") + old(3, b"[]\n")
    assert read(data) == [("agent-0", b"{}\n"), ("agent-1", b'{"n":11}\n'), ("agent-2", b"[]\n"), ("agent-3", b"[]\n")]
    damaged = data.replace(b'"bytes":9', b'"bytes":8')
    assert [agent for agent, _ in read(damaged)] == ["agent-0", "agent-2", "agent-3"]
