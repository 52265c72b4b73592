"""Posts to workers that are busy for a moment."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.testing.node.node import open_node

AWAY = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


async def test_one_that_is_taken_late_is_answered_in_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker took it after a third of a second, and its own two seconds began then."""
    monkeypatch.setattr(time, "monotonic", trio.current_time)
    async with open_node(2) as node, trio.open_nursery() as nursery:
        node.backends.commands.keeps_posted = False

        async def post() -> None:
            began = trio.current_time()
            assert await node.post([Command("c1", Target("agent", AWAY), Action("restart"))]) == []
            assert trio.current_time() - began < 2

        for worker in range(2):
            node.hang(worker)
        nursery.start_soon(post)
        await trio.sleep(0.35)
        for worker in range(2):
            node.wake(worker)
