"""The daemons on one cluster know of each other's token keys: an agent may log in on one and go on at another only if
they are the same."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, error_of, path
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.queries import to_moment
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.backends.opensearch.templates import index_exists
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

INDEX: Final = "wazuh-comms-nodes"
_BODY: Final = {
    "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}},
    "mappings": {"dynamic": False, "properties": {"seen": {"type": "long"}, "key": {"type": "keyword"}}},
}

#: Seconds between two signs of life, and after which a node without one is gone.
_INTERVAL: Final = 60.0
_GONE_AFTER: Final = 300.0
_RETRY: Final = 10.0
_MOST: Final = 1000
_UPDATE: Final = {"refresh": "true", "retry_on_conflict": "5"}


@frozen
class ThisNode:
    """``id`` is the same after a restart; ``key`` is the token key's id, no secret."""

    id: str
    name: str
    key: str


def this_node(port: int, command_socket: str, key: str) -> ThisNode:
    name = socket.gethostname()
    return ThisNode(f"{name}:{port}:{command_socket}"[:500], f"{name}:{port}", key)


async def had_registry(client: OpenSearchClient) -> bool:
    """Whether any node ever saw one. Raises ``BackendUnavailable``."""
    try:
        if not await index_exists(client, INDEX):
            return False
        hits = await search(client, INDEX, {"match_all": {}}, size=_MOST)
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 403:
            return False  # an index that we may not keep says nothing
        raise
    return any(isinstance(hit.source, dict) and hit.source.get("registry") is True for hit in hits.readable)


async def other_nodes(client: OpenSearchClient, node_id: str, now: float) -> list[str]:
    """The names of the nodes that gave a sign of life of late, but for this one. Raises ``BackendUnavailable``."""
    if not await index_exists(client, INDEX):
        return []
    hits = await search(client, INDEX, {"match_all": {}}, size=_MOST)
    names = []
    for document in hits.readable:
        fields: Any = document.source if isinstance(document.source, dict) else {}
        if document.id != node_id and _is_alive(fields, now):
            names.append(str(fields.get("name")))
    return sorted(names)


def _is_alive(fields: Mapping[str, Any], now: float) -> bool:
    seen = to_moment(fields.get("seen"))
    return seen is not None and now - seen < _GONE_AFTER


class NodeWatch:
    """Registers this node, and warns of nodes that sign with another key. Remembers, for nodes that start later, that
    there was a ``registry``."""

    def __init__(
        self,
        client: OpenSearchClient,
        node: ThisNode,
        wall_clock: Callable[[], float],
        registry: IndexName | None = None,
    ) -> None:
        self._registry = registry
        self._client = client
        self._node = node
        self._now = wall_clock
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Until cancelled. Without the right to keep an index of our own there is no warning."""
        while True:
            try:
                await self.look()
                pause = _INTERVAL
            except IndexerUnavailable as exc:
                if exc.reply is not None and exc.reply.status == 403:
                    logger.info("token keys of other nodes can't be compared: %s", exc)
                    return
                pause = _RETRY
            except BackendUnavailable:
                pause = _RETRY
            except Exception:
                logger.exception("token keys of other nodes can't be compared: an error of ours")
                pause = _INTERVAL
            await trio.sleep(pause)

    async def look(self) -> None:
        """Raises ``BackendUnavailable``."""
        if not await index_exists(self._client, INDEX):
            await self._make()
        own: dict[str, Any] = {"name": self._node.name, "key": self._node.key, "seen": round(self._now() * 1000)}
        if self._registry is not None and self._registry.is_known:
            own["registry"] = True  # and it stays, whatever becomes of the registry
        body = {"doc": own, "doc_as_upsert": True}
        await self._client.json("POST", path(INDEX, "_update", self._node.id), body, query=_UPDATE)
        hits = await search(self._client, INDEX, {"match_all": {}}, size=_MOST)
        for name, key in self._others(hits.readable):
            if (name, key) not in self._told:
                self._told.add((name, key))
                logger.warning(
                    "the node %s signs tokens with another key: agents that log in there are refused here, and the "
                    "other way round; set communications_api.token.private_key to the same key on all nodes",
                    name,
                )

    async def had_registry(self) -> bool:
        """``had_registry`` of our cluster."""
        return await had_registry(self._client)

    def _others(self, found: Sequence[Found]) -> Iterator[tuple[str, str]]:
        for document in found:
            fields: Any = document.source if isinstance(document.source, dict) else {}
            key = fields.get("key")
            alive = _is_alive(fields, self._now())
            if document.id != self._node.id and alive and isinstance(key, str) and key != self._node.key:
                yield str(fields.get("name")), key

    async def _make(self) -> None:
        try:
            await self._client.json("PUT", path(INDEX), _BODY)
        except IndexerUnavailable as exc:
            if exc.reply is None or error_of(exc.reply).type != "resource_already_exists_exception":
                raise
