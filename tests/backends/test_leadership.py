"""Who of a node's processes looks, and what the others make of what they are told."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.leadership import Finding, Lookout


def test_alone_it_is_on_duty_and_talks_to_nobody() -> None:
    lookout = Lookout()
    assert lookout.on_duty
    lookout.attend("commands")
    lookout.tell("commands", {"a": 1})
    lookout.ask("commands", {"a": 1})


async def test_duty_is_waited_for(autojump_clock: MockClock) -> None:
    lookout = Lookout(on_duty=False)
    changes: list[bool] = []
    lookout.attend("commands", changed=lambda: changes.append(lookout.on_duty))
    with trio.move_on_after(10) as scope:
        await lookout.wait_duty()
    assert scope.cancelled_caught
    lookout.set_duty(True)
    await lookout.wait_duty()
    lookout.set_duty(False)  # another one has it
    lookout.set_duty(False)  # yet another one
    assert changes == [True, False, False]
    with trio.move_on_after(10) as scope:
        await lookout.wait_duty()
    assert scope.cancelled_caught


def test_what_is_said_goes_to_the_store_that_it_concerns() -> None:
    lookout = Lookout(on_duty=False)
    found: list[Finding] = []
    asked: list[Finding] = []
    lookout.attend("commands", found=found.append, asked=asked.append)
    lookout.attend("presence")
    lookout.take_finding("commands", {"n": 1})
    lookout.take_finding("presence", {"n": 2})
    lookout.take_finding("of a later version", {"n": 3})
    lookout.take_wish("commands", {"n": 4})  # for who is on duty
    lookout.set_duty(True)
    lookout.take_wish("commands", {"n": 5})
    assert found == [{"n": 1}]
    assert asked == [{"n": 5}]


@pytest.mark.parametrize("finding", [{}, {"documents": 5}, {"documents": [{"id": "x"}]}])
def test_what_is_not_understood_harms_nobody(finding: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    def take(finding: Finding) -> None:
        assert all(document["source"] for document in finding["documents"])

    lookout = Lookout()
    lookout.attend("commands", found=take)
    with caplog.at_level(logging.WARNING):
        lookout.take_finding("commands", finding)
    assert "what another worker says of commands isn't understood" in caplog.text
