"""The index of our own in which the daemons on one cluster say who they are: names, moments, ids of keys. What a node
does to be known is ``node_watch``.

Nothing in it makes a node trust anything: public keys come from files alone. Whoever may write to it can revoke keys,
which costs log-ins, and hide that nodes differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from attrs import frozen

from wazuh_comms_trio.backends.opensearch.client.bulk import SHARD_WAIT
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.error_details import error_of
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.queries import to_moment
from wazuh_comms_trio.backends.opensearch.client.search import search
from wazuh_comms_trio.backends.opensearch.templates import index_exists

INDEX: Final = "wazuh-comms-nodes"
#: The document of the keys that were revoked, in all nodes.
REVOKED: Final = "revoked-keys"
_BODY: Final = {
    "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}},
    "mappings": {"dynamic": False, "properties": {"seen": {"type": "long"}, "key": {"type": "keyword"}}},
}

#: Seconds after which a node without a sign of life is gone.
GONE_AFTER: Final = 300.0
_MOST: Final = 1000
_MOST_REVOKED: Final = 1000
_LONGEST_ID: Final = 64
UPDATE: Final = {"refresh": "true", "retry_on_conflict": "5", "timeout": SHARD_WAIT}


@frozen
class KnownNode:
    """Another daemon, as it says. ``accepts``: the ids of the keys whose tokens are good there; None: it is of an
    earlier version. ``seen``: epoch seconds, by its own clock. ``files``: see ``node_differences``. ``clock``: by how
    many seconds it finds the indexer's clock ahead of its own; None, both: it doesn't say."""

    id: str
    name: str
    key: str | None
    accepts: Collection[str] | None
    seen: float
    files: Collection[str] | None = None
    clock: float | None = None


async def had_registry(client: OpenSearchClient) -> bool:
    """Whether any node ever saw the registry of nodes. Raises ``BackendUnavailable``."""
    try:
        if not await index_exists(client, INDEX):
            return False
        hits = await search(client, INDEX, {"match_all": {}}, size=_MOST)
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 403:
            return False  # an index that we may not keep says nothing
        raise
    return any(isinstance(hit.source, dict) and hit.source.get("registry") is True for hit in hits.readable)


async def known_nodes(client: OpenSearchClient, now: float) -> list[KnownNode]:
    """The nodes that gave a sign of life of late. Raises ``BackendUnavailable``."""
    if not await index_exists(client, INDEX):
        return []
    hits = await search(client, INDEX, {"match_all": {}}, size=_MOST)
    found = (_read(document) for document in hits.readable)
    return sorted((node for node in found if node and now - node.seen < GONE_AFTER), key=lambda node: node.name)


async def other_nodes(client: OpenSearchClient, node_id: str, now: float) -> list[str]:
    """The names of the nodes that gave a sign of life of late, but for this one. Raises ``BackendUnavailable``."""
    return [node.name for node in await known_nodes(client, now) if node.id != node_id]


def _read(document: Found) -> KnownNode | None:
    fields: Any = document.source if isinstance(document.source, dict) else {}
    seen = to_moment(fields.get("seen"))
    if seen is None:
        return None
    key, accepts, files, clock = (fields.get(name) for name in ("key", "accepts", "files", "clock"))
    return KnownNode(
        document.id,
        str(fields.get("name")),
        key if isinstance(key, str) else None,
        frozenset(map(str, accepts)) if isinstance(accepts, list) else None,
        seen,
        frozenset(map(str, files)) if isinstance(files, list) else None,
        float(clock) if isinstance(clock, int | float) and not isinstance(clock, bool) else None,
    )


async def make_index(client: OpenSearchClient) -> None:
    """Makes the index where it isn't there. Raises ``BackendUnavailable``."""
    if await index_exists(client, INDEX):
        return
    try:
        await client.json("PUT", path(INDEX), _BODY)
    except IndexerUnavailable as exc:
        if exc.reply is None or error_of(exc.reply).type != "resource_already_exists_exception":
            raise


async def revoked_keys(client: OpenSearchClient) -> dict[str, float]:
    """The keys that were revoked: since when (epoch seconds), by the key's id; as they are at this moment. Raises
    ``BackendUnavailable``."""
    try:
        document = await client.json("GET", path(INDEX, "_doc", REVOKED))
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 404:
            return {}
        raise
    source = document.get("_source") if isinstance(document, dict) else None
    revoked = source.get("revoked") if isinstance(source, dict) else None
    return _moments(revoked) if isinstance(revoked, dict) else {}


def _moments(revoked: Mapping[Any, Any]) -> dict[str, float]:
    """The moments of revocations, no more than a node can keep: those of late."""
    found = {str(key)[:_LONGEST_ID]: moment for key, text in revoked.items() if (moment := to_moment(text)) is not None}
    latest = sorted(found.items(), key=lambda entry: -entry[1])[:_MOST_REVOKED]
    return dict(latest)


async def publish_revoked(client: OpenSearchClient, keys: Mapping[str, float]) -> None:
    """Writes revoked keys for all nodes, which look every few seconds. Raises ``BackendUnavailable``."""
    await make_index(client)
    body = {"doc": {"revoked": {key: round(since * 1000) for key, since in keys.items()}}, "doc_as_upsert": True}
    await client.json("POST", path(INDEX, "_update", REVOKED), body, query=UPDATE)
