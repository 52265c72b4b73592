"""The iterative reader of JSON's form agrees with Python's own reader, at any depth."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.services.stateful.json_form import NotAnObject, object_form


def python_says(text: bytes) -> dict[str, Any] | None:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        value = json.loads(text.decode(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


fragments = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"a"',
            '"b\\n"',
            '"\\ud800"',
            "1",
            "-0.5e3",
            "01",
            "true",
            "nul",
            " ",
            "\n",
            '"\t"',
        ]
    ),
    max_size=10,
).map(lambda parts: "".join(parts).encode())


@given(fragments.map(lambda text: b'{"k":' + text + b"}") | fragments | st.binary(max_size=12))
def test_agrees_on_what_is_an_object(text: bytes) -> None:
    expected = python_says(text)
    try:
        form = object_form(text)
    except NotAnObject:
        assert expected is None
    else:
        assert expected is not None
        members = {member.key: json.loads(text[member.value_start : member.end]) for member in form.members}
        assert members == expected


@pytest.mark.parametrize(
    ("text", "duplicate"),
    [
        (b"{}", False),
        (b'{"a":1,"b":1}', False),
        (b'{"a":1,"a":1}', True),
        (b'{"a":1,"\\u0061":1}', True),
        (b'{"a":[{"b":1,"b":2}]}', True),
        (b'{"a":{"b":1},"b":{"b":1}}', False),
    ],
)
def test_duplicates(text: bytes, duplicate: bool) -> None:
    assert object_form(text).duplicate is duplicate


def test_depth_is_no_matter() -> None:
    depth = 20_000
    text = b'{"a":' + b"[" * depth + b"]" * depth + b',"b":1}'
    assert [member.key for member in object_form(text).members] == ["a", "b"]
    with pytest.raises(NotAnObject):
        object_form(text[:-2])
