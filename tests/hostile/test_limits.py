"""Who sends more than its share is refused, named, and nobody's trouble but its own."""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wazuh_comms_trio.api.admission import RouteGate
from wazuh_comms_trio.config.limits.in_force import following, limits_in_force
from wazuh_comms_trio.config.limits.models import Limits, RouteLimit, RouteLimits
from wazuh_comms_trio.daemon.logging.formats import mask
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat, LastError
from wazuh_comms_trio.errors import TooManyRequests
from wazuh_comms_trio.services.refusal_counts import RefusalCounts
from wazuh_comms_trio.services.vulnerability import SCAN_BYTES
from wazuh_comms_trio.testing import AgentClient, daemon_config, open_daemon, stateful_event, stateless_event
from wazuh_comms_trio.testing.agent.http import exchange, request_head

EVENT = stateful_event("one", "fim", "create", {"file": {"path": "/etc/passwd"}})
LINE = stateless_event("logcollector", "file", {"n": 1})


async def logged_in(daemon: Any) -> AgentClient:
    agent: AgentClient = await daemon.enrol_agent()
    assert (await agent.authenticate()).status == 200
    return agent


def taken_of(gate: RouteGate, agent_id: str, tries: int) -> int:
    taken = 0
    for _ in range(tries):
        try:
            with gate.admitted(agent_id):
                taken += 1
        except TooManyRequests:
            continue
    return taken


class TestRates:
    async def test_a_burst_then_the_rate(self, autojump_clock: MockClock) -> None:
        gate = RouteGate("stateful", RouteLimit(agent_rate=10, agent_burst=5), RefusalCounts())
        assert taken_of(gate, "a", 100) == 5
        assert taken_of(gate, "b", 3) == 3
        await trio.sleep(0.3)
        assert taken_of(gate, "a", 100) == 3
        await trio.sleep(60)
        assert taken_of(gate, "a", 100) == 5

    async def test_a_burst_is_no_larger_for_a_moments_pause(self, autojump_clock: MockClock) -> None:
        """It was: of those that came one after the other there was always one more."""
        gate = RouteGate("stateful", RouteLimit(agent_rate=0.1, agent_burst=3), RefusalCounts())
        all_together = RouteGate("stateful", RouteLimit(rate=0.1, burst=3), RefusalCounts())
        taken = others = 0
        for number in range(10):
            taken += taken_of(gate, "a", 1)
            others += taken_of(all_together, str(number), 1)
            await trio.sleep(0.001)
        assert (taken, others) == (3, 3)

    async def test_of_all_together(self, autojump_clock: MockClock) -> None:
        gate = RouteGate("stateful", RouteLimit(rate=10, burst=20), RefusalCounts())
        assert sum(taken_of(gate, str(agent), 1) for agent in range(100)) == 20
        await trio.sleep(1)
        assert sum(taken_of(gate, str(agent), 1) for agent in range(100)) == 10

    async def test_when_to_come_again(self, autojump_clock: MockClock) -> None:
        gate = RouteGate("stateful", RouteLimit(agent_rate=0.1, agent_burst=1), RefusalCounts())
        assert taken_of(gate, "a", 1) == 1
        with pytest.raises(TooManyRequests) as caught, gate.admitted("a"):
            pass
        await trio.sleep(caught.value.retry_after - 0.001)
        assert taken_of(gate, "a", 1) == 0
        await trio.sleep(0.001)
        assert taken_of(gate, "a", 1) == 1

    @pytest.mark.parametrize("rate", [7.0, 10.0, 1000.0])
    @pytest.mark.parametrize("days", [0, 97, 3650])
    async def test_who_keeps_to_it_is_never_refused(self, days: int, rate: float, mock_clock: MockClock) -> None:
        """However long the clock has run: sums of floats drifted, after 97 days by more than was allowed for."""
        limit = RouteLimit(agent_rate=rate, agent_burst=1, rate=rate, burst=1)
        gate = RouteGate("stateful", limit, RefusalCounts())
        began = 86400.0 * days + 0.3
        for number in range(20_000):
            mock_clock.jump(max(0.0, began + number / rate - trio.current_time()))
            assert taken_of(gate, "a", 1) == 1
        assert taken_of(gate, "a", 1) == 0

    async def test_in_flight(self) -> None:
        gate = RouteGate("stateful", RouteLimit(agent_requests=2, requests=3), RefusalCounts())
        with gate.admitted("a"), gate.admitted("a"):
            assert taken_of(gate, "a", 1) == 0
            with gate.admitted("b"):
                assert taken_of(gate, "c", 1) == 0
            assert taken_of(gate, "c", 1) == 1
        assert taken_of(gate, "a", 2) == 2

    async def test_everybodys_limit_is_named_beside_an_agents_own(self, autojump_clock: MockClock) -> None:
        """It wasn't, as long as any agent was beyond its own there."""
        counts = RefusalCounts()
        gate = RouteGate("stateful", RouteLimit(agent_rate=1, agent_burst=2, rate=1, burst=3), counts)
        assert taken_of(gate, "loud", 5) == 2
        assert [taken_of(gate, agent, 1) for agent in ("b", "c", "d")] == [1, 0, 0]
        assert counts.lines() == [
            "agent loud sends more stateful than its limit: 3 refused",
            "2 stateful refused: more than all agents' limit",
        ]
        await trio.sleep(60)
        assert counts.lines() == []


