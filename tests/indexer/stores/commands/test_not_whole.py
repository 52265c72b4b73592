"""Commands that were replaced by what the indexer can't give, after they were found: on the fake OpenSearch."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.indexer.bench import A1, fake
from tests.indexer.fake import Answer
from tests.indexer.fake_bodies import failure
from tests.indexer.stores.commands.nodes import INDEX, news, nodes, put, source
from wazuh_comms_trio.backends.opensearch.commands.indexed import MOST_VALUES, values_of

INDEXED = {
    "command.status": ["pending"],
    "command.target.type": ["agent"],
    "command.target.id": [A1],
    "command.action.name": ["restart"],
}


def as_indexed(method: str, path: str) -> Answer | None:
    """What is there can't be given, nor anything merged into it."""
    if path.endswith("_bulk"):
        return 200, {"items": [{"update": failure(400, "json_parse_exception", "Invalid UTF-8 middle byte")}]}
    if path.endswith("_field_caps"):
        return 200, {"fields": {name: {"keyword": {"aggregatable": True}} for name in INDEXED}}
    if path.endswith("_search"):
        hit = {"_index": INDEX, "_id": "c1", "_seq_no": 0, "_primary_term": 1, "fields": INDEXED}
        return 200, {"hits": {"total": {"value": 1}, "hits": [hit]}}
    return None


async def test_no_agent_gets_one_without_its_arguments(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A command without its arguments is another one."""
    async with fake() as server, nodes(server) as (node,):
        put(server, "c1", action={"name": "restart", "args": {"delay": 10}})
        assert await news(node.commands) == {A1}
        bulks = 0

        def once(method: str, path: str) -> Answer | None:
            nonlocal bulks
            bulks += path.endswith("_bulk")
            return as_indexed(method, path) if bulks < 2 or not path.endswith("_bulk") else None

        server.faults.whole = once
        assert await node.commands.claim([A1]) == []
        server.faults.whole = lambda method, path: None
        assert source(server, "c1")["command"]["action"] == {"name": "restart", "args": {"delay": 10}}
    assert f"{INDEX}/c1 stays pending" in caplog.text


def test_no_more_values_are_asked_for_than_a_search_may() -> None:
    """Of an index whose mapping is dynamic, each argument of any command has a field."""
    keyword = {"keyword": {"aggregatable": True}}
    fields = {f"command.action.args.{number}": keyword for number in range(200)}
    fields |= {
        "command.target.id.keyword": keyword,
        "delivery.token": keyword,
        "@timestamp": {"date": keyword["keyword"]},
    }
    asked = [each["field"] for each in values_of(fields)]
    assert len(asked) == MOST_VALUES
    assert {"command.target.id.keyword", "delivery.token", "@timestamp"} <= set(asked)
