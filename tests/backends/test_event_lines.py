"""Lines of JSON, cut anywhere."""

import json

from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.event_lines import LineChecker, find_bad_line, line_fault, lines_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.booleans())
def test_json_is_taken(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert line_fault(text.encode("utf-8", "surrogatepass" if ascii_only else "replace")) is None


@given(st.lists(st.sampled_from([b"{}", b"", b"1e999", b"{", b"\xff", b'"\\ud800"', b"[1]\r", b"\r", b" "])), st.data())
def test_cuts_change_nothing(lines: list[bytes], data: st.DataObject) -> None:
    body = b"\n".join(lines)
    whole = find_bad_line(body)
    checker = LineChecker()
    rest = body
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        checker.feed(rest[:size])
        rest = rest[size:]
    assert checker.finish() == whole
    bad = [number for number, line in enumerate(lines, 1) if line in (b"{", b"\xff")]
    assert (whole is None) == (not bad)
    if bad:
        assert whole is not None
        assert whole.startswith(f"line {bad[0]}: ")


sound = st.sampled_from([b"{}", b'{"a":[1,"\xc3\xa9"]}', b"1", b'"x"', b"[]"])
odd = st.sampled_from(
    [b"", b" {}", b"{}{}", b'{"a":', b"1}", b"[", b"]", b'"\xc3', b'\xa9"', b'"\\ud800"', b"{}\r", b"1 2"]
)


@given(st.lists(sound | odd, max_size=6))
def test_all_lines_at_once_are_each_line(lines: list[bytes]) -> None:
    """Values over two lines, two on one, halves of a character: as if each line stood alone."""
    faults = [(number, fault) for number, line in enumerate(lines, 1) if (fault := line_fault(line)) is not None]
    expected = f"line {faults[0][0]}: {faults[0][1]}" if faults else None
    assert find_bad_line(b"\n".join(lines)) == expected
    assert find_bad_line(b"\n".join(lines) + b"\n") == expected


@given(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=5))
def test_lines_of_a_body(lines: list[bytes]) -> None:
    for end in (b"\n", b"\r\n"):
        assert list(lines_of(b"".join(line + end for line in lines))) == lines
    if lines and lines[-1]:
        assert list(lines_of(b"\n".join(lines))) == lines


def test_reasons_say_where() -> None:
    assert line_fault(b'{"a":"\xff"}') == "invalid UTF-8 at byte 7"
    assert line_fault(b"[" * 100_000) == "nested too deeply"
    assert line_fault(b'{"\\ud800":' + b"[" * 100_000) == "nested too deeply"
    assert line_fault(b'{"\\ud800":NaN}') is not None
    assert line_fault(b'{"\\ud800":' + b"9" * 5000 + b"}") is None
