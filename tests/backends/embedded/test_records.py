"""Segments of the embedded engine: whatever a crash leaves, readers see whole records only."""

import io
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.embedded.ndjson.records import (
    ENVELOPE_BYTES,
    envelope,
    envelope_room,
    read_envelope,
    records,
    whole_end,
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


def expected(contents: list[bytes]) -> list[tuple[str, bytes]]:
    return [(f"agent-{number}", body) for number, body in enumerate(contents)]


@given(bodies)
def test_all_come_back(contents: list[bytes]) -> None:
    data = segment(contents)
    assert read(data) == expected(contents)
    assert whole_end(io.BytesIO(data), len(data)) == len(data)


@given(bodies, st.data())
def test_a_cut_off_record_is_not_there(contents: list[bytes], data: st.DataObject) -> None:
    whole = segment(contents)
    cut = data.draw(st.integers(0, len(whole)))
    found = read(whole[:cut])
    assert found == expected(contents)[: len(found)]
    complete = sum(len(segment(contents[:count])) <= cut for count in range(1, len(contents) + 1))
    assert len(found) == complete
    assert whole_end(io.BytesIO(whole[:cut]), cut) == len(segment(contents[:complete]))


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
