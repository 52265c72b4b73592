"""Dates, ids and JSON as they come from anybody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.backends.opensearch.client.queries import encode_json, is_possible_id, to_moment
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.foundation.timestamps import to_iso


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_moment_has_a_text(moment: float) -> None:
    text = to_iso(moment)
    assert len(text) == 24
    again = to_moment(text)
    assert again is not None
    if -6e10 < moment < 2e11:
        assert again == pytest.approx(moment, abs=0.001)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2025-03-11T19:12:36.629Z", 1741720356.629),
        ("2025-03-11T19:12:36.629123456Z", 1741720356.629123),
        ("2025-03-11T21:12:36+02:00", 1741720356.0),
        ("2025-03-11T19:12:36", 1741720356.0),
        ("2025-03-11", 1741651200.0),
        (1741720356, 1741720356.0),
        (1741720356629, 1741720356.629),
        ("1741720356629", 1741720356.629),
        (1741720356.5, 1741720356.5),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        ([], None),
        (float("inf"), None),
        ("nan", None),
        ("9" * 400, None),
    ],
)
def test_dates_of_any_writer(value: object, moment: float | None) -> None:
    assert to_moment(value) == moment


@given(st.text())
def test_what_is_a_possible_id(document_id: str) -> None:
    assert is_possible_id(document_id) == (0 < len(document_id.encode()) <= 512)
    assert not is_possible_id(document_id + "\ud800")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(JSON_VALUES)
def test_json_there_and_back(value: Any) -> None:
    assert json.loads(encode_json([value, 1])) == [value, 1]


def test_half_a_pair_is_a_question_mark() -> None:
    assert encode_json({"a": "x\ud800y"}) == b'{"a": "x?y"}'


NAMES = ("command", "delivery", "target", "action", "result", "status", "timeout", "id", "type", "code", "data", "args")


@given(st.dictionaries(st.sampled_from(["@timestamp", "delivery_timestamp", *NAMES]), st.deferred(lambda: ODD)))
def test_any_document_can_be_read(source: dict[str, Any]) -> None:
    command = Document("c", source, 1, 1, 5.0).command
    assert command.document_id == "c"
    assert command.status in ("pending", "sent", "success", "failed")
    assert command.target.type in ("agent", "group", "server")
    assert isinstance(command.timeout, int | float)
    assert isinstance(command.created_at, float)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("PENDING"),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(NAMES), children, max_size=5),
)
