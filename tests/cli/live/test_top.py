"""``wazuh-comms top``: rates of two snapshots, on a page that fits."""

from __future__ import annotations

import sqlite3
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Tool
from tests.metrics.test_busiest import Clock
from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING
from wazuh_comms_trio.cli.live.names import AgentNames
from wazuh_comms_trio.cli.live.page import AGENTS, page
from wazuh_comms_trio.cli.live.rates import Rates, Timing
from wazuh_comms_trio.daemon.status import DaemonStatus, read_status
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.busiest import BusiestAgents
from wazuh_comms_trio.metrics.counting import Metrics

STATEFUL, POLL = "/api/v1/events/stateful", "/api/v1/commands"


def two() -> tuple[dict[str, Any], dict[str, Any]]:
    """Ten seconds lie between them."""
    metrics = Metrics()
    metrics.read(lambda: [(families.READY, (), 1), (families.POLLS_PARKED, (), 12_345)])
    metrics.count(families.REQUESTS, "agents", STATEFUL, "200", by=7)
    metrics.observe(families.REQUEST_SECONDS, 20.0, "agents", STATEFUL)
    before = metrics.snapshot()
    metrics.agents = BusiestAgents(Clock())
    for number in range(30):
        for _ in range(1000 - number):
            metrics.agents.count(f"agent-{number}", 2000)
    metrics.count(families.REQUESTS, "agents", STATEFUL, "200", by=1000)
    metrics.count(families.REQUESTS, "agents", STATEFUL, "503", by=50)
    metrics.count(families.REQUESTS, "command", "/api/v1/status", "200", by=500)
    metrics.count(families.EVENTS, "stateful", "taken", by=12_000)
    for seconds in (*[0.004] * 90, *[0.2] * 10):
        metrics.observe(families.REQUEST_SECONDS, seconds, "agents", STATEFUL)
    metrics.observe(families.REQUEST_SECONDS, 1000.0, "agents", POLL)
    metrics.observe(families.BACKEND_SECONDS, 0.003, "events", "bulk")
    metrics.count(families.BACKEND_CALLS, "events", "bulk", "unavailable", by=30)
    return before, metrics.snapshot()


def status(workers: int = 2) -> DaemonStatus:
    one = {"generation": 1, "state": "serving", "heard": 0.1, "lag": 0.004, "connections": 10, "parked": 6000}
    names = [{"name": f"{number}.{number}", **one, "backend": "ready"} for number in range(1, workers + 1)]
    return read_status({"generation": 1, "configured_workers": workers, "up": 4000, "workers": names})


def test_rates() -> None:
    rates = Rates(*two(), 10.0)
    assert rates.rate(families.REQUESTS, listener="agents") == 105
    assert rates.rate(families.REQUESTS, listener="agents", status="5*") == 5
    assert rates.gauge(families.POLLS_PARKED) == 12_345
    timings = rates.timings(families.REQUEST_SECONDS)
    assert timings["agents", STATEFUL] == Timing(10.0, pytest.approx(0.0236), 0.25)
    assert timings["agents", POLL].p95 == float("inf")


def test_a_daemon_that_was_restarted_begins_anew() -> None:
    before, after = two()
    rates = Rates(after, before, 10.0)
    assert rates.rate(families.REQUESTS, listener="agents") == 0.7
    assert rates.timings(families.REQUEST_SECONDS)["agents", STATEFUL].count == 0.1


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_it_fits(width: int) -> None:
    lines = page(Rates(*two(), 10.0), status(), ["the disk is nearly full"], width=width, height=100)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "ready, 2 of 2 workers serve, up 67 min"[: width - 1] in text
    assert "! the disk is nearly full" in text
    if width >= 80:
        assert "requests 105/s" in text
        assert "parked polls 12345" in text
        assert "stateful events 1200/s" in text
        routes = [line.split() for line in lines if line.startswith("/api")]
        assert [route[0] for route in routes] == [POLL, STATEFUL]  # the slowest first
        assert routes[1] == [STATEFUL, "10", "24", "ms", "≤", "250", "ms", "5"]
        (bulk,) = (line.split() for line in lines if line.startswith("events.bulk"))
        assert bulk[-1] == "3"


