"""The state index: what each answer of the bulk API means, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import fake, stores_of
from tests.indexer.client.operations import INDEX, create, delete, update
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.document_rules import ABSENT
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable
from wazuh_comms_trio.backends.opensearch.events.index import OpenSearchEvents
from wazuh_comms_trio.config.backend_models import IndexerClient
from wazuh_comms_trio.errors import BackendUnavailable


def outcomes(results: Sequence[ItemResult]) -> list[tuple[int, str]]:
    return [(result.status, str(result.outcome)) for result in results]


# --- whole calls ---


async def test_what_is_sent_as_it_was_written(autojump_clock: MockClock) -> None:
    body = b'{"a":1e5,"b":1.0,"c":"\\u00e9",  "d":12345678901234567890}'
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([DocumentOperation("create", INDEX, "1", body)])
        assert node.indices[INDEX].documents["1"].raw == body
        spread = b'{\n  "a": 1,\r\n "b": "x y"}'
        await stores.events.bulk([DocumentOperation("create", INDEX, "2", spread)])
        assert node.indices[INDEX].documents["2"].raw == b'{"a":1,"b":"x y"}'


async def test_one_bad_item_does_not_sink_the_others(autojump_clock: MockClock) -> None:
    operations = [create(str(n), n=n) for n in range(100)]
    operations[41] = DocumentOperation("update", INDEX, "41", b'{"a":1,"a":2}')  # can't be read: sinks all
    operations[77] = create("x" * 513)
    async with fake() as node, stores_of(node) as stores:
        results = await stores.events.bulk(operations)
        refused = {position for position, result in enumerate(results) if result.outcome is Outcome.REFUSED}
        assert refused == {41, 77}
        assert {result.status for n, result in enumerate(results) if n not in refused} == {201}
        assert len(node.indices[INDEX].documents) == 98
        assert len(node.bulks) < 20
        order = [document_id for ids in node.bulks for document_id in ids]
        assert order == [str(n) for n in range(100) if n not in refused]


async def test_a_400_of_somebody_else_refuses_nothing(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.whole = lambda method, path: (400, "Client sent an HTTP request to an HTTPS server.")
        with pytest.raises(IndexerUnavailable, match="HTTPS server"):
            await stores.events.bulk([create("1"), create("2")])


@pytest.mark.parametrize("count", [1, 2])
async def test_a_413_for_what_is_small_refuses_nothing(autojump_clock: MockClock, count: int) -> None:
    """A proxy's in between, for instance, whose disk is full: it is no fault of the events."""
    async with fake() as node, stores_of(node) as stores:
        node.faults.largest = 0
        with pytest.raises(IndexerUnavailable, match="413"):
            await stores.events.bulk([create(str(number)) for number in range(count)])


async def test_a_small_one_that_alone_is_413_holds_up_nobody_for_ever(autojump_clock: MockClock) -> None:
    """Something in between takes less than an event may have, and takes the others."""
    large = create("large", text="x" * 40_000)
    async with fake() as node, stores_of(node) as stores:
        node.faults.largest = 30_000

        async def write() -> list[tuple[int, str]]:
            others = [create(f"{name}{trio.current_time()}") for name in "ab"]
            return outcomes(await stores.events.bulk([others[0], large, others[1]]))

        assert await write() == [(201, "done"), (503, "passing"), (503, "passing")]
        await trio.sleep(5)
        assert (await write())[1:] == [(503, "passing")] * 2  # these may all have been on their way
        await trio.sleep(10)
        await stores.events.bulk([create("c")])
        assert await write() == [(201, "done"), (400, "refused"), (201, "done")]

        node.faults.largest = 0
        for _ in range(3):
            await trio.sleep(15)
            with pytest.raises(IndexerUnavailable, match="413"):
                await write()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
async def test_a_whole_call_that_came_to_nothing(autojump_clock: MockClock, status: int) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.whole = lambda method, path: (status, {"error": {"type": "x", "reason": "y"}, "status": status})
        with pytest.raises(BackendUnavailable) as caught:
            await stores.events.bulk([create("1"), create("2")])
        assert str(status) in str(caught.value)
        assert "indexer" not in caught.value.message  # agents aren't told


