"""What wazuh-db's answers mean, and which page comes next: the pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wazuh_comms_trio.errors import AnswerInvalid
from wazuh_comms_trio.wire.wdb_paging import Due, due_meaning, first_page, items_of, last_id_of, next_page

# --- pure: what due means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "meaning"),
    [
        ("global get-all-agents last_id 0", Due.PAGES),
        ("global get-all-agents", Due.PAGES),
        ("global get-group-agents default last_id 7", Due.PAGES),
        ("global get-agents-by-connection-status 0 active", Due.PAGES),
        ("global sync-agent-info-get last_id 0", Due.PAGES),
        ('global sync-agent-groups-get {"last_id":0}', Due.PAGES),
        ("global disconnect-agents 0 100 syncreq", Due.PAGES),
        ("anything {last_id}", Due.PAGES),
        ("agent 001 package get", Due.ROWS),
        ("agent 5 package get\n", Due.ROWS),
        ("global sql SELECT * FROM agent", None),
        ("agent 001 package get x", None),
    ],
)
def test_due_meaning(query: str, meaning: Due | None) -> None:
    assert due_meaning(query) is meaning


@pytest.mark.parametrize(
    ("query", "following"),
    [
        ("global get-all-agents last_id 0", "global get-all-agents last_id 9"),
        ("global get-all-agents", "global get-all-agents last_id 9"),
        ("global get-group-agents g1 last_id 3", "global get-group-agents g1 last_id 9"),
        ("global get-agents-by-connection-status 3 active", "global get-agents-by-connection-status 9 active"),
        ("global disconnect-agents 0 100 syncreq", "global disconnect-agents 9 100 syncreq"),
        ("x {last_id} y", "x 9 y"),
        ('global sync-agent-groups-get {"last_id":0,"a":1}', 'global sync-agent-groups-get {"last_id":9,"a":1}'),
        ('global sync-agent-groups-get {"a":1}', 'global sync-agent-groups-get {"a":1,"last_id":9}'),
        ("global sync-agent-groups-get", 'global sync-agent-groups-get {"last_id":9}'),
    ],
)
def test_next_page(query: str, following: str) -> None:
    assert next_page(query, 9) == following


def test_first_page() -> None:
    assert first_page("global get-all-agents last_id {last_id}") == "global get-all-agents last_id 0"
    assert first_page("global get-all-agents") == "global get-all-agents last_id 0"
    assert first_page("global get-all-agents last_id 5") == "global get-all-agents last_id 5"


@pytest.mark.parametrize(
    ("page", "last_id"),
    [([1, 2, 3], 3), ([{"id": 4}], 4), ([{"data": [{"id": 1}, {"id": 8}]}], 8), ([{"id": "007"}], 7)],
)
def test_last_id_of(page: Any, last_id: int) -> None:
    assert last_id_of(page) == last_id


@pytest.mark.parametrize("page", [[], None, {}, [[]], [True], [{"id": None}], ["x"], [1.5]])
def test_pages_without_an_id(page: Any) -> None:
    with pytest.raises(AnswerInvalid):
        last_id_of(page)


def test_items_of() -> None:
    assert items_of(None) == []
    assert items_of({"a": 1}) == [{"a": 1}]
    assert items_of(json.loads("[1,2]")) == [1, 2]
