"""The indexer's client on the mock clock: several nodes that fail, hang and come back; accounts, sizes, connections."""

from __future__ import annotations

import logging
import random

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import ask, client_of, fake, fakes, stores_of
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.opensearch.admin.check import check_indexer
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.hosts import UNREADY_REST, Hosts
from wazuh_comms_trio.config.backend_models import Indexer, IndexerClient, IndexerHost
from wazuh_comms_trio.metrics.refusal_log import QUIET


def counts(nodes: dict[str, FakeOpenSearch]) -> list[int]:
    return [len(node.requests) for node in nodes.values()]


async def test_nodes_are_used_in_turn(autojump_clock: MockClock) -> None:
    async with fakes("a", "b", "c") as nodes, client_of(nodes) as client:
        assert await ask(client, 30) == 30
        assert counts(nodes) == [10, 10, 10]
        assert [node.accepted for node in nodes.values()] == [1, 1, 1]  # connections are kept


async def test_a_dead_node_costs_nothing_and_comes_back(autojump_clock: MockClock) -> None:
    async with fakes("a", "b", "c") as nodes, client_of(nodes) as client:
        await ask(client, 3)
        nodes["b"].go_down()
        assert await ask(client, 30) == 30
        assert counts(nodes)[1] == 1
        nodes["b"].up = True
        await trio.sleep(31)
        await ask(client, 30)
        assert counts(nodes)[1] >= 10


async def test_a_nodes_outage_is_logged_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with fakes("a") as nodes, client_of(nodes) as client:
        nodes["a"].up = False
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, client)
        await trio.sleep(5)
        assert await ask(client) == 0
        nodes["a"].up = True
        await trio.sleep(31)
        assert await ask(client, 3) == 3
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("indexer a:")]
    assert len(lines) == 2
    assert "no connection" in lines[0]
    assert "works again" in lines[1]


async def test_an_outage_of_all_costs_little_and_its_end_is_noticed(autojump_clock: MockClock) -> None:
    tries = 0
    async with fakes("a") as nodes:
        nodes["a"].up = False

        async def connect(host: str, port: int) -> trio.abc.Stream:
            nonlocal tries
            tries += 1
            return await nodes["a"].connect(host, port)

        async with OpenSearchClient(Indexer(), connect=connect, rng=random.Random(1)) as client:
            for _ in range(600):
                assert await ask(client) == 0
                await trio.sleep(0.1)
            assert tries < 60 / 0.75  # a minute, thousands of requests
            nodes["a"].up = True
            began = trio.current_time()
            while not await ask(client):  # noqa: ASYNC110  # nothing tells
                await trio.sleep(0.1)
            assert trio.current_time() - began < 1.5


async def test_one_that_hangs_is_passed_over(autojump_clock: MockClock) -> None:
    async with fakes("a", "b") as nodes, client_of(nodes) as client:

        async def hang(method: str, path: str) -> None:
            await trio.sleep_forever()

        nodes["a"].faults.before = hang
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask, client)
            await trio.sleep(5)
            with trio.fail_after(1):
                assert await ask(client, 20) == 20
            await trio.sleep(60)
            nodes["a"].faults.before = None
            assert await ask(client, 20) == 20
            nursery.cancel_scope.cancel()
        await trio.sleep(40)
        before = counts(nodes)[0]
        await ask(client, 10)
        assert counts(nodes)[0] > before


