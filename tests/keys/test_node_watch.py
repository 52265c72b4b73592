"""What a node tells the others of its keys, and what it makes of what they say, on the mock clock."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from tests.indexer.bench import EPOCH, fake, stores_of, wall_clock
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import LocalNode
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.node_registry import INDEX, UPDATE, known_nodes, publish_revoked, revoked_keys
from wazuh_comms_trio.backends.opensearch.node_watch import NodeWatch


@define(eq=False)
class Recorded:
    """A node whose keys a test sets."""

    name: str
    keys: list[str]
    revoked: dict[str, float] = field(factory=dict)
    kept: dict[str, float] = field(factory=dict)
    node: LocalNode = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.node = LocalNode(self.name, self.name, self.keys[0], lambda: self.keys, self.revoke, self.keep)

    def revoke(self, keys: Mapping[str, float]) -> None:
        self.revoked.update(keys)
        self.keys[1:] = [key for key in self.keys[1:] if key not in keys]

    async def keep(self, keys: Mapping[str, float]) -> None:
        await trio.lowlevel.checkpoint()
        self.kept.update(keys)


@pytest.fixture
async def client() -> AsyncIterator[tuple[FakeOpenSearch, OpenSearchClient]]:
    async with fake() as node, stores_of(node) as stores:
        yield node, stores.client


def watch(client: OpenSearchClient, recorded: Recorded, leadership: Leadership | None = None) -> NodeWatch:
    return NodeWatch(client, recorded.node, wall_clock, None, leadership)


Client = tuple[FakeOpenSearch, OpenSearchClient]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["a"], ["a"], None),
        (["a", "b"], ["b", "a"], None),
        (["a"], ["b"], "agents that log in there are refused here, and the other way round"),
        (["a"], ["b", "a"], "agents that log in there are refused here;"),
        (["a", "b"], ["b"], "agents that log in here are refused by two;"),
    ],
)
async def test_keys_that_are_trusted_are_no_warning(
    autojump_clock: MockClock,
    client: Client,
    ours: list[str],
    theirs: list[str],
    expected: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wazuh_comms_trio.backends.opensearch.node_watch")
    one, two = Recorded("one", ours), Recorded("two", theirs)
    await watch(client[1], two).look()
    here = watch(client[1], one)
    for _ in range(3):
        await here.look()
    sentences = list(one.node.warnings["keys"].values())
    assert len(sentences) == (0 if expected is None else 1)
    assert all(str(expected) in sentence for sentence in sentences)
    logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == len(sentences)  # once, not at each look
    if expected is not None:
        await watch(client[1], Recorded("two", ours)).look()
        await here.look()
        assert one.node.warnings["keys"] == {}
        assert "the warning is over: keys (two)" in [record.getMessage() for record in caplog.records]


async def test_a_node_of_an_earlier_version(autojump_clock: MockClock, client: Client) -> None:
    """It doesn't say which keys it trusts: its own alone."""
    one = Recorded("one", ["a", "b"])
    await watch(client[1], one).look()
    older = {"doc": {"name": "old", "key": "b", "seen": round(wall_clock() * 1000)}, "doc_as_upsert": True}
    await client[1].json("POST", path(INDEX, "_update", "old"), older, query=UPDATE)
    await watch(client[1], one).look()
    assert "agents that log in here are refused by old" in one.node.warnings["keys"]["old"]


async def test_a_revoked_key_ends_in_all_processes_of_all_nodes_within_seconds(
    autojump_clock: MockClock, client: Client
) -> None:
    one, two, worker = Recorded("one", ["a", "bad"]), Recorded("two", ["a", "bad"]), Recorded("two", ["a", "bad"])

    class Leader(Leadership):
        def publish(self, topic: str, finding: Mapping[str, object]) -> None:
            follower.handle_finding(topic, finding)

    follower = Leadership(leader=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch(client[1], one).run)
        nursery.start_soon(watch(client[1], two, Leader()).run)
        nursery.start_soon(watch(client[1], worker, follower).run)
        await trio.sleep(2)
        await publish_revoked(client[1], {"bad": EPOCH})
        await trio.sleep(5.5)
        for recorded in (one, two, worker):
            assert recorded.keys == ["a"]
            assert recorded.revoked == {"bad": EPOCH}
        assert one.kept == two.kept == {"bad": EPOCH}  # one process of each node writes it down
        assert worker.kept == {}
        # And whoever revoked it sees that at once, not with the next sign of life.
        nodes = await known_nodes(client[1], wall_clock())
        assert [node.accepts for node in nodes] == [{"a"}, {"a"}]
        before = len(client[0].requests)
        await trio.sleep(30)
        assert len(client[0].requests) - before <= 20  # a document every five seconds, and no more
        nursery.cancel_scope.cancel()


async def test_a_nodes_own_key_is_warned_about_and_stays(autojump_clock: MockClock, client: Client) -> None:
    one = Recorded("one", ["a"])
    await publish_revoked(client[1], {"a": EPOCH})
    await watch(client[1], one).look_for_revoked()
    assert one.keys == ["a"]
    assert "was revoked" in one.node.warnings["revoked"]["this node"]


@pytest.mark.parametrize("revoked", [None, 1, [], "x", {"k": "never"}, {"k": None}, {"k": {}}])
async def test_what_others_wrote_there_revokes_nothing(
    autojump_clock: MockClock, client: Client, revoked: object
) -> None:
    one = Recorded("one", ["a", "k"])
    body = {"doc": {"revoked": revoked}, "doc_as_upsert": True}
    await watch(client[1], one).look()
    await client[1].json("POST", path(INDEX, "_update", "revoked-keys"), body, query=UPDATE)
    await watch(client[1], one).look_for_revoked()
    assert one.keys == ["a", "k"]


async def test_a_list_without_end_is_cut(autojump_clock: MockClock, client: Client) -> None:
    await publish_revoked(client[1], {f"k{number}" * 40: EPOCH + number for number in range(1500)})
    found = await revoked_keys(client[1])
    assert len(found) <= 1000
    assert max(map(len, found)) <= 64
