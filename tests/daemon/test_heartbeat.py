"""How late the event loop is, as it notes by itself."""

from __future__ import annotations

import logging

import pytest
import trio

from wazuh_comms_trio.daemon.worker.heartbeat import LoopLag
from wazuh_comms_trio.foundation.log_context import WORKER


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def turn(lag: LoopLag, clock: Clock, seconds: float, idle: float = 0.0) -> None:
    clock.now += idle
    lag.after_io_wait(idle)
    clock.now += seconds
    lag.before_io_wait(0)


def test_the_worst_of_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    lag = LoopLag(clock)
    assert lag.worst == 0
    for seconds in (0.03, 0.05, 0.01, 0.0001):
        turn(lag, clock, seconds, idle=1)
    assert lag.worst == pytest.approx(0.05)
    clock.now += 7.5  # the longest is over
    assert lag.worst == pytest.approx(0.05)
    clock.now += 1
    assert lag.worst == pytest.approx(0.01)
    clock.now += 10
    assert lag.worst == 0
    assert caplog.records == []


def test_waiting_isnt_being_late_and_being_late_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    lag = LoopLag(clock)
    turn(lag, clock, 0.001, idle=60)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            turn(lag, clock, 0.25, idle=1)
        turn(lag, clock, 0.5, idle=10)
    assert [record.getMessage() for record in caplog.records] == [
        "the event loop was 250 ms late",
        "the event loop was 500 ms late",
    ]


def test_who_stood_still_says_for_how_long(caplog: pytest.LogCaptureFixture) -> None:
    """In a wait (the process was stopped, or its machine) or in a turn; waiting for what is due isn't it."""
    clock, told = Clock(), list[float]()
    lag = LoopLag(clock, told.append)
    for planned, waited, worked in ((60, 60.9, 0.9), (3, 23.5, 0.1), (0.5, 0.1, 0.1), (0, 0, 7)):
        lag.before_io_wait(planned)
        clock.now += waited
        lag.after_io_wait(planned)
        clock.now += worked
    lag.before_io_wait(0)
    assert told == pytest.approx([20.5, 7])
    assert lag.worst == pytest.approx(20.5)
    assert [record.getMessage() for record in caplog.records][1:] == ["the event loop was 20500 ms late"]


async def test_a_task_that_keeps_the_loop_is_noticed() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    with lag.attached():
        await trio.lowlevel.checkpoint()
        clock.now += 0.05
        await trio.lowlevel.checkpoint()
    assert lag.worst == pytest.approx(0.05)


async def test_what_is_said_of_it_carries_the_worker() -> None:
    """The event loop calls instruments in a context of its own."""
    carried: list[str | None] = []
    handler = logging.Handler()
    handler.emit = lambda record: carried.append(WORKER.get())  # type: ignore[method-assign]
    clock = Clock()
    lag = LoopLag(clock)
    WORKER.set("2.7")
    logger = logging.getLogger("wazuh_comms_trio.daemon.worker.heartbeat")
    logger.addHandler(handler)
    try:
        with lag.attached():
            await trio.lowlevel.checkpoint()
            clock.now += 0.5
            await trio.lowlevel.checkpoint()
    finally:
        logger.removeHandler(handler)
    assert carried == ["2.7"]
