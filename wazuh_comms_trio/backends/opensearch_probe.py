"""Could the indexer take events now? Two questions that a node answers from its memory, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import trio

from wazuh_comms_trio.backends.http_connection import HttpReply
from wazuh_comms_trio.backends.opensearch_client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.errors import BackendUnavailable

#: Where events go.
_INDICES: Final = "wazuh-states-*"
_HEALTH: Final = f"/_cluster/health/{_INDICES}"
_HEALTH_QUERY: Final = {
    "local": "true",  # no cluster manager is needed, nor waited for
    "level": "indices",
    "expand_wildcards": "all",
    "filter_path": "discovered_cluster_manager,indices.*.status",
}
_BLOCKS: Final = f"/_cluster/state/blocks/{_INDICES}"
_BLOCKS_QUERY: Final = {"local": "true", "expand_wildcards": "all", "filter_path": "blocks"}

#: Seconds for one node's answer: after that another one is asked, within the time that a probe may take.
_TRY: Final = 0.9
_TRIES: Final = 2


class _IndexHealth(msgspec.Struct):
    status: str = ""


class Health(msgspec.Struct):
    discovered_cluster_manager: bool = True
    indices: dict[str, _IndexHealth] = {}


class Block(msgspec.Struct):
    description: str = ""
    levels: list[str] = []

    @property
    def stops_writes(self) -> bool:
        return "write" in self.levels


class _Blocks(msgspec.Struct):
    all: dict[str, Block] = msgspec.field(name="global", default_factory=dict)
    indices: dict[str, dict[str, Block]] = {}


class ClusterState(msgspec.Struct):
    blocks: _Blocks = msgspec.field(default_factory=_Blocks)


def find_reasons(health: Health | None, state: ClusterState | None) -> Iterator[str]:
    """Why events would be turned down, the most telling first. Pure; None: we may not ask."""
    if state is not None:
        yield from (block.description for block in state.blocks.all.values() if block.stops_writes)
    if health is not None and not health.discovered_cluster_manager:
        yield "it has no cluster manager"
    if state is not None:
        for name, blocks in sorted(state.blocks.indices.items()):
            yield from (f"{name}: {block.description}" for block in blocks.values() if block.stops_writes)
    if health is not None:
        yield from (
            f"{name}: its primary shard is on no node"
            for name, index in sorted(health.indices.items())
            if index.status == "red"
        )


async def probe_index(client: OpenSearchClient) -> None:
    """Raises ``BackendUnavailable`` with a sentence that anybody may read: no addresses, no names of accounts."""
    for _ in range(_TRIES):
        with trio.move_on_after(_TRY):
            await _probe(client)
            return
    raise BackendUnavailable("no answer")


async def _probe(client: OpenSearchClient) -> None:
    try:
        health = _read(await client.request("GET", _HEALTH, query=_HEALTH_QUERY), Health)
        state = _read(await client.request("GET", _BLOCKS, query=_BLOCKS_QUERY), ClusterState)
    except IndexerUnavailable as exc:
        if exc.reply is not None:
            _read(exc.reply, Health)
        raise BackendUnavailable("it cannot be reached") from exc
    for reason in find_reasons(health, state):
        raise BackendUnavailable(reason)


def _read(reply: HttpReply, kind: type[Any]) -> Any:
    """None where our account may not ask: it may write all the same."""
    if reply.status == 401:
        raise BackendUnavailable("it refuses our account")
    if reply.status == 403:
        return None
    if reply.status != 200:
        raise BackendUnavailable(f"it answers {reply.status}")
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BackendUnavailable("what answers is no OpenSearch") from exc