def test_the_busiest_agents_by_name_where_it_is_known() -> None:
    names = {"agent-0": "web-1\x1b[2J"}
    lines = page(Rates(*two(), 10.0), status(), [], width=120, height=100, names=names)
    at = next(number for number, line in enumerate(lines) if line.startswith("BUSIEST AGENTS"))
    rows = [line.split() for line in lines[at + 1 : lines.index("", at)]]
    assert rows[0] == ["web-1\\x1b[2J", "agent-0", "1000", "2.0", "MB"]
    assert [row[0] for row in rows[1:]] == [f"agent-{number}" for number in range(1, AGENTS)]


def test_a_low_terminal_shows_what_happened_alone() -> None:
    before, after = two()
    names = {"agent-0": "web-1"}
    high, low = (page(Rates(after, after, 10.0), status(), [], width=80, height=n, names=names) for n in (60, 24))
    assert any(line.startswith("events.bulk") for line in high)
    assert not any(line.startswith(("events.bulk", "/api")) for line in low)
    assert low[-2].startswith("1.1")  # all of it, with the workers
    assert sum(line.startswith("agent-") for line in low) == 2
    low = page(Rates(before, after, 10.0), status(), [], width=80, height=24, names={"agent-0": "n" * 30})
    assert ["n" * 30, "1000"] in [line.split()[:2] for line in low]  # an id that doesn't fit is left out


def test_what_a_low_terminal_cuts_is_said() -> None:
    lines = page(Rates(*two(), 10.0), status(20), [], width=80, height=24)
    assert len(lines) == 24
    assert "more lines: a higher terminal shows them" in lines[-1]


def test_on_the_lowest_terminals_problems_and_workers_are_seen() -> None:
    for height in range(1, 60):
        lines = page(Rates(*two(), 10.0), status(), ["the disk is nearly full"], width=60, height=height)
        assert len(lines) <= height
        if height >= 2:
            assert lines[0].startswith("ready")
        if height >= 3:
            assert lines[1] == "! the disk is nearly full"
        if height >= 13:
            assert any(line.startswith("1.1 ") for line in lines)
            assert [line.split()[0] for line in lines if line.startswith("/")][:1] == [POLL]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_an_agents_uuid_is_whole(width: int) -> None:
    before, after = two()
    after["agents"] = [["0194857f-39b5-7bfb-a7bc-c5c6835f03d1", 7, 100]]
    lines = page(Rates(before, after, 10.0), status(), [], width=width, height=100)
    assert any(line.startswith("0194857f-39b5-7bfb-a7bc-c5c6835f03d1 ") for line in lines)
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_shows_no_mean() -> None:
    lines = page(Rates(*two(), 10.0), status(), [], width=60, height=100)
    assert [line.split() for line in lines if line.startswith(STATEFUL)] == [[STATEFUL, "10", "≤", "250", "ms", "5"]]
    assert not any("MEAN" in line for line in lines)


def test_nothing_happened() -> None:
    empty = Metrics().snapshot()
    lines = page(Rates(empty, empty, 2.0), status(), [], width=80, height=50)
    assert lines[0].startswith("NOT READY")


def test_without_a_daemon(tool: Tool) -> None:
    top = tool("top", "--count", "1", "--interval", "1s")
    assert (top.status, top.out) == (EXIT_NOT_RUNNING, "")
    assert "the daemon doesn't run" in top.err


def test_an_agent_that_cant_be_read_takes_no_others_name(tool: Tool, config_file: Path, state: Path) -> None:
    for name in ("web-1", "web-2"):
        assert tool("agents", "add", name).status == 0
    with closing(sqlite3.connect(state / "state.db")) as connection, connection:
        ids = [one for (one,) in connection.execute("SELECT id FROM agents ORDER BY name")]
        connection.execute("UPDATE agents SET groups = '{' WHERE id = ?", (ids[0],))
    arguments = Namespace(config=config_file, json=False, quiet=False)
    assert AgentNames(arguments).of([*ids, "gone"]) == {ids[0]: ids[0], ids[1]: "web-2", "gone": "gone"}


def test_a_name_that_could_be_another_agents_is_none(tool: Tool, config_file: Path) -> None:
    other = "0194857f-39b5-7bfb-a7bc-c5c6835f03d9"
    ids = [tool("agents", "add", name, "--json").document["uuid"] for name in (other, "web-1", "web-1 ")]
    known = AgentNames(Namespace(config=config_file, json=False, quiet=False)).of(ids)
    assert known == {ids[0]: ids[0], ids[1]: "web-1", ids[2]: ids[2]}
