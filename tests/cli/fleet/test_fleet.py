"""A fleet on the mock clock, in front of a node that answers as it is told: which requests come, and when."""

from __future__ import annotations

import json
import random
import re
import ssl
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from wazuh_comms_trio.cli.fleet.connection import ExchangeFailed, Node, Reply, find_node
from wazuh_comms_trio.cli.fleet.fleet import Fleet, Pace
from wazuh_comms_trio.cli.fleet.host import Member, make_hosts
from wazuh_comms_trio.cli.fleet.mix import Cloned, Faults, Files, Flapping, Herd, Mix, SlowLinks, Stateful, Stateless
from wazuh_comms_trio.cli.fleet.run import Result, run_fleet
from wazuh_comms_trio.cli.fleet.tally import Kind

QUIET = Mix(Stateless(every=0), Stateful(every=0), Files(every=0), polls=False)
PATHS = {
    "/api/v1/authentication": "log-in",
    "/api/v1/events/stateless": "stateless",
    "/api/v1/events/stateful": "stateful",
    "/api/v1/commands": "poll",
    "/api/v1/files": "file",
}


def token(expires: float) -> str:
    return f"h.{urlsafe_b64encode(json.dumps({'exp': int(expires)}).encode()).decode().rstrip('=')}.s"


@define
class FakeNode:
    """Parks polls for 300 s, unless ``parks`` is False, and answers all else after ``seconds``. ``requests``: when,
    what, and how it was sent."""

    seconds: float = 0.0
    parks: bool = True
    poll_reply: Reply = field(factory=lambda: Reply(408))
    answer: Callable[[str], Reply | None] = lambda kind: None
    requests: list[tuple[float, str, int | None]] = field(factory=list)
    bodies: list[tuple[str, bytes]] = field(factory=list)

    async def ask(
        self, node: Node, head: bytes, body: bytes, *, time_limit: float, bytes_per_second: int | None
    ) -> Reply:
        path = re.match(rb"[A-Z]+ ([^ ?]+)", head)
        assert path is not None
        kind = PATHS[path[1].decode()]
        self.requests.append((trio.current_time(), kind, bytes_per_second))
        self.bodies.append((kind, body))
        with trio.move_on_after(time_limit):
            await trio.sleep(300 if kind == "poll" and self.parks else self.seconds)
            if (told := self.answer(kind)) is not None:
                return told
            if kind == "poll":
                return self.poll_reply
            if kind == "log-in":
                return Reply(200, json.dumps({"token": token(trio.current_time() + 900)}).encode())
            return Reply(204 if kind == "stateless" else 200)
        raise ExchangeFailed("no reply in time")

    def counts(self) -> Counter[str]:
        return Counter(kind for _, kind, _ in self.requests)

    def moments(self, kind: str) -> list[float]:
        return [when for when, each, _ in self.requests if each == kind]


def fleet_of(node: FakeNode, agents: int, mix: Mix, *, ramp: float = 0.0, **options: object) -> Fleet:
    rng = random.Random(1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    members = [Member(f"{n:08x}-0000-4000-8000-000000000000", f"a{n}", "k" * 32) for n in range(agents)]
    hosts = make_hosts(members, mix, rng)
    pace = Pace(ramp, **options)  # type: ignore[arg-type]
    found = find_node("https://127.0.0.1:27000", context)
    return Fleet(found, hosts, mix, pace, rng=rng, wall_clock=trio.current_time, ask=node.ask)


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run)
        yield
        nursery.cancel_scope.cancel()


async def run(fleet: Fleet, duration: float, *, ramp: float = 0.0) -> Result:
    return await run_fleet(fleet, ramp=ramp, duration=duration, stop=trio.Event(), show=lambda _: None)


async def test_agents_do_in_an_hour_what_real_ones_do(autojump_clock: MockClock) -> None:
    """A log-in in 15 min, stateless events in 10 s, stateful ones in a minute, a file in 10 min, a poll again and
    again."""
    node = FakeNode(seconds=0.01)
    fleet = fleet_of(node, 10, Mix())
    async with running(fleet):
        await trio.sleep(3600)
    counts = node.counts()
    assert counts["stateless"] == pytest.approx(10 * 360, rel=0.02)
    assert counts["stateful"] == pytest.approx(10 * 60, rel=0.05)
    assert counts["file"] == pytest.approx(10 * 6, abs=10)
    assert counts["poll"] == pytest.approx(10 * 3600 / 301, abs=10)
    assert 10 * 4 <= counts["log-in"] <= 10 * 6
    assert fleet.tally.errors == 0
    assert fleet.tally.kinds[Kind.FIRST_LOG_IN].latencies.count == 10


