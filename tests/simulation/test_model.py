"""What an agent's documents ought to be, and that a check which is spared is one that would say the same."""

from __future__ import annotations

import json

from tests.simulation.model import DocumentModel, Operation

KEY = ("wazuh-states-fim", "one")


def stored(owner: str, **fields: object) -> dict[tuple[str, str], bytes]:
    return {KEY: json.dumps({"agent": {"id": owner}, **fields}).encode()}


def right() -> DocumentModel:
    """With one document that is acknowledged, and found as it has to be."""
    model = DocumentModel()
    operation = Operation("fim", "one", "create", {"n": 1})
    model.apply(operation)
    model.acknowledge(operation)
    assert model.differences(stored("mine", n=1), "mine") == []
    return model


def test_what_was_right_is_looked_at_again_when_the_index_changes() -> None:
    assert right().differences(stored("mine", n=2), "mine")
    assert right().differences({}, "mine")
    assert right().differences(stored("another's", n=1), "mine")


def test_and_when_the_agent_does_something() -> None:
    model = right()
    operation = Operation("fim", "one", "update", {"n": 2})
    model.apply(operation)
    assert model.differences(stored("mine", n=1), "mine") == []  # it may have come, or not
    model.acknowledge(operation)
    assert model.differences(stored("mine", n=1), "mine")


def at_once(*, whole: bool) -> DocumentModel:
    """Two bodies with two documents each."""
    model = DocumentModel()
    bodies = [[Operation("fim", id, "create", {"n": number}) for id in ("one", "two")] for number in (1, 2)]
    for operation in (*bodies[0], *bodies[1]):
        model.apply(operation)
        model.acknowledge(operation)
    model.at_once(bodies, whole=whole)
    return model


def two(first: int, second: int) -> dict[tuple[str, str], bytes]:
    return {
        (KEY[0], id): json.dumps({"agent": {"id": "mine"}, "n": n}).encode()
        for id, n in (("one", first), ("two", second))
    }


def test_of_bodies_at_once_any_may_be_the_last_and_stays_it() -> None:
    model = at_once(whole=True)
    assert model.differences(two(1, 1), "mine") == []
    assert model.differences(two(2, 2), "mine")


def test_they_arent_mixed_where_each_is_written_as_a_whole() -> None:
    assert at_once(whole=True).differences(two(1, 2), "mine")
    assert at_once(whole=False).differences(two(1, 2), "mine") == []
    assert at_once(whole=False).differences(two(1, 3), "mine")


def test_what_was_wrong_is_wrong_again() -> None:
    model = right()
    for _ in range(2):
        assert model.differences(stored("mine", n=2), "mine")