async def test_requests_that_were_given_up_tell_of_a_node_that_hangs(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:

        async def hang(method: str, path: str) -> None:
            await trio.sleep_forever()

        nodes["a"].faults.before = hang
        with trio.move_on_after(6) as scope:
            await ask(client)
        assert scope.cancelled_caught
        with trio.fail_after(3):  # it is asked whether it is well before it gets another one
            assert await ask(client) == 0
        nodes["a"].faults.before = None
        await trio.sleep(1)
        assert await ask(client) == 1


async def test_an_answer_after_20_seconds_is_an_answer(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:

        async def wait(method: str, path: str) -> None:
            await trio.sleep(20)

        nodes["a"].faults.before = wait
        assert await ask(client) == 1


def test_a_failure_can_be_raised_once_more() -> None:
    """One failure is many requests': each raises one of its own, made of its message and code."""
    first = IndexerUnavailable("node: no connection")
    again = type(first)(first.message, code=first.code)
    assert (again.code, again.message) == (503, "The service is temporarily unavailable")
    assert "node" not in again.message


async def test_none_within_the_limit_is_none(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes, client=IndexerClient(read_timeout=3)) as client:

        async def wait(method: str, path: str) -> None:
            await trio.sleep(20)

        nodes["a"].faults.before = wait
        began = trio.current_time()
        with pytest.raises(IndexerUnavailable, match="no answer within 3 s"):
            await client.json("GET", "/")
        assert trio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize("repeatable", [True, False])
async def test_only_what_may_be_repeated_is(autojump_clock: MockClock, repeatable: bool) -> None:
    async with fakes("a", "b") as nodes, client_of(nodes) as client:
        for node in nodes.values():
            node.faults.lost = 1
        if repeatable:
            with pytest.raises(IndexerUnavailable):
                await client.request("POST", "/x/_search", b"{}")
            assert counts(nodes) == [1, 1]
        else:
            with pytest.raises(IndexerUnavailable) as caught:
                await client.request("POST", "/_bulk", b"{}\n", repeatable=False)
            assert caught.value.sent
            assert sorted(counts(nodes)) == [0, 1]


async def test_what_was_not_sent_goes_elsewhere_in_any_case(autojump_clock: MockClock) -> None:
    async with fakes("a", "b") as nodes, client_of(nodes) as client:
        nodes["a"].up = False
        for _ in range(3):
            reply = await client.request("POST", "/_bulk", b"\n", repeatable=False)
            assert reply.status == 400


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_node_that_is_not_ready_is_not_the_last_word(autojump_clock: MockClock, status: int) -> None:
    async with fakes("a", "b") as nodes, client_of(nodes) as client:
        nodes["a"].faults.whole = lambda method, path: (status, "OpenSearch Security not initialized.")
        assert await ask(client, 10) == 10
        nodes["b"].faults.whole = nodes["a"].faults.whole
        with pytest.raises(IndexerUnavailable, match="not initialized"):
            await client.json("GET", "/")


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_node_that_is_not_ready_rests_beside_a_sound_one(autojump_clock: MockClock, repeatable: bool) -> None:
    """It is asked once a second whether it is ready again, and not by every request."""
    async with fakes("a", "b") as nodes, client_of(nodes) as client:
        nodes["a"].faults.whole = lambda method, path: (503, "OpenSearch Security not initialized.")
        statuses = []
        for _ in range(100):
            reply = await client.request("GET", "/", repeatable=repeatable)
            statuses.append(reply.status)
            await trio.sleep(0.05)
        assert counts(nodes)[0] <= 5
        assert statuses.count(200) == (100 if repeatable else 100 - counts(nodes)[0])
        nodes["a"].faults.whole = lambda method, path: None
        await trio.sleep(UNREADY_REST)
        before = counts(nodes)[0]
        assert await ask(client, 20) == 20
        assert counts(nodes)[0] == before + 10


async def test_where_none_is_ready_all_are_asked(autojump_clock: MockClock) -> None:
    async with fakes("a", "b", "c") as nodes, client_of(nodes) as client:
        for node in nodes.values():
            node.faults.whole = lambda method, path: (503, "no cluster manager")
        assert await ask(client, 10) == 0
        assert counts(nodes) == [10, 10, 10]
        nodes["c"].faults.whole = lambda method, path: None
        assert await ask(client, 10) == 10  # at once, by the first request that comes to it
        assert sum(counts(nodes)[:2]) <= 22


async def test_one_that_answers_slowly_goes_before_one_that_is_not_ready(autojump_clock: MockClock) -> None:
    async with fakes("a", "b") as nodes, client_of(nodes) as client:

        async def wait(method: str, path: str) -> None:
            await trio.sleep(20)

        nodes["a"].faults.before = wait
        nodes["b"].faults.whole = lambda method, path: (503, "no cluster manager")
        answers = []

        async def write() -> None:
            answers.append((await client.request("GET", "/", repeatable=False)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(write)
                await trio.sleep(0.1)
            await trio.sleep(5)
            for _ in range(2):
                nursery.start_soon(write)
                await trio.sleep(0.1)
        assert sorted(answers)[:4] == [200] * 4


async def test_connections_are_bounded(autojump_clock: MockClock) -> None:
    most = 0
    async with fakes("a") as nodes, client_of(nodes, client=IndexerClient(max_connections=8)) as client:

        async def note(method: str, path: str) -> None:
            nonlocal most
            most = max(most, client.statistics()["busy"])
            await trio.sleep(1)

        nodes["a"].faults.before = note
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(ask, client)
        assert most == 4  # the other half is for bulk calls
        assert nodes["a"].accepted == 4


async def test_kept_connections_grow_old(autojump_clock: MockClock) -> None:
    async with fakes("a") as nodes, client_of(nodes) as client:
        await ask(client, 5)
        assert nodes["a"].accepted == 1
        await trio.sleep(29)
        await ask(client)
        assert nodes["a"].accepted == 1
        await trio.sleep(31)
        await ask(client)
        assert nodes["a"].accepted == 2


async def test_large_bodies_are_compressed(autojump_clock: MockClock) -> None:
    lines = b'{"create":{"_index":"i","_id":"1"}}\n{"a":"%b"}\n' % (b"x" * 5000)
    async with fakes("a") as nodes, client_of(nodes, client=IndexerClient(gzip_bytes=5000)) as client:
        assert (await client.request("POST", "/_bulk", lines)).status == 200
        assert nodes["a"].headers["content-encoding"] == "gzip"
        assert nodes["a"].bodies[-1] < 500
        assert nodes["a"].indices["i"].documents["1"].source == {"a": "x" * 5000}
        await client.request("POST", "/_bulk", lines[:10])
        assert "content-encoding" not in nodes["a"].headers
        assert nodes["a"].headers["accept-encoding"] == "identity"  # or a proxy may compress the answers


async def test_ids_are_escaped() -> None:
    assert path("a b", "_doc", "/../?#%ü") == "/a%20b/_doc/%2F..%2F%3F%23%25%C3%BC"


# --- what the log has ---


async def test_how_many_parts_of_calls_failed_is_told_when_no_more_do(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake() as node, stores_of(node) as stores:
        for number in range(3):
            stores.client.failures.refused("changes that failed", "change %d failed", number)
        await trio.sleep(2 * QUIET)
    told = [message for message in caplog.messages if "failed" in message]
    assert told[0] == "change 0 failed"
    assert told[1].startswith("changes that failed: 2 more in ")
    assert told[1].endswith(", the last one: change 2 failed")


# --- who is next ---


def test_requests_that_fail_together_count_once() -> None:
    hosts = Hosts([("a", 1), ("b", 2)], random.Random(1))
    a = hosts.all[0]
    for _ in range(10):
        a.begin(100.0)
    for _ in range(10):
        hosts.failed(a, 100.0, 101.0)
    assert a.failures == 1
    assert a.rests_until < 102
    a.begin(103.0)
    hosts.failed(a, 103.0, 103.0)
    assert a.failures == 2
    a.begin(110.0)
    a.answered(110.0)
    assert (a.failures, a.waiting) == (0, 0)


def test_one_request_tries_a_node_that_failed() -> None:
    hosts = Hosts([("a", 1)], random.Random(1))
    (a,) = hosts.all
    a.begin(0.0)
    hosts.failed(a, 0.0, 0.0)
    assert hosts.choose(0.1) is None
    assert hosts.choose(1.0) is a
    a.begin(1.0)
    assert hosts.choose(1.1) is None
    assert hosts.choose(1.1, [a]) is None


async def test_an_address_of_version_6_is_told_with_brackets_and_once(autojump_clock: MockClock) -> None:
    async def connect(host: str, port: int) -> trio.abc.Stream:
        raise OSError("refused")

    indexer = Indexer(hosts=(IndexerHost("2001:db8::7", 9200),))
    (finding,) = [finding async for finding in check_indexer(indexer, connect=connect)]
    assert finding.what == "connection [2001:db8::7]:9200"
    assert "2001:db8::7" not in finding.text
