"""The busiest agents of a minute: bounded, and the same whoever of the workers served them."""

from __future__ import annotations

import random

from attrs import define

from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.busiest import FRESH, MOST, TOLD, WINDOW, BusiestAgents
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.snapshots import NodeMetrics, add_up


@define
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_by_requests_or_by_bytes_whichever_is_the_larger_share() -> None:
    agents = BusiestAgents(clock := Clock())
    for _ in range(90):
        agents.count("often", 100)
    for _ in range(10):
        agents.count("seldom", 1)
    agents.count("large", 1_000_000)
    clock.now += 10
    assert agents.told() == [("large", 0.1, 100_000), ("often", 9, 900), ("seldom", 1, 1)]


def test_what_is_over_is_forgotten() -> None:
    agents = BusiestAgents(clock := Clock())
    agents.count("early", 0)
    clock.now += WINDOW
    agents.count("late", 0)
    assert {row[0] for row in agents.told()} == {"early", "late"}
    clock.now += WINDOW
    assert agents.told() == [("late", round(1 / WINDOW, 3), 0)]
    agents.count("late", 0)
    clock.now += 10 * WINDOW
    assert agents.told() == []
    agents.count("late", 0)
    assert agents.told() == []  # for a few seconds what was told is told again
    clock.now += FRESH
    assert agents.told() == [("late", round(1 / (WINDOW + FRESH), 3), 0)]


def test_many_agents_hide_no_busy_one() -> None:
    agents, rng = BusiestAgents(Clock()), random.Random(1)
    busy = [f"busy{number}" for number in range(20)]
    requests = [*(f"agent{number}" for number in range(20 * MOST)), *busy * 200]
    rng.shuffle(requests)
    for agent_id in requests:
        agents.count(agent_id, 500)
        assert len(agents._now) <= MOST
    assert {row[0] for row in agents.told()[:20]} == set(busy)
    assert len(agents.told()) == TOLD


def test_workers_are_added_and_an_ended_ones_are_forgotten() -> None:
    node, workers = NodeMetrics(), [Metrics(), Metrics()]
    for number, metrics in enumerate(workers):
        metrics.agents = BusiestAgents(clock := Clock())
        for _ in range(100 * (number + 1)):
            metrics.agents.count("both", 10)
        metrics.agents.count(f"only{number}", 0)
        metrics.count(families.LOGINS_TAKEN)
        clock.now += 10
        node.note(str(number), metrics.snapshot())
    assert node.snapshot()["agents"] == [["both", 30, 300], ["only0", 0.1, 0], ["only1", 0.1, 0]]
    node.ended("0")
    assert node.snapshot({"values": []})["agents"] == [["both", 20, 200], ["only1", 0.1, 0]]
    assert "agents" not in add_up([])
