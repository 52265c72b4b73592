"""Could the indexer take events now? A question that each of its nodes answers from memory; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import trio

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.state_modules import STATE_PATTERN
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.http.client.connection import HttpReply

#: Where events go.
_INDICES: Final = STATE_PATTERN
_TARGET: Final = f"/_cluster/state/blocks,routing_table/{_INDICES}"
_SHARDS: Final = "routing_table.indices.*.shards.*"
_QUERY: Final = {
    "local": "true",  # no cluster manager is needed, nor waited for
    "expand_wildcards": "all",
    "filter_path": f"blocks.global,blocks.indices.{_INDICES},{_SHARDS}.state,{_SHARDS}.primary",
}
#: Of the cluster, by its id: it stops writes only where that is configured, but then none comes to an end.
_NO_MANAGER: Final = "2"

#: Seconds for one node's answer: after that another one is asked, within the time that a probe may take.
_TRY: Final = 0.9
_TRIES: Final = 2


class Block(msgspec.Struct):
    description: str = ""
    levels: list[str] = []


class _Blocks(msgspec.Struct):
    all: dict[str, Block] = msgspec.field(name="global", default_factory=dict)
    indices: dict[str, dict[str, Block]] = {}


class _Shard(msgspec.Struct):
    state: str = ""
    primary: bool = False


class _IndexRouting(msgspec.Struct):
    shards: dict[str, list[_Shard]] = {}


class _Routing(msgspec.Struct):
    indices: dict[str, _IndexRouting] = {}


class ClusterState(msgspec.Struct):
    blocks: _Blocks = msgspec.field(default_factory=_Blocks)
    routing_table: _Routing = msgspec.field(default_factory=_Routing)


def find_reasons(state: ClusterState) -> Iterator[str]:
    """Why events would be turned down, the most telling first. Pure."""
    for number, block in state.blocks.all.items():
        if number == _NO_MANAGER:
            yield "it has no cluster manager"
        elif "write" in block.levels:
            yield block.description
    for name, blocks in sorted(state.blocks.indices.items()):
        yield from (f"{name}: {block.description}" for block in blocks.values() if "write" in block.levels)
    for name, index in sorted(state.routing_table.indices.items()):
        copies = (copy for shard in index.shards.values() for copy in shard)
        if any(copy.primary and copy.state == "UNASSIGNED" for copy in copies):
            yield f"{name}: a primary shard is on no node"


async def probe_index(client: OpenSearchClient) -> None:
    """Raises ``BackendUnavailable`` with a sentence that anybody may read: no addresses, no names of accounts. Waits
    for none of the places that others take: where the answers to all of these are lost, that to the probe tells it."""
    for _ in range(_TRIES):
        with trio.move_on_after(_TRY):
            await _probe(client)
            return
    raise BackendUnavailable("no answer")


async def _probe(client: OpenSearchClient) -> None:
    try:
        state = read_state(await client.request("GET", _TARGET, query=_QUERY, is_probe=True))
    except IndexerUnavailable as exc:
        if exc.reply is not None:  # an answer that is remembered
            read_state(exc.reply)
        raise BackendUnavailable("it cannot be reached") from exc
    for reason in find_reasons(state):
        raise BackendUnavailable(reason)


def read_state(reply: HttpReply) -> ClusterState:
    """One without anything in it where our account may not ask (it may write all the same), or the question isn't
    known. Raises ``BackendUnavailable``."""
    if reply.status == 401:
        raise BackendUnavailable("it refuses our account")
    if reply.status == 429 or reply.status >= 500:
        raise BackendUnavailable(f"it answers {reply.status}")
    if reply.status != 200:
        return ClusterState()
    try:
        return msgspec.json.decode(reply.body, type=ClusterState)
    except DECODE_ERRORS as exc:
        raise BackendUnavailable("what answers is no OpenSearch") from exc
