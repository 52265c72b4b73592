"""The registry in pages, of indices that others made, too."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.indexer.bench import A1, A2, fake, stores_of
from tests.indexer.fake import FakeOpenSearch
from tests.indexer.harness import call, settings
from wazuh_comms_trio.backends.agent_orders import AgentOrder, in_order
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.opensearch.agents import agent_search
from wazuh_comms_trio.backends.opensearch.agents.documents import to_document
from wazuh_comms_trio.backends.opensearch.client import search
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.backends.opensearch.templates import index_body
from wazuh_comms_trio.backends.presence import Heard
from wazuh_comms_trio.errors import BackendUnavailable

INDEX = "wazuh-agents"
ORDERS: tuple[AgentOrder, ...] = ("name", "uuid")
STRICT: Any = index_body("agents")["mappings"]


@pytest.fixture(autouse=True)
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_search, "_PAGE", 2)


def agents(count: int) -> list[Agent]:
    """Names that several have."""
    return [Agent(f"{A1[:-2]}{number:02}", f"n{number * 7 % 5}", "k") for number in range(count)]


async def all_pages(stores: OpenSearchStores, order: AgentOrder = "name", *, reverse: bool = False) -> list[Any]:
    return [page async for page in stores.agents.pages(order, reverse=reverse)]


def searches(node: FakeOpenSearch) -> list[Any]:
    return [body for body in node.searches if body.get("sort", ["_doc"]) != ["_doc"]]


@pytest.mark.parametrize("mappings", [STRICT, {}], ids=["strict", "dynamic"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("reverse", [False, True])
async def test_each_is_there_once_and_in_order(
    autojump_clock: MockClock, mappings: Any, order: AgentOrder, reverse: bool
) -> None:
    async with fake() as node, stores_of(node) as stores:
        node.default_mappings = mappings
        made = agents(9)
        for agent in made:
            node.index(INDEX).write(agent.id, encoded(agent))
        pages = await all_pages(stores, order, reverse=reverse)
        assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
        assert [agent for page in pages for agent in page] == in_order(made, order, reverse=reverse)


async def test_the_first_page_is_one_search(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        for agent in agents(9):
            await stores.agents.add(agent)
        pages = stores.agents.pages()
        assert [agent.name for agent in await anext(pages)] == ["n0", "n0"]
        assert len(searches(node)) == 1
        await pages.aclose()
        assert len(searches(node)) == 1


async def test_what_changes_meanwhile_moves_nobody(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        made = agents(6)
        for agent in made:
            await stores.agents.add(agent)
        found: list[str] = []
        async for page in stores.agents.pages():
            found += [agent.id for agent in page]
            for agent in made:  # a log-in writes the document anew
                await stores.agents.set_groups(agent.id, [f"g{len(found)}"])
            node.index(INDEX).refresh()
        assert found == [agent.id for agent in in_order(made, "name")]


async def test_a_name_too_long_to_be_sorted_by_is_in_its_place(autojump_clock: MockClock) -> None:
    """Of a text a dynamic mapping has up to 256 characters as a keyword."""
    async with fake() as node, stores_of(node) as stores:
        made = [Agent(A1, "n" * 300, "k"), Agent(A2, "a", "k"), *agents(3)[2:]]
        for agent in made:
            node.index(INDEX).write(agent.id, encoded(agent))
        read = [agent for page in await all_pages(stores) for agent in page]
        assert read == in_order(made, "name")
        assert len(searches(node)) == 1  # which was refused


async def test_documents_without_name_or_id_are_all_there(autojump_clock: MockClock) -> None:
    """Other programs' needn't have them."""
    async with fake() as node, stores_of(node) as stores:
        node.default_mappings = STRICT
        for number in range(5):
            node.index(INDEX).write(f"x{number}", b'{"agent":{"key":"k"}}')
        node.index(INDEX).write("none", b'{"other":1}')
        for reverse in (False, True):
            read = [agent.id for page in await all_pages(stores, reverse=reverse) for agent in page]
            assert sorted(read) == [f"x{number}" for number in range(5)]


async def test_documents_of_one_place_are_all_there(autojump_clock: MockClock) -> None:
    """Each shard numbers its own."""
    async with fake() as node, stores_of(node) as stores:
        node.default_mappings = STRICT
        for number, seq_no in enumerate((1, 2, 2, 3, 4)):
            node.index(INDEX).write(f"x{number}", b'{"agent":{"key":"k"}}').seq_no = seq_no
        read = [agent.id for page in await all_pages(stores) for agent in page]
        assert sorted(read) == [f"x{number}" for number in range(5)]


async def test_an_index_that_cant_be_sorted_is_read_as_a_whole(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        made = agents(5)
        for agent in made:
            await stores.agents.add(agent)

        def refuse(method: str, path: str) -> Any:
            text = "Text fields are not optimised"
            if path.endswith("_search") and sum(1 for one in node.requests if one == (method, path)) <= 1:
                return 400, {"error": {"type": "illegal_argument_exception", "reason": text}, "status": 400}
            return None

        node.requests.clear()
        node.faults.whole = refuse
        read = [agent for page in await all_pages(stores, reverse=True) for agent in page]
        assert read == in_order(made, "name", reverse=True)


async def test_an_outage_is_told(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        for agent in agents(5):
            await stores.agents.add(agent)
        pages = stores.agents.pages()
        await anext(pages)
        node.go_down()
        with pytest.raises(BackendUnavailable):
            await anext(pages)


async def test_those_of_a_page_are_read_by_id(autojump_clock: MockClock) -> None:
    async with fake() as node, stores_of(node) as stores:
        await stores.presence.record([Heard(A1, 1_750_000_000.0)])
        node.searches.clear()
        assert (await stores.presence.last_seen_of([A1, A2])).keys() == {A1}
        assert node.searches == []


async def test_a_page_whose_answer_is_lost_is_not_passed_over(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a scroll each page is given once: asked for again, it is the one behind it, and a group lacks its members."""
    monkeypatch.setattr(search, "_PAGE", 2)
    async with fake() as node, stores_of(node) as stores:
        for agent in agents(7):
            node.index(INDEX).write(agent.id, encoded(agent))

        async def lose_a_page(method: str, path: str) -> None:
            if (method, path) == ("POST", "/_search/scroll"):
                node.faults.before, node.faults.lost = None, 1

        node.faults.before = lose_a_page
        with pytest.raises(BackendUnavailable):
            await stores.agents.members("all")
        assert node.faults.before is None
        await trio.sleep(1)  # the node rests after a failure
        assert len(await stores.agents.members("all")) == 7


