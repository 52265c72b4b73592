"""What ``GET /api/v1/ready`` and the status say of a real indexer."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio

from tests.indexer.harness import call, settings
from tests.indexer.proxy import proxy
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.events.probe import (
    Block,
    ClusterState,
    find_reasons,
    probe_index,
    read_state,
)
from wazuh_comms_trio.config.backend_models import Indexer
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.http.client.connection import HttpReply
from wazuh_comms_trio.services.readiness import PROBE_LIMIT, READY, Readiness

pytestmark = [pytest.mark.indexer, pytest.mark.real_clock]

INDEX = "wazuh-states-fim"


async def reason(indexer: Indexer) -> str:
    """Also what agents and load balancers may read: no addresses."""
    async with OpenSearchClient(indexer) as client:
        readiness = Readiness({"index": partial(probe_index, client)})
        with trio.fail_after(4 * PROBE_LIMIT), suppress(BackendUnavailable):
            await readiness.check()
    assert "127.0.0.1" not in readiness.state
    return readiness.state


async def test_an_indexer_that_is_well(port: int) -> None:
    assert await reason(settings(port)) == READY  # without any index: the first event makes it
    for name in (INDEX, "wazuh-states-sca"):
        call(port, "PUT", f"/{name}", {"settings": {"number_of_replicas": 1}})  # yellow
    assert await reason(settings(port)) == READY
    indices = call(port, "GET", "/_cat/indices?format=json&expand_wildcards=all")
    assert {each["index"] for each in indices} == {INDEX, "wazuh-states-sca"}  # nothing was made


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ("read_only_allow_delete", "index: wazuh-states-fim: disk usage exceeded flood-stage watermark"),
        ("read_only", "index: wazuh-states-fim: index read-only (api)"),
        ("write", "index: wazuh-states-fim: index write (api)"),
        ("metadata", READY),
        ("read", READY),
    ],
)
async def test_a_block(port: int, block: str, text: str) -> None:
    call(port, "PUT", f"/{INDEX}", {})
    call(port, "PUT", "/something-else", {"settings": {"blocks.write": True}})
    assert await reason(settings(port)) == READY  # it isn't ours
    call(port, "PUT", f"/{INDEX}/_settings", {f"index.blocks.{block}": True})
    assert (await reason(settings(port))).startswith(text)
    call(port, "PUT", f"/{INDEX}/_settings", {f"index.blocks.{block}": None})
    assert await reason(settings(port)) == READY


async def test_a_block_of_the_cluster(port: int) -> None:
    try:
        call(port, "PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only": True}})
        assert await reason(settings(port)) == "index: cluster read-only (api)"
    finally:
        call(port, "PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only": None}})
    assert await reason(settings(port)) == READY


async def test_a_closed_index(port: int) -> None:
    call(port, "PUT", f"/{INDEX}", {})
    call(port, "POST", f"/{INDEX}/_close")
    assert await reason(settings(port)) == "index: wazuh-states-fim: index closed"


async def test_a_shard_that_is_nowhere(port: int) -> None:
    nowhere = {"settings": {"index.routing.allocation.require._name": "nobody"}}
    call(port, "PUT", "/something-else?wait_for_active_shards=0", nowhere)
    assert await reason(settings(port)) == READY
    call(port, "PUT", f"/{INDEX}?wait_for_active_shards=0", nowhere)
    assert await reason(settings(port)) == "index: wazuh-states-fim: a primary shard is on no node"


async def test_one_that_is_not_there_and_one_that_hangs(port: int) -> None:
    async with proxy(port) as between:
        between.switch("refuse")
        assert await reason(settings(between.port)) == "index: it cannot be reached"
        between.switch("hang")
        assert await reason(settings(between.port)) == "index: no answer"
        between.switch("pass")
        assert await reason(settings(between.port)) == READY


async def test_a_node_that_hangs_is_no_reason_while_another_answers(port: int) -> None:
    async with proxy(port) as dead, proxy(port) as well:
        both = Indexer(hosts=settings(dead.port).hosts + settings(well.port).hosts)
        async with OpenSearchClient(both) as client:
            dead.switch("hang")
            with trio.fail_after(4 * PROBE_LIMIT):
                for _ in range(4):
                    await probe_index(client)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (403, b'{"error":{"type":"security_exception"}}', None),
        (400, b'{"error":{"type":"illegal_argument_exception"}}', None),
        (429, b"", "answers 429"),
        (401, b"Unauthorized", "refuses our account"),
        (503, b"OpenSearch Security not initialized.", "answers 503"),
        (200, b"<html>", "no OpenSearch"),
        (200, b'{"blocks":7}', "no OpenSearch"),
        (200, b'{"a":' * 100_000, "no OpenSearch"),
        (200, b"{}", None),
    ],
)
def test_other_answers(status: int, body: bytes, text: str | None) -> None:
    reply = HttpReply(status, {}, body)
    if text is None:
        assert list(find_reasons(read_state(reply))) == []
    else:
        with pytest.raises(BackendUnavailable, match=text):
            read_state(reply)


def test_no_cluster_manager_goes_before_what_follows_from_it() -> None:
    """As two nodes of three, killed, leave the third one."""
    state = ClusterState()
    state.blocks.all["2"] = Block("no cluster-manager", ["metadata_write"])
    state.blocks.indices[INDEX] = {"8": Block("index write (api)", ["write"])}
    assert list(find_reasons(state)) == ["it has no cluster manager", f"{INDEX}: index write (api)"]
