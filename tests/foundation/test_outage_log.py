"""A store's faults in the log: one line when it stops working, one when it works again."""

import logging

import pytest

from wazuh_comms_trio.foundation.outage_log import QUIET, Episodes


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_how_long_it_took(said: pytest.LogCaptureFixture) -> None:
    """From the first fault to the success after the last, whenever the store was tried in between."""
    now = 100.0
    episodes = Episodes(logging.getLogger("episodes"), "store", clock=lambda: now)
    episodes.fault("it is gone", "wait", level=logging.WARNING)
    now += QUIET + 17
    episodes.works()
    now += 1000
    episodes.works()
    assert said.messages == ["store: it is gone: wait", "store: works again after 22.0 s (it is gone)"]


def test_successes_between_faults_end_nothing(said: pytest.LogCaptureFixture) -> None:
    now = 100.0
    episodes = Episodes(logging.getLogger("episodes"), "store", clock=lambda: now)
    for _ in range(3):
        episodes.fault("the disk is full", "wait", level=logging.WARNING)
        now += 1
        episodes.works()
    now += QUIET
    episodes.works()
    assert said.messages == ["store: the disk is full: wait", "store: works again after 3.0 s (the disk is full)"]