async def test_an_agent_that_sends_a_hundred_times_its_share(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    config = daemon_config(limits=Limits(agents=100))
    async with open_daemon(config) as daemon:
        loud, quiet = await logged_in(daemon), await logged_in(daemon)
        caplog.set_level(logging.WARNING)
        replies = []
        for number in range(20):  # a thousand a second for two seconds, of which it has ten a second and a burst
            for _ in range(100):
                replies.append(await loud.post_stateful([EVENT]))
            if number % 10 == 0:
                assert (await quiet.post_stateful([EVENT])).status == 200
            await trio.sleep(0.1)
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 429}
        assert 60 <= statuses.count(200) <= 75
        refused = next(reply for reply in replies if reply.status == 429)
        assert refused.header("retry-after") == "1"
        report = Heartbeat(daemon.worker, LastError(mask)).report()
        assert report.refused == [
            f"agent {loud.uuid} sends more stateful than its limit: {statuses.count(429)} refused"
        ]
        assert report.refused_total == statuses.count(429)
        lines = [record.message for record in caplog.records if record.message.startswith("refused beyond")]
        assert 1 <= len(lines) <= 4  # once a second
        assert all(loud.uuid in line and quiet.uuid not in line for line in lines)
        await trio.sleep(61)
        assert Heartbeat(daemon.worker, LastError(mask)).report().refused == []


