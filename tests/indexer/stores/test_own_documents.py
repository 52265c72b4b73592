"""An agent's own documents in the indexer: the second step that a create of what exists or an update of what doesn't
takes, and what may come between the two."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.contract.harness import INDEX, op
from tests.indexer.bench import fake, stores_of
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.document_rules import Key
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.opensearch.client.bulk import BulkItem
from wazuh_comms_trio.backends.opensearch.events.own_documents import Corrections
from wazuh_comms_trio.backends.opensearch.events.stored_documents import Stored, Write


def outcomes(results: Sequence[ItemResult]) -> list[str]:
    return [str(result.outcome) for result in results]


def sources(node: FakeOpenSearch) -> dict[str, Any]:
    return {document_id: stored.source for document_id, stored in node.indices[INDEX].documents.items()}


def at(node: FakeOpenSearch, end: str, *, call: int, do: Callable[[], object]) -> None:
    """``do`` once, before the node answers the so manieth call of this path."""
    seen = 0

    async def before(method: str, path: str) -> None:
        nonlocal seen
        seen += path.endswith(end)
        if path.endswith(end) and seen == call:
            do()

    node.faults.before = before


async def test_a_write_between_comparing_and_replacing_is_not_lost(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", old=1), op("create", "2", old=1)])
        at(node, "_bulk", call=2, do=lambda: node.indices[INDEX].write("1", b'{"theirs":1}'))
        results = await stores.events.bulk([op("create", "1", a=1), op("update", "1", b=1), op("create", "2", a=1)])
        assert outcomes(results) == ["passing", "passing", "done"]
        assert sources(node) == {"1": {"theirs": 1}, "2": {"a": 1}}
        node.faults.before = None
        assert outcomes(await stores.events.bulk([op("create", "1", a=1), op("update", "1", b=1)])) == ["done"] * 2
        assert sources(node)["1"] == {"a": 1, "b": 1}


async def test_one_that_is_deleted_between_is_not_revived(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", old=1)])
        at(node, "_bulk", call=2, do=lambda: node.indices[INDEX].delete("1"))
        assert outcomes(await stores.events.bulk([op("create", "1", a=1)])) == ["passing"]
        assert sources(node) == {}


async def test_one_that_is_made_between_is_not_overwritten(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "other")])
        at(node, "_bulk", call=2, do=lambda: node.indices[INDEX].write("1", b'{"theirs":1}'))
        assert outcomes(await stores.events.bulk([op("update", "1", a=1)])) == ["passing"]
        assert sources(node)["1"] == {"theirs": 1}
        node.faults.before = None
        assert outcomes(await stores.events.bulk([op("update", "1", a=1)])) == ["done"]
        assert sources(node)["1"] == {"theirs": 1, "a": 1}


async def test_nothing_is_replaced_once_the_request_is_closed(autojump_clock: MockClock) -> None:
    """Before it is read, and between that and the write."""
    async with fake() as node, stores_of(node) as stores:
        for call, path in ((1, "_bulk"), (1, "_mget")):
            await stores.events.bulk([op("create", "1", old=1), op("create", "2", old=1)])
            open_positions = {0, 1, 2}
            at(node, path, call=call, do=open_positions.clear)
            operations = [op("create", "1", a=1), op("update", "missing", a=1), op("create", "2", a=1)]
            results = await stores.events.bulk(operations, is_open=open_positions.__contains__)
            assert outcomes(results) == ["passing"] * 3
            assert sources(node) == {"1": {"old": 1}, "2": {"old": 1}}
            node.faults.before = None
        results = await stores.events.bulk(operations, is_open={1, 2}.__contains__)
        assert outcomes(results) == ["passing", "done", "done"]
        assert sources(node) == {"1": {"old": 1}, "2": {"a": 1}, "missing": {"a": 1}}


async def test_of_a_large_packet_nothing_more_is_read_once_its_request_is_closed(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        open_positions = set(range(1000))
        await stores.events.bulk([op("create", "other")])
        at(node, "_mget", call=1, do=open_positions.clear)
        node.requests.clear()
        operations = [op("update", str(number), a=1) for number in range(1000)]
        results = await stores.events.bulk(operations, is_open=open_positions.__contains__)
        assert outcomes(results) == ["passing"] * 1000
        assert node.requests.count(("POST", "/_mget")) == 1


async def test_an_agent_that_creates_its_documents_again_costs_few_calls(autojump_clock: MockClock) -> None:
    """A hundred are read at first; once they are found to be small a packet of a thousand costs three calls."""
    async with fake() as node, stores_of(node) as stores:
        packets = [range(start, start + 1000) for start in range(0, 4000, 1000)]
        for content in range(2):
            calls = []
            for packet in packets:
                node.requests.clear()
                results = await stores.events.bulk([op("create", str(n), a=content) for n in packet])
                assert outcomes(results) == ["done"] * 1000
                calls.append([path for _, path in node.requests])
            if not content:
                assert calls == [["/_bulk"]] * 4
        assert calls == [["/_bulk", *2 * ["/_mget", "/_bulk"]], *3 * [["/_bulk", "/_mget", "/_bulk"]]]
        assert sources(node) == {str(n): {"a": 1} for n in range(4000)}


async def test_nothing_is_replaced_once_the_caller_is_gone(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", old=1)])
        slow = trio.Event()

        async def hold(method: str, path: str) -> None:
            await slow.wait()

        node.faults.before = hold
        with trio.move_on_after(1):
            await stores.events.bulk([op("create", "1", a=1), op("update", "2", a=1)])
        slow.set()
        await trio.sleep(1)
        assert sources(node) == {"1": {"old": 1}}


async def test_one_that_cannot_be_read_or_written_now_is_tried_again(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", old=1)])
        node.faults.whole = lambda method, path: (503, None) if path == "/_mget" else None
        results = await stores.events.bulk([op("create", "1", a=1), op("update", "1", b=1), op("create", "2", a=1)])
        assert outcomes(results) == ["passing", "passing", "done"]
        node.faults.whole = lambda method, path: None
        results = await stores.events.bulk([op("create", "1", a=1), op("update", "1", b=1), op("create", "2", a=1)])
        assert outcomes(results) == ["done"] * 3
        assert sources(node) == {"1": {"a": 1, "b": 1}, "2": {"a": 1}}


async def test_a_false_conflict_of_a_replacement_is_tried_again_and_is_a_noop(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", old=1)])
        node.faults.false_conflicts = 1
        (result,) = await stores.events.bulk([op("create", "1", a=1)])
        assert result.outcome is Outcome.PASSING
        (result,) = await stores.events.bulk([op("create", "1", a=1)])
        assert (result.status, result.result) == (200, "noop")


@pytest.mark.parametrize("bad", [{0}, {1}, {3}, {0, 2}, {0, 1, 2, 3}])
async def test_of_several_only_what_is_refused_is_refused(bad: set[int], autojump_clock: MockClock) -> None:
    """A document that isn't there: none of the updates was looked at before, and all are written in one step."""
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "other")])

        node.faults.malformed = lambda source: "bad" in source
        updates = [op("update", "1", **{("bad" if number in bad else f"n{number}"): 1}) for number in range(4)]
        results = await stores.events.bulk(updates)
        assert outcomes(results) == ["refused" if number in bad else "done" for number in range(4)]
        expected = {f"n{number}": 1 for number in range(4) if number not in bad}
        assert sources(node).get("1", {}) == expected


