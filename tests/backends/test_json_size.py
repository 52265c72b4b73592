"""How much there is in a text, in steps of any length; what depends on it is neither taken apart nor lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wazuh_comms_trio.backends import json_size
from wazuh_comms_trio.backends.document_rules import NotADocument, merge
from wazuh_comms_trio.backends.json_size import check_utf8, has_many_members, has_many_values
from wazuh_comms_trio.backends.json_values import equal_json

VALUES = st.recursive(
    st.none() | st.integers(-3, 3) | st.text(':,\\"{[é', max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(':,"a', max_size=9), inner, max_size=4),
    max_leaves=20,
)
FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def members(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(members, value.values()))
    return sum(map(members, value)) if isinstance(value, list) else 0


def marks(value: Any) -> int:
    """Colons and commas, outside of strings."""
    if isinstance(value, dict):
        return len(value) + max(0, len(value) - 1) + sum(map(marks, value.values()))
    return max(0, len(value) - 1) + sum(map(marks, value)) if isinstance(value, list) else 0


@FIXTURES
@given(VALUES, st.integers(1, 40), st.integers(0, 6), st.booleans())
def test_it_is_counted_exactly(
    monkeypatch: pytest.MonkeyPatch, value: Any, step: int, many: int, escaped: bool
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, separators=(", ", " : ")).encode()
    monkeypatch.setattr(json_size, "_STEP", step)
    monkeypatch.setattr(json_size, "MANY", many)
    assert has_many_members(text) == (members(value) > many)
    assert has_many_values(text) == (marks(value) > many)


def flaw(check: Callable[[bytes], object], text: bytes) -> tuple[int, int, str] | None:
    try:
        check(text)
    except UnicodeDecodeError as exc:
        return exc.start, exc.end, exc.reason
    return None


@FIXTURES
@given(st.lists(st.binary(max_size=3) | st.text(max_size=5).map(str.encode)).map(b"".join), st.integers(1, 7))
@example(b"a\xf0\x9f\x98", 2)
@example("aé".encode(), 2)
def test_utf8_is_what_decode_takes(monkeypatch: pytest.MonkeyPatch, text: bytes, step: int) -> None:
    monkeypatch.setattr(json_size, "_STEP", step)
    assert flaw(check_utf8, text) == flaw(bytes.decode, text)


class TestVeryManyMembers:
    @pytest.fixture(autouse=True)
    def few_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(json_size, "MANY", 20)

    MANY = json.dumps({f"m{number}": number for number in range(21)}).encode()
    OTHER = MANY.replace(b": 20}", b": 21}")

    def test_are_compared_by_their_bytes(self) -> None:
        assert equal_json(self.MANY, bytes(bytearray(self.MANY)))
        assert not equal_json(self.MANY, self.OTHER)
        assert not equal_json(self.MANY, self.MANY.replace(b" ", b""))

    def test_are_not_merged(self) -> None:
        for current, partial in ((self.MANY, self.OTHER), (b"{}", self.MANY), (self.MANY, b'{"a":1}')):
            with pytest.raises(NotADocument, match="can't be merged"):
                merge(current, partial)

    def test_an_update_that_came_before_changes_nothing(self) -> None:
        assert merge(self.MANY, bytes(bytearray(self.MANY))) is self.MANY

    def test_many_elements_are_merged(self) -> None:
        text = b'{"a":[' + b",".join([b"1"] * 30) + b"]}"
        assert merge(b'{"a":[1],"b":2}', text) == text[:-1] + b',"b":2}'
