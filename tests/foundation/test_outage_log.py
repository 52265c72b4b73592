"""Outages in the log: one line when it stops working, one when it works again."""

import logging

import pytest

from wazuh_comms_trio.backends.unavailable import reported
from wazuh_comms_trio.foundation.outage_log import A_WHILE, MOST_KINDS, QUIET, TOLD_AT_ONCE, LogInterval, OutageLog


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_how_long_it_took(said: pytest.LogCaptureFixture) -> None:
    """From the first fault to the success after the last, whenever the store was tried in between."""
    now = 100.0
    outage = OutageLog(logging.getLogger("outages"), "store", quiet=QUIET, clock=lambda: now)
    outage.failed("wait", kind="it is gone")
    now += QUIET + 17
    outage.worked()
    now += 1000
    outage.worked()
    assert said.messages == ["store: it is gone: wait", "store: works again after 22.0 s (it is gone)"]


def test_successes_between_faults_end_nothing(said: pytest.LogCaptureFixture) -> None:
    now = 100.0
    outage = OutageLog(logging.getLogger("outages"), "store", quiet=QUIET, clock=lambda: now)
    for _ in range(3):
        outage.failed("wait", kind="the disk is full")
        now += 1
        outage.worked()
    now += QUIET
    outage.worked()
    assert said.messages == ["store: the disk is full: wait", "store: works again after 3.0 s (the disk is full)"]


def test_without_a_quiet_time_the_first_success_ends_it(said: pytest.LogCaptureFixture) -> None:
    now = 100.0
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: now)
    outage.worked()
    for _ in range(3):
        outage.failed(OSError("no answer"))
        now += 2
    outage.worked()
    outage.worked()
    assert said.messages == ["store: no answer", "store: works again after 6.0 s (3 failures)"]


def test_another_kind_is_logged_too(said: pytest.LogCaptureFixture) -> None:
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: 0.0)
    outage.failed("wait", kind="it is locked")
    outage.failed("make room", kind="it is full")
    assert (outage.kind, outage.failing) == ("it is full", True)
    outage.worked()
    assert (outage.kind, outage.failing) == (None, False)
    assert said.messages == [
        "store: it is locked: wait",
        "store: it is full: make room",
        "store: works again after 0.0 s (it is full)",
    ]


@pytest.mark.parametrize("kinds", [("",), ("it is locked", "it is full")])
def test_what_fails_and_works_in_turns_is_told_now_and_then(
    said: pytest.LogCaptureFixture, kinds: tuple[str, ...]
) -> None:
    """A hundred times a second, for ten minutes."""
    now = 0.0
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: now)
    for number in range(60_000):
        now = number / 100
        outage.failed("no answer", kind=kinds[number % len(kinds)])
        outage.worked()
    assert 10 * TOLD_AT_ONCE * 2 - 2 <= len(said.messages) <= 11 * TOLD_AT_ONCE * 2
    assert any("more before, in a short time" in message for message in said.messages)


def test_kinds_that_change_all_the_time_are_told_now_and_then(said: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: now)
    for number in range(60_000):
        now = number / 100
        outage.failed("wait", kind=("it is locked", "it is full")[number % 2])
    assert len(said.messages) <= 11 * TOLD_AT_ONCE


def test_another_kind_is_told_whatever_was_before(said: pytest.LogCaptureFixture) -> None:
    """A file that is locked now and then, and is damaged then: that was told a minute later, or never."""
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: 0.0)
    for _ in range(TOLD_AT_ONCE + 1):
        outage.failed("wait", kind="it is locked")
        outage.worked()
    said.clear()
    outage.failed("restore it", kind="it is damaged")
    assert said.messages == ["store: it is damaged: restore it (1 more before, in a short time)"]


def test_kinds_without_end_are_told_now_and_then(said: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: now)
    for number in range(6000):
        now = number / 100
        outage.failed("wait", kind=f"{number}")
    assert len(said.messages) == MOST_KINDS


def test_one_that_lasts_is_told_late_rather_than_never(said: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: now)
    for _ in range(TOLD_AT_ONCE + 3):
        outage.failed("no answer")
        outage.worked()
    said.clear()
    outage.failed("no answer")
    now = A_WHILE / 2
    outage.failed("no answer")
    assert not said.messages
    now = A_WHILE
    outage.failed("no answer")
    now = A_WHILE + 30
    outage.worked()
    assert said.messages == [
        "store: no answer (3 more before, in a short time)",
        "store: works again after 90.0 s (3 failures)",
    ]


def test_what_the_log_has_already_is_for_debugging(said: pytest.LogCaptureFixture) -> None:
    said.set_level(logging.DEBUG)
    outage = OutageLog(logging.getLogger("outages"), "store", clock=lambda: 0.0)
    outage.failed(reported())
    outage.worked()
    assert {record.levelno for record in said.records} == {logging.DEBUG}
    assert len(said.records) == 2


def test_one_line_in_an_interval() -> None:
    now = [100.0]
    interval = LogInterval(60, lambda: now[0])
    through = []
    for now[0] in (100.0, 100.1, 159.9, 160.0, 160.1, 500.0, 559.0, 560.0):
        if interval.is_over():
            through.append(now[0])
    assert through == [100.0, 160.0, 500.0, 560.0]