#: Whether the index can be sorted by name: where it can't be all are read before the first page.
REAL: list[tuple[str, list[str], int]] = [
    ("ours", [], 2),
    ("template", ["explicit"], 2),
    ("dynamic", ["dynamic"], 2),
    ("alias of both", ["explicit", "dynamic"], 9),
    ("alias of two alike", ["explicit", "explicit-2"], 1),
]


@pytest.mark.indexer
@pytest.mark.real_clock
@pytest.mark.parametrize(("kind", "made_by_others", "largest"), REAL, ids=[kind for kind, _, _ in REAL])
async def test_on_a_real_one(port: int, kind: str, made_by_others: list[str], largest: int) -> None:
    made = agents(9)
    for number, name in enumerate(made_by_others):
        mappings = {} if name == "dynamic" else STRICT
        call(port, "PUT", f"/{name}", {"mappings": mappings, "aliases": {INDEX: {}}})
        for agent in made if kind == "alias of two alike" else made[number :: len(made_by_others)]:
            call(port, "PUT", f"/{name}/_doc/{agent.id}", to_document(agent))
    async with open_opensearch(settings(port)) as stores:
        for agent in () if made_by_others else made:
            await stores.agents.add(agent)
        for order in ORDERS:
            for reverse in (False, True):
                pages = await all_pages(stores, order, reverse=reverse)
                assert [agent for page in pages for agent in page] == in_order(made, order, reverse=reverse)
                assert max(map(len, pages)) == largest


def encoded(agent: Agent) -> bytes:
    return json.dumps(to_document(agent)).encode()
