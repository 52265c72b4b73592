"""Answers that never come, of a node that is well: a firewall or a balancer in between forgot a connection, and says
nothing. What waits behind them doesn't wait for their whole limit."""

from __future__ import annotations

import random
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.indexer.bench import A1, A2, ask, client_of, fake, fakes, stores_of
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.hosts import OVERTAKEN, SILENCE, Hosts
from wazuh_comms_trio.backends.opensearch.events.probe import probe_index
from wazuh_comms_trio.services.readiness import INTERVAL

READ_TIMEOUT = 60.0


def delay(node: FakeOpenSearch, ending: str, seconds: float, times: int) -> None:
    """The first ``times`` requests whose path ends so wait that long."""
    left = times

    async def wait(method: str, path: str) -> None:
        nonlocal left
        if path.endswith(ending) and left:
            left -= 1
            await trio.sleep(seconds)

    node.faults.before = wait


async def ask_each_second(client: OpenSearchClient) -> None:
    while True:
        await trio.sleep(1)
        assert await ask(client) == 1


async def search(
    client: OpenSearchClient, what: str = "_search", *, repeatable: bool = True, has_place: bool = False
) -> float:
    """Seconds that a search takes beside others' requests, one a second, all of which are answered."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_each_second, client)
        await client.request("POST", f"/x/{what}", b"{}", repeatable=repeatable, has_place=has_place)
        nursery.cancel_scope.cancel()
    return trio.current_time() - began


async def test_they_are_asked_for_again(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", inf, 1)
        assert OVERTAKEN <= await search(client) <= OVERTAKEN + 2


async def test_all_places_lost_at_once(autojump_clock: MockClock) -> None:
    """Nothing else can be asked then, but for the probe, which a daemon makes every ten seconds at least."""
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", inf, 12)
        began, ended = trio.current_time(), list[float]()

        async def one() -> None:
            await client.request("POST", "/x/_search", b"{}")
            ended.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one)
            await wait_all_tasks_blocked()
            assert client.statistics()["busy"] == 12
            nursery.start_soon(one)
            for _ in range(2):
                await trio.sleep(INTERVAL)
                await probe_index(client)
        assert len(ended) == 13
        assert max(ended) <= 2 * INTERVAL + 1


async def test_what_is_slow_itself_has_its_time(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", 30, 2)
        assert OVERTAKEN + 30 <= await search(client) <= OVERTAKEN + 32
        assert sum(path == "/x/_search" for _, path in nodes["a"].requests) == 2


async def test_what_may_not_be_repeated_fails(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", inf, 1)
        began = trio.current_time()
        with pytest.RaisesGroup(pytest.RaisesExc(IndexerUnavailable, check=lambda failure: failure.sent)):
            await search(client, repeatable=False)
        assert OVERTAKEN <= trio.current_time() - began <= OVERTAKEN + 2


@pytest.mark.parametrize("repeatable", [True, False])
async def test_what_was_slow_is_waited_for(autojump_clock: MockClock, repeatable: bool) -> None:
    """It would be sent twice each time, or never done."""
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", 15, 9)
        if repeatable:
            await search(client)
        else:
            with pytest.RaisesGroup(IndexerUnavailable):
                await search(client, repeatable=False)
        for _ in range(3):
            assert await search(client, repeatable=repeatable) == pytest.approx(15)


async def test_what_others_were_slow_with_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", 15, 2)
        await search(client)
        delay(nodes["a"], "_count", inf, 1)
        assert OVERTAKEN <= await search(client, "_count") <= OVERTAKEN + 2


@pytest.mark.parametrize("names", ["ab", "abc"])
async def test_a_node_that_is_passed_over_has_lost_them(autojump_clock: MockClock, names: str) -> None:
    """It was silent, and isn't asked for anything that it could answer: another node's answers tell of it."""
    async with fakes(*names) as nodes, client_of(nodes) as client:

        async def nothing_comes_through(method: str, path: str) -> None:
            if trio.current_time() < began + 12:
                await trio.sleep(inf)

        async def one() -> None:
            await client.request("POST", "/x/_search", b"{}")
            ended.append(trio.current_time() - began)

        ended: list[float] = []
        began = trio.current_time()
        for node in nodes.values():
            node.faults.before = nothing_comes_through
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one)
                await trio.sleep(2)
        assert len(ended) == 12
        assert max(ended) < 12 + OVERTAKEN + 2


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "/x/_update/7"), ("PUT", "/x/_create/7"), ("DELETE", "/x/_doc/7")]
)
async def test_a_change_is_waited_for(autojump_clock: MockClock, method: str, target: str) -> None:
    """Given up while it is slow it may still take place: after its repetition, and after a later change."""
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "/7", 50, 1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_each_second, client)
            await client.request(method, target, b"{}")
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(50)
        assert [path for _, path in nodes["a"].requests].count(target) == 1


async def test_what_keeps_an_order_waits(autojump_clock: MockClock) -> None:
    """A bulk call of events may still be applied, and a later one mustn't overtake it."""
    async with fakes("a") as nodes, client_of(nodes) as client:
        delay(nodes["a"], "_search", 50, 1)
        assert await search(client, repeatable=False, has_place=True) == pytest.approx(50)


async def test_connections_that_are_kept_are_as_dead(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:
        async with trio.open_nursery() as nursery:
            delay(nodes["a"], "/", 1, 5)
            for _ in range(5):
                nursery.start_soon(ask, client)
        delay(nodes["a"], "_search", inf, 1)
        assert client.statistics()["idle"] == 5
        await search(client)
        assert client.statistics()["idle"] <= 2


async def test_reads_of_agents_hold_up_log_ins_no_longer(autojump_clock: MockClock) -> None:
    """There are two at a time, and all log-ins wait for them; agents that are known are read beside them."""
    agents = [Agent(each, each[-2:], "hash") for each in (A1, A2)]
    async with fake() as node, stores_of(node) as stores:
        for agent in agents:
            await stores.agents.add(agent)
        await stores.agents.lookup(A1)
        delay(node, "_mget", inf, 2)

        async def log_in() -> None:
            with trio.move_on_after(20):
                await stores.agents.current(A2)

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(log_in)
                await trio.sleep(0.1)
            await trio.sleep(1)
            began = trio.current_time()
            assert await stores.agents.current(A2) == agents[1]
            assert trio.current_time() - began < 20
            nursery.cancel_scope.cancel()


def test_a_node_is_tried_while_earlier_requests_are_unanswered() -> None:
    """It failed some times, and rests; who waits for it from before is not to keep all others waiting so long."""
    hosts = Hosts([("a", 1)], random.Random(1))
    (a,) = hosts.all
    a.begin(0.0)  # and never an answer
    for moment in range(1, 10):
        a.begin(float(moment))
        hosts.failed(a, moment, moment + 0.5)
    assert a.waiting == 1
    assert a.rests_until > 9.5 + SILENCE + 1
    assert hosts.choose(9.0 + SILENCE - 0.1) is None
    assert hosts.choose(9.0 + SILENCE) is a