async def test_items_that_may_succeed_later(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.busy_items = 2
        results = await stores.events.bulk([create("1"), create("2"), create("3")])
        assert outcomes(results) == [(429, "passing"), (429, "passing"), (201, "done")]
        index = node.indices[INDEX]
        for fault, status in (("write", 403), ("read_only_allow_delete", 429)):
            index.block = fault
            assert outcomes(await stores.events.bulk([create("4"), delete("3")])) == [(status, "passing")] * 2
        index.block = None
        index.closed = True
        assert outcomes(await stores.events.bulk([update("3")])) == [(400, "passing")]


async def test_too_much_at_once_is_sent_in_smaller_calls(autojump_clock: MockClock) -> None:
    operations = [create(str(n), text="x" * 1000) for n in range(1000)]
    packets = list(range(0, 1000, 50))
    async with fake() as node, stores_of(node) as stores:
        node.faults.most = 300_000
        results = await stores.events.bulk(operations, boundaries=packets)
        assert {result.status for result in results} == {201}
        starts = [int(ids[0]) for ids in node.bulks]
        assert all(start in packets for start in starts)  # no packet was cut
        node.bulks.clear()
        node.requests.clear()
        await stores.events.bulk([update(str(n), text="x" * 1000) for n in range(1000)], boundaries=packets)
        attempts = [path for _, path in node.requests if "_bulk" in path]  # upkeep asks other things meanwhile
        assert len(attempts) == len(node.bulks)  # it was learned: nothing was too much
        await trio.sleep(1000)
        node.faults.most = 10**9
        for _ in range(5):
            await stores.events.bulk(operations)
            await trio.sleep(61)
        node.bulks.clear()
        await stores.events.bulk(operations)
        assert len(node.bulks) == 1  # and forgiven


async def test_a_limit_that_nothing_passes_is_an_outage(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.most = 10
        with pytest.raises(BackendUnavailable):
            await stores.events.bulk([create(str(n), text="x" * 1000) for n in range(1000)])
        assert 0 < sum("_bulk" in path for _, path in node.requests) < 20  # whatever upkeep asked meanwhile


async def test_a_document_that_is_too_large_is_refused_alone(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.largest = 100_000
        good, bad, after = await stores.events.bulk([create("1"), create("2", text="x" * 200_000), create("3")])
        assert outcomes([good, bad, after]) == [(201, "done"), (400, "refused"), (201, "done")]


async def test_our_own_limit_cuts_between_packets(autojump_clock: MockClock) -> None:
    operations = [create(str(n), text="x" * 1000) for n in range(30)]
    async with fake() as node, stores_of(node, client=IndexerClient(bulk_bytes=12_000)) as stores:
        results = await stores.events.bulk(operations, boundaries=[0, 5, 10, 25])
        assert {result.status for result in results} == {201}
        assert [int(ids[0]) for ids in node.bulks] == [0, 10, 21, 25] or all(len(ids) <= 11 for ids in node.bulks)
        assert [int(i) for ids in node.bulks for i in ids] == list(range(30))
        assert 10 in [int(ids[0]) for ids in node.bulks]


async def test_a_part_that_fails_leaves_the_rest_for_later(autojump_clock: MockClock) -> None:
    operations = [create(str(n), text="x" * 1000) for n in range(30)]
    async with fake() as node, stores_of(node, client=IndexerClient(bulk_bytes=12_000)) as stores:
        node.faults.whole = lambda method, path: (503, None) if len(node.bulks) == 1 else None
        results = await stores.events.bulk(operations)
        assert [result.outcome for result in results].count(Outcome.DONE) == len(node.bulks[0])
        assert results[-1].outcome is Outcome.PASSING
        assert len(node.bulks) == 1  # nothing overtook what failed
        node.faults.whole = lambda method, path: None
        assert {result.outcome for result in await stores.events.bulk(operations)} == {Outcome.DONE}


async def test_an_answer_with_fewer_items_is_none(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.whole = lambda method, path: (200, {"items": [{"create": {"status": 201, "result": "created"}}]})
        with pytest.raises(BackendUnavailable):
            await stores.events.bulk([create("1"), create("2")])
        node.faults.whole = lambda method, path: (200, "<html>it works</html>")
        with pytest.raises(BackendUnavailable):
            await stores.events.bulk([create("1")])


@pytest.mark.parametrize("cut", [0, 20, 120])
async def test_an_answer_that_is_cut_off(autojump_clock: MockClock, cut: int) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.cut = cut
        with pytest.raises(BackendUnavailable):
            await stores.events.bulk([create("1", a=1), update("2", b=1)])
        node.faults.cut = None
        await trio.sleep(1)
        again = await stores.events.bulk([create("1", a=1), update("2", b=1)])
        assert [(r.status, r.result) for r in again] == [(200, "noop"), (404, "[2]: document missing")]


# --- creates that meet a document ---


async def test_a_conflict_that_is_our_own_write(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.faults.false_conflicts = 3
        results = await stores.events.bulk([create(str(n), n=n) for n in range(5)])
        assert [result.status for result in results] == [200, 200, 200, 201, 201]
        assert {result.outcome for result in results} == {Outcome.DONE}
        assert len(node.indices[INDEX].documents) == 5


async def test_a_conflict_with_what_has_gone_meanwhile(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([create("1", a=1)])

        async def vanish(method: str, path: str) -> None:
            if path.endswith("_mget"):
                node.indices[INDEX].delete("1")

        node.faults.before = vanish
        (result,) = await stores.events.bulk([create("1", a=2)])
        assert result.outcome is Outcome.PASSING
        node.faults.before = None
        assert outcomes(await stores.events.bulk([create("1", a=2)])) == [(201, "done")]
        results = await stores.events.bulk([create("1", a=3), delete("1")])
        assert outcomes(results) == [(409, "done"), (200, "done")]


async def test_a_conflict_that_cannot_be_compared_now(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([create("1", a=1)])
        node.faults.whole = lambda method, path: (503, None) if path == "/_mget" else None
        results = await stores.events.bulk([create("1", a=1), create("2", a=1)])
        assert [result.outcome for result in results] == [Outcome.PASSING, Outcome.DONE]


async def test_a_document_that_many_events_name_is_read_once(autojump_clock: MockClock) -> None:
    refused = DocumentOperation("update", INDEX, "1", refused="no object")
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([create("1", a=1)])
        node.requests.clear()
        results = await stores.events.bulk([refused] * 250)
        assert {result.version for result in results} == {*await stores.events.versions([(INDEX, "1")])}
        assert node.requests.count(("POST", "/_mget")) == 2
        names = [(INDEX, str(n)) for n in range(250)]
        versions = await stores.events.versions([*names, *reversed(names)])
        assert versions[1] == versions[-2] == results[0].version
        assert set(versions) == {ABSENT, results[0].version}
        assert node.requests.count(("POST", "/_mget")) == 3  # all 250 in one, since the first was small


# --- calls that were given up ---


class Slow:
    """Holds the bulk calls of a node until they are let go."""

    def __init__(self, node: FakeOpenSearch) -> None:
        self.waiting: list[trio.Event] = []
        node.faults.before = self._hold

    async def _hold(self, method: str, path: str) -> None:
        if path == "/_bulk":
            event = trio.Event()
            self.waiting.append(event)
            await event.wait()

    def release(self) -> None:
        for event in self.waiting:
            event.set()


async def give_up(events: OpenSearchEvents, *operations: DocumentOperation) -> None:
    with trio.move_on_after(1) as scope:
        await events.bulk(operations)
    assert scope.cancelled_caught


async def test_a_retry_waits_for_the_earlier_try(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([create("1", v=0)])
        slow = Slow(node)
        await give_up(stores.events, update("1", v=1))
        later: list[int] = []

        async def write(*operations: DocumentOperation) -> None:
            results = await stores.events.bulk(operations)
            later.extend(result.status for result in results)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, update("1", v=2))
            nursery.start_soon(write, create("other"))
            await trio.sleep(1)
            assert len(slow.waiting) == 2  # the first one and the other document's; not the second of this one
            slow.release()
            await trio.sleep(1)
            slow.release()
        assert later == [201, 200]
        assert node.indices[INDEX].documents["1"].source == {"v": 2}


async def test_calls_that_were_given_up_are_few_and_hold_no_places(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node, client=IndexerClient(max_connections=8)) as stores:
        slow = Slow(node)
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(give_up, stores.events, create(str(number)))
        assert stores.client.statistics()["busy"] <= 4
        node.faults.before = None
        with trio.fail_after(1):
            assert outcomes(await stores.events.bulk([create("new")])) == [(201, "done")]
        slow.release()
        await trio.sleep(1)
        assert stores.client.statistics()["busy"] == 0


async def test_one_that_never_ends_is_not_waited_for_for_ever(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        Slow(node)
        await give_up(stores.events, create("1", v=1))
        node.faults.before = None
        began = trio.current_time()
        with pytest.raises(BackendUnavailable):  # the node has just been found silent
            await stores.events.bulk([create("1", v=1)])
        assert 50 < trio.current_time() - began < 61
        await trio.sleep(1)
        assert outcomes(await stores.events.bulk([create("1", v=1)])) == [(201, "done")]