LARGE = "x" * 300_000


class Turns:
    """Documents that are read and written at once; how often other tasks ran in between."""

    at_once = 100

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.counted = 0
        self.before_writing = 0

    async def pages(self, keys: Sequence[Key], unread: Collection[Key]) -> AsyncGenerator[Mapping[Key, Stored], None]:
        self.counted = 0
        yield dict.fromkeys(keys, Stored(self.body, 1, 1))

    async def write(self, writes: Sequence[Write]) -> Sequence[BulkItem]:
        self.before_writing = self.counted
        return [BulkItem(200)] * len(writes)

    async def count(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.counted += 1


@pytest.mark.parametrize(("letters", "turns"), [(1, 0), (100_000, 16), (300_000, 50)])
async def test_other_tasks_run_while_large_documents_are_replaced(letters: int, turns: int) -> None:
    operations = [op("create", str(n), a=n) for n in range(50)]
    results: list[ItemResult | None] = [ItemResult(409, "exists")] * 50
    documents = Turns(b'{"a":"%b"}' % (b"x" * letters))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(documents.count)
        await Corrections(operations, results, range(50), lambda position: True).make(documents)
        nursery.cancel_scope.cancel()
    assert {result.status for result in results if result is not None} == {200}
    assert turns - 2 <= documents.before_writing <= turns  # two until the other task runs


async def test_many_operations_on_one_large_document_go_in_steps(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", a=1)])
        many = [op("create", "1", a=LARGE), *(op("update", "1", b=n) for n in range(100)), op("create", "1", c=1)]
        reads = node.requests.count(("POST", "/_mget"))
        results = await stores.events.bulk(many)
        assert outcomes(results) == ["done"] * len(many)
        assert sources(node)["1"] == {"c": 1}
        assert node.requests.count(("POST", "/_mget")) - reads == 4  # 8 MiB of them each


async def test_of_steps_those_that_come_too_late_are_not_tried(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk([op("create", "1", a=1)])
        many = [op("create", "1", a=LARGE), *(op("update", "1", b=n) for n in range(100))]
        closed = False

        def close() -> None:
            nonlocal closed
            closed = True

        at(node, "_mget", call=2, do=close)
        results = await stores.events.bulk(many, is_open=lambda position: not closed)
        done = outcomes(results).count("done")
        assert 1 < done < len(many)
        assert outcomes(results) == ["done"] * done + ["passing"] * (len(many) - done)
        assert sources(node)["1"]["b"] == done - 2


# --- many that are created again: what is stored is read of few, and nothing else is different ---

MANY = 500


def creates(content: int, but: Sequence[int] = ()) -> list[DocumentOperation]:
    """With this content, and those of ``but`` with that of before."""
    return [op("create", str(n), a=0 if n in but else content) for n in range(MANY)]


def counts(results: Sequence[ItemResult]) -> dict[str, int]:
    answers = [result.result if result.status < 300 else str(result.outcome) for result in results]
    return {answer: answers.count(answer) for answer in set(answers)}


async def test_with_other_content_few_are_read(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        assert counts(await stores.events.bulk(creates(1))) == {"updated": MANY}
        assert {stored.source["a"] for stored in node.indices[INDEX].documents.values()} == {1}
        assert node.reads == [10, 40]  # of the first hundred, and of the others
        assert [len(bulk) for bulk in node.bulks] == [MANY, MANY, 100, 400]


async def test_with_the_same_content_all_are_read_and_nothing_is_written(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        assert counts(await stores.events.bulk(creates(0))) == {"noop": MANY}
        assert sum(node.reads) == MANY
        assert len(node.bulks) == 2


@pytest.mark.parametrize("others", [1, 199, 251, 500])
async def test_where_some_are_the_same_each_is_what_was_sent(others: int, autojump_clock: MockClock) -> None:
    """Whichever are looked at."""
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        for same in (range(others, MANY), range(MANY - others)):
            found = counts(await stores.events.bulk(creates(1, same)))
            assert set(found) <= {"updated", "noop"}
            assert found["updated"] >= others
            expected = [0 if n in same else 1 for n in range(MANY)]
            documents = node.indices[INDEX].documents
            assert [documents[str(n)].source["a"] for n in range(MANY)] == expected
            await stores.events.bulk([op("create", str(n), a=0) for n in range(MANY)])


async def test_another_writer_of_one_that_is_not_read_is_not_overwritten(autojump_clock: MockClock) -> None:
    """Each comes between reading and replacing: a write, a delete, and what wasn't there when it was asked for."""
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        index = node.indices[INDEX]
        seen = 0

        async def before(method: str, path: str) -> None:
            nonlocal seen
            seen += 1
            if path == "/_mget" and seen == 2:
                index.delete("7")
            elif path == "/_bulk" and seen == 3:
                index.write("5", b'{"theirs":1}')
                index.delete("6")
                index.write("7", b'{"theirs":2}')

        node.faults.before = before
        results = await stores.events.bulk(creates(1))
        assert counts(results) == {"updated": MANY - 3, "passing": 3}
        assert [n for n, result in enumerate(results) if result.status == 503] == [5, 6, 7]
        assert index.documents["5"].source == {"theirs": 1}
        assert index.documents["7"].source == {"theirs": 2}
        assert "6" not in index.documents
        node.faults.before = None
        assert counts(await stores.events.bulk(creates(1))) == {"created": 1, "updated": 2, "noop": MANY - 3}


async def test_what_follows_on_a_document_is_applied_to_what_it_holds(autojump_clock: MockClock) -> None:
    """Only what one create alone replaces needn't be read."""
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        node.reads.clear()
        updates = [op("update", str(n), b=n) for n in range(MANY)]
        await stores.events.bulk([*creates(1), *updates])
        assert sum(node.reads) == MANY
        assert node.indices[INDEX].documents["77"].source == {"a": 1, "b": 77}


async def test_nothing_of_it_is_replaced_once_the_request_is_closed(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        still_open = True

        async def close(method: str, path: str) -> None:
            nonlocal still_open
            still_open = still_open and path != "/_mget"

        node.faults.before = close
        results = await stores.events.bulk(creates(1), is_open=lambda position: still_open)
        assert counts(results) == {"passing": MANY}
        assert {stored.source["a"] for stored in node.indices[INDEX].documents.values()} == {0}


async def test_what_the_indexer_refuses_is_refused_alone(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        node.faults.malformed = lambda source: source.get("a") == 2
        operations = creates(1)
        operations[5] = op("create", "5", a=2)
        results = await stores.events.bulk(operations)
        assert counts(results) == {"updated": MANY - 1, "refused": 1}
        assert results[5].status == 400