async def test_they_begin_over_the_ramp_and_not_in_step(autojump_clock: MockClock) -> None:
    node = FakeNode()
    fleet = fleet_of(node, 100, Mix(), ramp=50)
    result = await run(fleet, 100, ramp=50)
    log_ins = node.moments("log-in")[:100]
    assert max(sum(start <= when < start + 5 for when in log_ins) for start in range(50)) < 25
    assert result.start_seconds == pytest.approx(52, abs=2)
    assert result.rest_seconds == pytest.approx(100, abs=1)
    assert (result.logged_in, result.parked) == (100, 100)
    a_second = Counter(int(when) for when in node.moments("stateless") if when > 60)
    assert max(a_second.values()) <= 25  # 10 on average
    assert Kind.FIRST_LOG_IN not in result.rest.kinds
    assert result.rest.kinds[Kind.LOG_IN].latencies.count > 0  # tokens end at any moment
    assert [each.parked for each in result.slices][-1] == 100


async def test_a_slow_node_is_charged_for_what_it_kept_from_being_made(autojump_clock: MockClock) -> None:
    """15 s for what comes every 10 s: each counts from when it was planned, so each is later than the one before."""
    node = FakeNode(seconds=15)
    fleet = fleet_of(node, 1, Mix(Stateless(every=10), Stateful(every=0), Files(every=0), polls=False))
    async with running(fleet):
        await trio.sleep(312)
        number, oldest = fleet.unanswered()
    served = fleet.tally.kinds[Kind.STATELESS].latencies
    assert 19 <= served.count <= 20
    assert served.longest == pytest.approx(15 + (served.count - 1) * 5, rel=0.1)
    assert fleet.tally.late.longest < 0.001  # which wasn't the client's doing
    assert number == 1
    assert oldest > 15


async def test_what_fails_is_made_again_after_half_a_minute(autojump_clock: MockClock) -> None:
    node = FakeNode(answer=lambda kind: Reply(503) if kind == "stateless" and trio.current_time() < 100 else None)
    fleet = fleet_of(node, 1, Mix(Stateless(every=10), Stateful(every=0), Files(every=0), polls=False))
    async with running(fleet):
        await trio.sleep(200)
    failed = [when for when in node.moments("stateless") if when < 100]
    assert [later - before for before, later in pairwise(failed)] == pytest.approx([30.0] * (len(failed) - 1))
    assert dict(fleet.tally.kinds[Kind.STATELESS].errors) == {"status 503": len(failed)}
    assert fleet.tally.kinds[Kind.STATELESS].latencies.count >= 6


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_means_a_log_in(status: int, autojump_clock: MockClock) -> None:
    node = FakeNode(answer=lambda kind: Reply(status) if kind == "poll" else None)
    fleet = fleet_of(node, 1, Mix(Stateless(every=0), Stateful(every=0), Files(every=0)))
    async with running(fleet):
        await trio.sleep(299)
        before = node.counts()["log-in"]
        await trio.sleep(3)
    assert node.counts()["log-in"] == before + 1


async def test_log_ins_without_a_token_and_without_an_answer(autojump_clock: MockClock) -> None:
    for reply in (Reply(200, b"{}"), Reply(200, b"no"), Reply(200, b'{"token": 1}'), Reply(200, b'{"token":"a.b.c"}')):
        node = FakeNode(answer=lambda kind, reply=reply: reply if kind == "log-in" else None)
        fleet = fleet_of(node, 1, Mix())
        async with running(fleet):
            await trio.sleep(45)
        assert node.counts() == {"log-in": 2}
        assert dict(fleet.tally.kinds[Kind.FIRST_LOG_IN].errors) == {"a log-in without a token": 2}
    node = FakeNode(seconds=61)
    fleet = fleet_of(node, 1, Mix())
    async with running(fleet):
        await trio.sleep(60.5)
    assert dict(fleet.tally.kinds[Kind.FIRST_LOG_IN].errors) == {"no reply in time": 1}


async def test_commands_are_reported_as_done(autojump_clock: MockClock) -> None:
    commands = {"commands": [{"document_id": "c1"}, {"document_id": "c2"}]}
    node = FakeNode(poll_reply=Reply(200, json.dumps(commands).encode()))
    fleet = fleet_of(node, 1, Mix(Stateless(every=0), Stateful(every=0), Files(every=0)))
    async with running(fleet):
        await trio.sleep(310)
    ((_, body),) = [each for each in node.bodies if each[0] == "stateful"]
    lines = [json.loads(line) for line in body.splitlines()[1:]]
    assert [line["id"] for line in lines[::2]] == ["c1", "c2"]
    assert {line["command"]["result"]["code"] for line in lines[1::2]} == {0}
    assert fleet.tally.commands == 2
    assert fleet.tally.kinds[Kind.REPORT].latencies.count == 1


