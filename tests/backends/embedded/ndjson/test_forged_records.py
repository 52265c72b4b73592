"""What an agent put into its bodies for the day when the line before one is damaged."""

import io
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.embedded.ndjson.range_checksums import RangeChecksums
from wazuh_comms_trio.backends.embedded.ndjson.records import Gap, Record, envelope, scan

WHEN = 1_741_720_356.629


class CountingFile(io.BytesIO):
    """How many bytes were read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        data = super().readline(size)
        self.count += len(data)
        return data


def record(agent_id: str, body: bytes, *, sealed: bool = True) -> bytes:
    line = envelope(agent_id, WHEN, len(body), crc32(body), width=0)
    return (line if sealed else line.partition(b',"head"')[0] + b"}\n") + body


def forged(length: int) -> bytes:
    """A line as if ``length`` bytes came after it."""
    return envelope("forged", WHEN, length, 5, width=0)


def unsealed(line: bytes) -> bytes:
    return line.partition(b',"head"')[0] + b"}\n"


def found(data: bytes) -> list[str]:
    return [part.agent_id for part in scan(io.BytesIO(data), len(data)) if isinstance(part, Record)]


@given(st.binary(max_size=20_000), st.data())
def test_the_checksum_of_any_range(data: bytes, chance: st.DataObject) -> None:
    data *= 3
    checksums = RangeChecksums(io.BytesIO(data))
    for _ in range(4):
        start = chance.draw(st.integers(0, len(data)))
        length = chance.draw(st.integers(0, len(data) - start))
        right = crc32(data[start : start + length])
        assert checksums.match(start, length, right)
        assert not checksums.match(start, length, right ^ 1)
    assert not checksums.match(0, len(data) + 1, crc32(data))


@pytest.mark.parametrize("kind", ["sealed", "unsealed", "starts", "records between"])
def test_a_search_is_linear(kind: str) -> None:
    """Each of thousands of forged envelopes says that all the rest is its body."""
    line = {"starts": b'{"@received":"2025-03-11T19:12:36.629Z","agent":"'}.get(kind, forged(10**6))
    line = unsealed(line) if kind == "unsealed" else line
    count = 3000
    lines = []
    for number in range(count):
        rest = (count - number - 1) * len(line)
        one = line.replace(b"1000000", b"%07d" % rest) if kind != "sealed" else forged(10**6 + rest)
        lines.append(one)
        if kind == "records between":
            lines += [record("spoofed", b"{}\n"), unsealed(one)]
    body = b"".join(lines) + b"x" * (2 * 10**6) + b"\n"
    data = b"?" + record("outer", body)[1:] + record("last", b"{}\n")
    file = CountingFile(data)
    agents = [part.agent_id for part in scan(file, len(data)) if isinstance(part, Record)]
    assert agents[-1] == "last"
    assert agents[:-1] == ["spoofed"] * (count if kind == "records between" else 0)
    assert file.count < 20 * len(data)


@pytest.mark.parametrize("length", [50, 10**9])
def test_behind_damage_no_envelope_hides_what_follows(length: int) -> None:
    """An agent's body begins with a record, and goes on with a line that covers others' records, or all the rest."""
    body = record("spoofed", b"{}\n") + forged(length) + b"x\n"
    others = record("other", b'{"n":1}\n') + record("another", b'{"n":2}\n')
    assert found(record("outer", body) + others) == ["outer", "other", "another"]
    damaged = b"?" + record("outer", body)[1:] + others
    assert found(damaged) == ["spoofed", "other", "another"]
    parts = list(scan(io.BytesIO(damaged), len(damaged)))
    assert sum(part.end - part.start for part in parts if isinstance(part, Gap)) > len(forged(length))


def test_a_file_that_is_cut_off_meanwhile_ends_the_search() -> None:
    data = b"?" + record("outer", forged(10**6) * 50)[1:]
    parts = list(scan(io.BytesIO(data), len(data) + 3 * 10**6))
    assert parts == [Gap(0, len(data) + 3 * 10**6, True)]
