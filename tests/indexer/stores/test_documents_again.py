"""An agent that creates its documents again: of many what is stored is read of few, and nothing else is different."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from trio.testing import MockClock

from tests.contract.harness import INDEX, op
from tests.indexer.bench import fake, stores_of
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult

COUNT = 500


def creates(content: int, but: Sequence[int] = ()) -> list[DocumentOperation]:
    """With this content, and those of ``but`` with that of before."""
    return [op("create", str(n), a=0 if n in but else content) for n in range(COUNT)]


def counts(results: Sequence[ItemResult]) -> dict[str, int]:
    answers = [result.result if result.status < 300 else str(result.outcome) for result in results]
    return {answer: answers.count(answer) for answer in set(answers)}


async def test_with_other_content_few_are_read(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        assert counts(await stores.events.bulk(creates(1))) == {"updated": COUNT}
        assert {stored.source["a"] for stored in node.indices[INDEX].documents.values()} == {1}
        assert node.reads == [10, 40]  # of the first hundred, and of the others
        assert [len(bulk) for bulk in node.bulks] == [COUNT, COUNT, 100, 400]


async def test_with_the_same_content_all_are_read_and_nothing_is_written(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        assert counts(await stores.events.bulk(creates(0))) == {"noop": COUNT}
        assert sum(node.reads) == COUNT
        assert len(node.bulks) == 2


@pytest.mark.parametrize("others", [1, 199, 251, 500])
async def test_where_some_are_the_same_each_is_what_was_sent(others: int, autojump_clock: MockClock) -> None:
    """Whichever are looked at."""
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        for same in (range(others, COUNT), range(COUNT - others)):
            found = counts(await stores.events.bulk(creates(1, same)))
            assert set(found) <= {"updated", "noop"}
            assert found["updated"] >= others
            expected = [0 if n in same else 1 for n in range(COUNT)]
            documents = node.indices[INDEX].documents
            assert [documents[str(n)].source["a"] for n in range(COUNT)] == expected
            await stores.events.bulk([op("create", str(n), a=0) for n in range(COUNT)])


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
        assert counts(results) == {"updated": COUNT - 3, "passing": 3}
        assert [n for n, result in enumerate(results) if result.status == 503] == [5, 6, 7]
        assert index.documents["5"].source == {"theirs": 1}
        assert index.documents["7"].source == {"theirs": 2}
        assert "6" not in index.documents
        node.faults.before = None
        assert counts(await stores.events.bulk(creates(1))) == {"created": 1, "updated": 2, "noop": COUNT - 3}


async def test_what_follows_on_a_document_is_applied_to_what_it_holds(autojump_clock: MockClock) -> None:
    """Only what one create alone replaces needn't be read."""
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        node.reads.clear()
        updates = [op("update", str(n), b=n) for n in range(COUNT)]
        await stores.events.bulk([*creates(1), *updates])
        assert sum(node.reads) == COUNT
        assert node.indices[INDEX].documents["77"].source == {"a": 1, "b": 77}


async def test_nothing_is_replaced_once_the_request_is_closed(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        still_open = True

        async def close(method: str, path: str) -> None:
            nonlocal still_open
            still_open = still_open and path != "/_mget"

        node.faults.before = close
        results = await stores.events.bulk(creates(1), is_open=lambda position: still_open)
        assert counts(results) == {"passing": COUNT}
        assert {stored.source["a"] for stored in node.indices[INDEX].documents.values()} == {0}


async def test_what_the_indexer_refuses_is_refused_alone(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.events.bulk(creates(0))
        node.faults.malformed = lambda source: source.get("a") == 2
        operations = creates(1)
        operations[5] = op("create", "5", a=2)
        results = await stores.events.bulk(operations)
        assert counts(results) == {"updated": COUNT - 1, "refused": 1}
        assert results[5].status == 400