async def test_polls_that_bring_nothing_usable(autojump_clock: MockClock) -> None:
    for body in (b"", b"{}", b"[]", b'{"commands":[{}]}', b'{"commands":null}'):
        node = FakeNode(poll_reply=Reply(200, body))
        fleet = fleet_of(node, 1, Mix(Stateless(every=0), Stateful(every=0), Files(every=0)))
        async with running(fleet):
            await trio.sleep(310)
        assert node.counts() == {"log-in": 1, "poll": 2} or node.counts() == {"log-in": 2, "poll": 2}
        assert fleet.tally.errors == 0


async def test_flapping_agents_come_back_with_a_log_in(autojump_clock: MockClock) -> None:
    mix = Mix(faults=Faults(flapping=Flapping(share=0.5, up=100, down=20)))
    node = FakeNode()
    fleet = fleet_of(node, 10, mix, ramp=40)
    async with running(fleet):
        await trio.sleep(45)
        assert fleet.logged_in == 10
        seen = []
        for _ in range(600):
            await trio.sleep(1)
            seen.append(fleet.parked)
    assert min(seen) >= 4  # the others stay, but for a second after each poll
    assert min(seen) < 10
    assert 5 * 3 < node.counts()["log-in"] - 10 < 5 * 10
    assert fleet.tally.errors == 0  # being cut off is no failure of the node


async def test_a_herd_comes_back_at_one_moment(autojump_clock: MockClock) -> None:
    node = FakeNode()
    fleet = fleet_of(node, 50, Mix(faults=Faults(herd=Herd(every=200, down=60))), ramp=30)
    async with running(fleet):
        await trio.sleep(190)
        assert fleet.parked == 50
        await trio.sleep(30)
        assert fleet.parked == 0
        assert not [when for when in (each[0] for each in node.requests) if 200 < when < 220]
        assert fleet.outstanding == ("herd",)
        await trio.sleep(41)
        assert fleet.outstanding == ()
        assert fleet.parked == 50
    assert [when for when in node.moments("log-in") if 255 < when < 265] == [260.0] * 50


async def test_clones_are_one_agent_on_two_hosts(autojump_clock: MockClock) -> None:
    node = FakeNode()
    fleet = fleet_of(node, 10, Mix(Stateless(every=10), faults=Faults(cloned=Cloned(share=0.2))))
    assert len(fleet.hosts) == 12
    async with running(fleet):
        await trio.sleep(15)
    agents = [json.loads(body.splitlines()[0])["agent"] for kind, body in node.bodies if kind == "stateless"]
    hosts, ids = {agent["host"]["hostname"] for agent in agents}, {agent["id"] for agent in agents}
    assert (len(hosts), len(ids)) == (12, 10)


async def test_slow_links_are_counted_apart(autojump_clock: MockClock) -> None:
    node = FakeNode()
    fleet = fleet_of(node, 10, Mix(faults=Faults(slow_links=SlowLinks(share=0.3, bytes_per_second=500))))
    async with running(fleet):
        await trio.sleep(60)
    assert {how for _, _, how in node.requests} == {None, 500}
    slow = [kind for kind in fleet.tally.kinds if kind.endswith("slow link")]
    assert "stateless, slow link" in slow
    everything = sum(outcomes.latencies.count for outcomes in fleet.tally.kinds.values())
    apart = sum(fleet.tally.kinds[kind].latencies.count for kind in [*slow, Kind.POLL])
    assert fleet.tally.latencies().count == everything - apart


async def test_a_server_that_only_answers(autojump_clock: MockClock) -> None:
    """The same arrivals without reading replies, for a floor: polls are requests like others."""
    node = FakeNode(parks=False, answer=lambda kind: Reply(200, b"x"))
    fleet = fleet_of(node, 30, Mix(), blind=300.0)
    async with running(fleet):
        await trio.sleep(900)
    assert fleet.tally.errors == 0
    assert node.counts()["stateless"] == pytest.approx(30 * 90, rel=0.05)
    assert 30 <= node.counts()["poll"] <= 30 * 4


async def test_stopped_at_the_start_there_is_a_result(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    fleet = fleet_of(FakeNode(), 10, Mix(), ramp=100)

    async def end() -> None:
        await trio.sleep(20.5)
        stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        result = await run_fleet(fleet, ramp=100, duration=None, stop=stop, show=lambda _: None)
    assert result.start_seconds == pytest.approx(20.5)
    assert result.rest_seconds == 0
    assert (result.start.requests > 0, result.rest.requests) == (True, 0)


async def test_agents_that_cant_log_in_dont_hold_the_rest_up_for_ever(autojump_clock: MockClock) -> None:
    fleet = fleet_of(FakeNode(answer=lambda kind: Reply(503)), 3, QUIET)
    result = await run(fleet, 5)
    assert result.start_seconds == pytest.approx(60, abs=1.5)
    assert result.logged_in == 0
    assert result.start.kinds[Kind.FIRST_LOG_IN].failed == 6
