"""Merging and comparing documents without touching what isn't changed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.document_rules import (
    Document,
    NotADocument,
    check_object,
    equal_json,
    merge,
    plan,
    read_object,
    same_spelling,
)
from wazuh_comms_trio.backends.interfaces import DocumentOperation

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.0, 1e300]) | st.text(max_size=3)
names = st.sampled_from(["a", "b", "c", "ü", ""])
documents = st.dictionaries(
    names,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
    ),
    max_size=4,
)


def reference(current: Any, partial: Any) -> Any:
    """The merge as one would write it down."""
    if not isinstance(current, dict) or not isinstance(partial, dict):
        return partial
    return current | {name: reference(current.get(name), value) for name, value in partial.items()}


def dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@given(documents, documents)
def test_merge_is_the_references(current: dict[str, Any], partial: dict[str, Any]) -> None:
    before = dump(current)
    merged = merge(before, dump(partial))
    assert equal_json(merged, dump(reference(current, partial)))
    assert (merged is before) == same_spelling(before, dump(reference(current, partial)))


@given(documents, documents)
def test_a_merge_again_changes_nothing(current: dict[str, Any], partial: dict[str, Any]) -> None:
    merged = merge(dump(current), dump(partial))
    assert merge(merged, dump(partial)) is merged


@given(documents, st.randoms())
def test_order_and_blanks_do_not_count(document: dict[str, Any], random: Any) -> None:
    shuffled = list(document.items())
    random.shuffle(shuffled)
    assert equal_json(dump(document), json.dumps(dict(shuffled), indent=3).encode())


@pytest.mark.parametrize(
    ("current", "partial", "merged"),
    [
        (b'{"a":1e999,"b":1}', b'{"b":2}', b'{"a":1e999,"b":2}'),
        (b'{"a":1.0,"b":1}', b'{"b":1.0}', b'{"a":1.0,"b":1.0}'),
        (b'{"a":1.0}', b'{"a":1}', b'{"a":1}'),
        (b'{"a":1.10}', b'{"a":1.1}', b'{"a":1.10}'),
        (b'{"a":123456789012345678901234567890}', b'{"b":-0.0}', b'{"a":123456789012345678901234567890,"b":-0.0}'),
        (b'{"a":{"x":1e-999,"y":"\\u0041"}}', b'{"a":{"z":1}}', b'{"a":{"x":1e-999,"y":"\\u0041","z":1}}'),
        (b'{"a":1,"a":2}', b'{"b":3}', b'{"a":2,"b":3}'),
        (b'{"a":[1]}', b'{"a":{"x":1}}', b'{"a":{"x":1}}'),
        (b'{"a":{"x":1}}', b'{"a":null}', b'{"a":null}'),
        (b"{}", b"{}", b"{}"),
    ],
)
def test_numbers_survive(current: bytes, partial: bytes, merged: bytes) -> None:
    assert merge(current, partial) == merged


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (b'{"a":1}', b'{"a":1.0}', True),
        (b'{"a":100}', b'{"a":1e2}', True),
        (b'{"a":1e999}', b'{"a":1e999}', True),
        (b'{"a":1e999}', b'{"a":10e998}', True),
        (b'{"a":1e999}', b'{"a":1e1000}', False),
        (b'{"a":0.1}', b'{"a":0.10000000000000001}', False),
        (b'{"a":9007199254740993}', b'{"a":9007199254740992}', False),
        (b'{"a":1e9999999999999999999}', b' {"a":1e9999999999999999999}', True),
        (b'{"a":1e9999999999999999999}', b'{"a":"1e9999999999999999999"}', False),
        (b'{"a":true}', b'{"a":1}', False),
        (b'{"a":false}', b'{"a":0}', False),
        (b'{"a":null}', b"{}", False),
        (b'{"a":""}', b'{"a":null}', False),
        (b'{"a":"\\u00e9"}', b'{"a":"\xc3\xa9"}', True),
        (b'{"a":[1,2]}', b'{"a":[2,1]}', False),
    ],
)
def test_equality_is_of_values(first: bytes, second: bytes, same: bool) -> None:
    assert equal_json(first, second) is same
    assert equal_json(second, first) is same


def test_long_numbers_are_compared_quickly() -> None:
    long = b"9" * 100_000
    assert equal_json(b'{"a":%b}' % long, b' {"a":%b}' % long)
    assert not equal_json(b'{"a":%b}' % long, b'{"a":%b1}' % long)


@pytest.mark.parametrize(
    "body", [b"", b" ", b"[]", b"1", b"null", b'{"a"}', b'{"a":1,}', b"{'a':1}", b'{"a":"\xff"}', b"[" * 100_000]
)
def test_what_is_no_document(body: bytes) -> None:
    for check in (read_object, check_object):
        with pytest.raises(NotADocument, match="failed to parse"):
            check(body)


@pytest.mark.parametrize("body", [b"{}", b' \n{"a":1e999} ', b'{"a":{"a":{}}}'])
def test_what_is_one(body: bytes) -> None:
    read_object(body)
    check_object(body)


def test_what_a_document_is_known_by_is_worked_out_once() -> None:
    asked: list[int] = []

    class Counting(Document):
        @property
        def name(self) -> str:
            asked.append(self.version)
            return super().name

    refused = DocumentOperation("update", "i", "1", refused="no object")
    other = DocumentOperation("create", "i", "1", b'{"b":1}')
    changing = DocumentOperation("update", "i", "1", b'{"a":2}')
    current = {("i", "1"): Counting(b'{"a":1}', 7)}
    results, _ = plan([refused, other, refused, changing, refused, refused], current)
    assert asked == [7]
    before, after = Document(b'{"a":1}', 7).name, Document(b'{"a":2}', 8).name
    assert [result.version for result in results] == [before, before, before, "", after, after]