async def test_nothing_is_limited_unless_it_is_configured(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        agent = await logged_in(daemon)
        for _ in range(300):
            assert (await agent.post_stateful([EVENT])).status == 200


async def test_an_agent_has_few_uploads_at_a_time(autojump_clock: MockClock) -> None:
    """Sixty at a time filled a disk and a body budget."""
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent, other = await logged_in(daemon), await logged_in(daemon)
        statuses: list[int] = []

        async def upload(client: AgentClient) -> None:
            lines = [LINE] * (2 * 1024 * 1024 // len(LINE))
            statuses.append((await client.post_stateless(lines)).status)

        daemon.backends.engine.faults.hang()
        for _ in range(10):
            nursery.start_soon(upload, agent)
        await wait_all_tasks_blocked()
        assert statuses == [429] * 6
        nursery.start_soon(upload, other)
        await wait_all_tasks_blocked()
        assert statuses == [429] * 6
        daemon.backends.engine.faults.release()
        await wait_all_tasks_blocked()
        assert statuses == [429] * 6 + [204] * 5


async def test_uploads_that_are_refused_count_for_no_rate(autojump_clock: MockClock) -> None:
    """They counted: one agent's used up the rate of all."""
    config = daemon_config(limits=Limits(routes=RouteLimits(stateless=RouteLimit(rate=0.1, burst=6))))
    async with open_daemon(config) as daemon, trio.open_nursery() as nursery:
        agent, other = await logged_in(daemon), await logged_in(daemon)
        statuses: list[int] = []

        async def upload() -> None:
            statuses.append((await agent.post_stateless([LINE] * (2 * 1024 * 1024 // len(LINE)))).status)

        daemon.backends.engine.faults.hang()
        for _ in range(10):
            nursery.start_soon(upload)
        await wait_all_tasks_blocked()
        daemon.backends.engine.faults.release()
        await wait_all_tasks_blocked()
        assert statuses == [429] * 6 + [204] * 4
        assert [(await other.post_stateless([LINE])).status for _ in range(3)] == [204, 204, 429]


async def test_scans_are_refused_before_their_body_is_received(autojump_clock: MockClock) -> None:
    """An agent's large scans weren't uploads, and counted against its rate when all of each was there."""
    config = daemon_config(limits=Limits(routes=RouteLimits(scan=RouteLimit(agent_rate=0.1, agent_burst=5))))
    async with open_daemon(config) as daemon:
        agent = await logged_in(daemon)

        def head(length: int) -> bytes:
            fields = [("Host", "h"), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", str(length))]
            return request_head("POST", "/api/v1/vulnerability/scan", fields)

        begun = [await daemon.connect() for _ in range(4)]
        for stream in begun:
            await stream.send_all(head(2 * 1024 * 1024))
        await wait_all_tasks_blocked()
        fifth = await exchange(await daemon.connect(), head(2 * 1024 * 1024))
        assert (fifth.status, fifth.header("retry-after")) == (429, "2")
        last = await daemon.connect()  # that the rate allows: the fifth counts for nothing
        await last.send_all(head(9))
        await wait_all_tasks_blocked()
        beyond = await exchange(await daemon.connect(), head(9))
        assert (beyond.status, beyond.header("retry-after")) == (429, "10")
        assert (await exchange(await daemon.connect(), head(SCAN_BYTES + 1))).status == 413


async def test_an_agent_reads_few_large_files_at_a_time(autojump_clock: MockClock) -> None:
    """One token took all descriptors of a worker with files that it didn't read."""
    async with open_daemon() as daemon:
        agent, other = await logged_in(daemon), await logged_in(daemon)
        daemon.backends.files.contents |= {"default.yml": b"x" * 2 * 1024 * 1024, "default.conf": b"x" * 1024}
        head = [("Host", "h"), ("Authorization", f"Bearer {agent.token}")]
        readers = [await daemon.connect() for _ in range(4)]
        for reader in readers:
            await reader.send_all(request_head("GET", "/api/v1/files?file_name=default.yml", head))
        await wait_all_tasks_blocked()
        refused = await agent.get_file("default.yml")
        assert (refused.status, refused.header("retry-after")) == (429, "2")
        assert (await agent.get_file("default.conf")).status == 200
        assert (await other.get_file("default.yml")).status == 200
        assert len((await exchange(readers[0], b"")).body) == 2 * 1024 * 1024
        await wait_all_tasks_blocked()
        assert (await agent.get_file("default.yml")).status == 200


async def test_parked_polls_have_a_limit(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(limits=Limits(parked_polls=3))) as daemon, trio.open_nursery() as nursery:
        agents = [await logged_in(daemon) for _ in range(4)]
        answers: list[tuple[int, int]] = []

        async def poll(number: int) -> None:
            answers.append((number, (await agents[number].poll()).status))

        for number in range(4):
            nursery.start_soon(poll, number)
            await wait_all_tasks_blocked()
        assert answers == [(0, 408)]  # the oldest
        assert daemon.worker.services.commands.parked == 3
        nursery.cancel_scope.cancel()


class TestOneKey:
    def test_all_limits_follow_from_it(self) -> None:
        in_force = limits_in_force(Limits(agents=5000))
        assert in_force.connections >= 3 * 5000
        assert in_force.parked_polls >= 5000
        for name in ("stateless", "stateful", "files", "scan"):
            route = getattr(in_force.routes, name)
            assert all(attrs.astuple(route)), name
            assert route.rate >= 5000
        assert in_force.routes.commands.requests == 0  # parked polls are what is limited

    def test_what_is_set_stays(self) -> None:
        limits = Limits(agents=5000, connections=7, routes=RouteLimits(stateful=RouteLimit(rate=3.0)))
        in_force = limits_in_force(limits)
        assert (in_force.connections, in_force.routes.stateful.rate) == (7, 3.0)
        assert in_force.routes.stateful.agent_rate > 0
        assert {"connections", "routes.stateful.rate"}.isdisjoint(one.key for one in following(limits))

    def test_without_it_nothing_follows(self) -> None:
        assert limits_in_force(Limits()) == Limits()
        assert following(Limits()) == []
