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


def test_what_was_wrong_is_wrong_again() -> None:
    model = right()
    for _ in range(2):
        assert model.differences(stored("mine", n=2), "mine")
