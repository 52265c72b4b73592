"""Whether two texts have the same value, whole and piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wazuh_comms_trio.backends import json_values
from wazuh_comms_trio.backends.document_rules import NotADocument, merge
from wazuh_comms_trio.backends.json_values import beginning, equal_json, same_spelling

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([0.5, 1.0, 1e300]),
        st.text('ab\\"{[é', max_size=9),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=4),
    max_leaves=12,
)
SPELLINGS = st.sampled_from(
    [
        {},
        {"ensure_ascii": False},
        {"sort_keys": True},
        {"indent": 1},
        {"separators": (" , ", " : ")},
    ]
)


def exactly(value: Any) -> Any:
    """Tells 1 from true and, which ``same_spelling`` does, too, 1 from 1.0."""
    if isinstance(value, dict):
        return {name: exactly(each) for name, each in value.items()}
    return [exactly(each) for each in value] if isinstance(value, list) else (type(value).__name__, value)


def by_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: by_value(each) for name, each in value.items()}
    if isinstance(value, list):
        return [by_value(each) for each in value]
    return ("bool", value) if isinstance(value, bool) else Decimal(value) if isinstance(value, (int, float)) else value


@pytest.mark.parametrize("whole", [1, 24, 10**6])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=VALUES, second=VALUES, spelling=SPELLINGS, other=SPELLINGS)
@example(first=[1], second=[True], spelling={}, other={})
@example(first={"a": [1, 2]}, second={"a": [1.0, 2]}, spelling={}, other={})
@example(first=[[], [1]], second=[[1]], spelling={}, other={})
def test_in_pieces_the_same_as_by_their_values(
    first: Any,
    second: Any,
    spelling: dict[str, Any],
    other: dict[str, Any],
    whole: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_values, "_WHOLE", whole)
    one, two = json.dumps(first, **spelling).encode(), json.dumps(second, **other).encode()
    assert equal_json(one, two) == (by_value(first) == by_value(second))
    assert same_spelling(one, two) == (exactly(first) == exactly(second))
    assert equal_json(one, json.dumps(first, **other).encode())


@pytest.mark.parametrize("equal", [equal_json, same_spelling])
def test_what_others_left_is_unequal_or_equal_and_never_an_error(
    equal: Callable[[bytes, bytes], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "_WHOLE", 1)
    surrogate = b'{"\\ud800":1,"a":[1,2]}'
    assert equal(surrogate, b'{"a":[1, 2],"\\ud800":1}')
    assert not equal(surrogate, b'{"a":[1,3],"\\ud800":1}')
    for bad in (b'{"a":"\xff"}', b'{"a":NaN}', b"{", b"", b"?", b'{"a":' * 10_000):
        assert not equal(bad, b'{"a":1}')
        assert not equal(b'{"a":1}', bad)
    assert equal(b'{"a":1,"a":2}', b'{"a":2 }')  # the last of equal names counts


def test_what_a_text_begins_with() -> None:
    assert [beginning(text) for text in (b"{}", b" \n[1]", b"", b"  ")] == [b"{", b"[", b"", b""]


def nested(levels: int, inner: bytes) -> bytes:
    return b'{"a":' * levels + inner + b"}" * levels


@pytest.mark.parametrize(("levels", "size"), [(900, 60_000), (60, 1_000_000), (14, 20_000_000)])
def test_an_update_reaches_as_deep_as_documents_are(levels: int, size: int) -> None:
    text = b'"%b"' % (b"x" * size)
    current = nested(levels, b'{"b":1.0,"c":%b}' % text)
    assert merge(current, nested(levels, b'{"b":2}')) == nested(levels, b'{"b":2,"c":%b}' % text)
    assert merge(current, nested(levels, b'{"b":1.0}')) is current


@pytest.mark.parametrize(("levels", "size"), [(900, 1_000_000), (100, 20_000_000)])
def test_one_that_would_take_seconds_is_refused(levels: int, size: int) -> None:
    """Each level costs a look at all below it, and all agents' writes wait meanwhile."""
    text = b'"%b"' % (b"x" * size)
    with pytest.raises(NotADocument, match="nested too deeply for its size"):
        merge(nested(levels, text), nested(levels, b"1"))
