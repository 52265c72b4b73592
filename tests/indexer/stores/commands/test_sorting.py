"""Commands by their time, in an index that can't be sorted by it, on the fake OpenSearch and the mock clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import fake
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.fake_bodies import error
from tests.indexer.stores.commands.nodes import INDEX, ids, nodes, put
from wazuh_comms_trio.backends.opensearch.commands import store
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores
from wazuh_comms_trio.errors import BackendUnavailable

NO_DATE = error(400, "illegal_argument_exception", "Text fields are not optimised for operations that require ...")
CLOSED = error(400, "index_closed_exception", "closed")


async def is_sorted(server: FakeOpenSearch, node: OpenSearchStores) -> bool:
    """Whether a look asks for an order."""
    assert ids(await node.commands.list()) == ["c1"]
    return "sort" in server.searches[-1]


async def test_it_is_given_up_for_its_own_refusal_alone(autojump_clock: MockClock) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        assert await is_sorted(server, node)
        server.faults.whole = lambda method, path: CLOSED if path.endswith("_search") else None
        with pytest.raises(BackendUnavailable, match="closed"):
            await node.commands.list()
        server.faults.whole = lambda method, path: None
        assert await is_sorted(server, node)


async def test_it_is_tried_again(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1")
        for times_told in (1, 1):
            answers = iter([NO_DATE])
            server.faults.whole = lambda method, path, answers=answers: (
                next(answers, None) if path.endswith("_search") else None
            )
            assert not await is_sorted(server, node)
            assert not await is_sorted(server, node)
            assert caplog.text.count("can't be sorted") == times_told
            await trio.sleep(301)
        assert await is_sorted(server, node)


@pytest.mark.parametrize("shards", [1, 3])
async def test_no_page_ends_among_documents_of_one_place(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """Each shard numbers its own documents, and a group's children have one time."""
    monkeypatch.setattr(store, "_PAGE", 5)
    settings = {INDEX: {"settings": {"index.number_of_shards": str(shards)}}}
    async with fake() as server, nodes(server) as (node,):
        server.faults.whole = lambda method, path: (200, settings) if "number_of_shards" in path else None
        for number in range(20):
            put(server, f"c{number}")
            server.indices[INDEX].documents[f"c{number}"].seq_no = number // shards
        server.indices[INDEX].refresh()
        found = [document_id async for page in node.commands.pages() for document_id in ids(page)]
        assert sorted(found) == sorted(f"c{number}" for number in range(20))
        pages = sum("sort" in each for each in server.searches)
        assert pages == (5 if shards == 1 else 7)
