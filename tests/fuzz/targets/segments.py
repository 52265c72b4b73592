"""Segments of events: whatever their bytes are, each belongs to one record or one gap, what is damaged takes nothing
else with it, and reading takes time in proportion to the length."""

from __future__ import annotations

import io
from zlib import crc32

from tests.fuzz.target import Target
from wazuh_comms_trio.backends.embedded.ndjson.records import Gap, Record, envelope, read_envelope, scan
from wazuh_comms_trio.backends.embedded.ndjson.records import records as whole_records

__all__ = ["TARGETS"]

WHEN = 1_741_720_356.629


class Counted(io.BytesIO):
    """Counts what is read."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        data = super().readline(size)
        self.taken += len(data)
        return data


def parts(data: bytes) -> list[Record | Gap]:
    file = Counted(data)
    found = list(scan(file, len(data)))
    assert file.taken <= 100 * len(data) + 20_000, f"{file.taken} bytes were read of {len(data)}"
    return found


def check(data: bytes) -> None:
    found = parts(data)
    position = 0
    for part in found:
        start = part.start if isinstance(part, Gap) else position
        assert start == position < part.end <= len(data)
        if isinstance(part, Record):
            body = data[part.body_start : part.body_start + part.body_bytes]
            assert crc32(body) == part.checksum
            fields = read_envelope(data[position : part.body_start])
            assert fields == (part.agent_id, part.received, part.body_bytes, part.checksum)
        position = part.end
    assert position == len(data)
    ends = [part.end for part in found if isinstance(part, Record)]
    assert [record.end for record in whole_records(io.BytesIO(data), len(data))] == ends
    assert all(not gap.tail or gap.end == len(data) for gap in found if isinstance(gap, Gap))


def segment(*bodies: bytes) -> bytes:
    whole = b""
    for number, body in enumerate(bodies):
        whole += envelope(f"agent-{number}", WHEN + number, len(body), crc32(body)) + body
        whole += b"" if body.endswith(b"\n") else b"\n"
    return whole


BODIES = (b'{"a":1}\n{"b":2}\n', b"no line end", b"\n", b"x" * 500, b'{"@received":"forged"}\n')


def records(data: bytes) -> dict[tuple[str, bytes], int]:
    """Each record's agent and body, and where it ends. Damage of the blanks in front of a body may move its begin."""
    return {
        (part.agent_id, data[part.body_start : part.body_start + part.body_bytes]): part.end
        for part in parts(data)
        if isinstance(part, Record)
    }


def check_flips(data: bytes) -> None:
    """One damaged place in a sound segment: at most the record it is in is lost."""
    whole = bytearray(segment(*BODIES))
    place = int.from_bytes(data[:2], "big") % len(whole)
    patch = data[2:10] or b"\0"
    before = records(bytes(whole))
    assert len(before) == len(BODIES)
    whole[place : place + len(patch)] = patch[: len(whole) - place]
    after = records(bytes(whole))
    starts = [0, *before.values()]
    hit = {
        key
        for (key, end), start in zip(before.items(), starts, strict=False)
        if start < place + len(patch) and place < end
    }
    assert before.keys() - after.keys() <= hit, f"lost {before.keys() - after.keys()}, {hit} were damaged"
    assert after.keys() <= before.keys()


TARGETS = {
    "segments": Target(
        check,
        (
            segment(*BODIES),
            segment(BODIES[0])[:-5] + segment(BODIES[1]),
            b"garbage\n" + segment(b"x" * 50, b"y"),
            b'{"@received":"2025-03-11T19:12:36.629Z","agent":"old","bytes":3,"crc32":"%08x"}\nabc\n' % crc32(b"abc"),
            b'{"@received":"2025-03-11T19:12:36.629Z","agent":"a","bytes":2000,"crc32":"00000000"}\n' * 60,
        ),
        (b'{"@received":', b',"head":"', b'"bytes":', b"\n", b"-1", b"true", b"1e3", b"9" * 4400, b"\xff", b"0x"),
        longest=8000,
        cases=250,
    ),
    "segments-damaged": Target(
        check_flips,
        tuple(
            bytes([high, low, byte])
            for high, low, byte in ((0, 0, 0), (0, 13, 10), (1, 7, 123), (2, 200, 48), (3, 90, 255))
        ),
        (b"\n", b'{"@received":', b"\0" * 8, b'"'),
        longest=10,
        cases=400,
    ),
}
