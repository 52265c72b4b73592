"""Of what is refused a thousand times the log has the first, and then how many."""

from __future__ import annotations

import logging

import pytest

from wazuh_comms_trio.metrics.refusal_log import MAX_KINDS, QUIET, RefusalLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_and_then_how_many(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(logging.getLogger("refusals"), clock=clock)
    for number in range(1000):
        clock.now += 0.01
        log.refused("log-ins (wrong_key)", "a log-in of %s was refused", number)
    log.refused("log-ins (malformed)", "a log-in was refused")  # another kind isn't held back
    log.tell_counts()
    assert caplog.messages == ["a log-in of 0 was refused", "a log-in was refused"]
    clock.now += QUIET
    log.tell_counts()
    log.tell_counts()
    assert caplog.messages[2:] == ["log-ins (wrong_key): 999 more in 70 s, the last one: a log-in of 999 was refused"]
    clock.now += QUIET
    log.refused("log-ins (wrong_key)", "a log-in of %s was refused", "late")
    assert caplog.messages[3:] == ["a log-in of late was refused"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_flood_that_goes_on_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(logging.getLogger("refusals"), clock=clock)
    for _ in range(1800):
        clock.now += 0.1
        log.refused("tokens (expired)", "a token was refused")
    assert len(caplog.messages) == 3


def test_memory_is_bounded() -> None:
    log = RefusalLog(logging.getLogger("refusals"), clock=Clock())
    for number in range(2 * MAX_KINDS):
        log.refused(f"kind {number}", "refused")
    assert len(log._kinds) == MAX_KINDS
