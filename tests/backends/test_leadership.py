"""Who of a node's processes looks, and what the others make of what they are told."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.leadership import Finding, Leadership


def test_alone_it_is_on_duty_and_talks_to_nobody() -> None:
    leadership = Leadership()
    assert leadership.is_leader
    leadership.register("commands")
    leadership.publish("commands", {"a": 1})
    leadership.ask_leader("commands", {"a": 1})


async def test_duty_is_waited_for(autojump_clock: MockClock) -> None:
    leadership = Leadership(leader=False)
    changes: list[bool] = []
    leadership.register("commands", on_change=lambda: changes.append(leadership.is_leader))
    with trio.move_on_after(10) as scope:
        await leadership.wait_until_leader()
    assert scope.cancelled_caught
    leadership.set_leader(True)
    await leadership.wait_until_leader()
    leadership.set_leader(False)  # another one has it
    leadership.set_leader(False)  # yet another one
    assert changes == [True, False, False]
    with trio.move_on_after(10) as scope:
        await leadership.wait_until_leader()
    assert scope.cancelled_caught


def test_what_is_said_goes_to_the_store_that_it_concerns() -> None:
    leadership = Leadership(leader=False)
    found: list[Finding] = []
    asked: list[Finding] = []
    leadership.register("commands", on_finding=found.append, on_request=asked.append)
    leadership.register("presence")
    leadership.handle_finding("commands", {"n": 1})
    leadership.handle_finding("presence", {"n": 2})
    leadership.handle_finding("of a later version", {"n": 3})
    leadership.handle_request("commands", {"n": 4})  # for the leader
    leadership.set_leader(True)
    leadership.handle_request("commands", {"n": 5})
    assert found == [{"n": 1}]
    assert asked == [{"n": 5}]


@pytest.mark.parametrize("finding", [{}, {"documents": 5}, {"documents": [{"id": "x"}]}])
def test_what_is_not_understood_harms_nobody(finding: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    def take(finding: Finding) -> None:
        assert all(document["source"] for document in finding["documents"])

    leadership = Leadership()
    leadership.register("commands", on_finding=take)
    with caplog.at_level(logging.WARNING):
        leadership.handle_finding("commands", finding)
    assert "what another worker says of commands isn't understood" in caplog.text
