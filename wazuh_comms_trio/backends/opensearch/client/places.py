"""Where documents lie that aren't where their id has them: routed otherwise by their writer, or in one of several
indices behind an alias. They are found by a search, not by a read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.multi_get import Place
from wazuh_comms_trio.backends.opensearch.client.queries import is_possible_id
from wazuh_comms_trio.backends.opensearch.client.search import Refresher, search

#: Seconds for which it is believed that a name is that of one index with one shard: an alias may get another one.
_BELIEVED: Final = 60.0
_SHARDS: Final = "index.number_of_shards"
_AT_ONCE: Final = 1000


async def shards_of(client: OpenSearchClient, name: str) -> Mapping[str, int]:
    """The number of shards by index, of one index or of those behind an alias; none where our account isn't allowed to
    know. Raises ``BackendUnavailable``."""
    try:
        found: Any = await client.json("GET", path(name, "_settings", _SHARDS), query={"flat_settings": "true"})
        return {index: int(each["settings"][_SHARDS]) for index, each in found.items()}
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 403:
            return {}
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise IndexerUnavailable(f"the settings of {name} aren't understood: {exc!r}") from exc


class Places:
    """The places of one name's documents."""

    def __init__(self, client: OpenSearchClient, refresher: Refresher) -> None:
        self._client = client
        self._refresher = refresher
        self._shards: Mapping[str, int] = {}
        self._looked_at = -_BELIEVED

    async def are_several(self, name: str) -> bool:
        """Whether there are several indices behind the name. Raises ``BackendUnavailable``."""
        return len(await self._shards_of(name)) > 1

    async def are_numbered_apart(self, name: str) -> bool:
        """Whether two documents may have one ``_seq_no``: each shard counts its own. Raises ``BackendUnavailable``."""
        return list((await self._shards_of(name)).values()) != [1]

    async def find(self, name: str, ids: Sequence[str]) -> dict[str, Place] | None:
        """The places of documents that exist, as of now; None: their ids alone say it. Raises
        ``BackendUnavailable``."""
        shards = await self._shards_of(name)
        if len(shards) <= 1 and all(count == 1 for count in shards.values()):
            return None
        wanted = [document_id for document_id in ids if is_possible_id(document_id)]
        places: dict[str, Place] = {}
        if wanted:
            await self._refresher.refresh(name)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            hits = await search(self._client, name, {"ids": {"values": part}}, size=10 * _AT_ONCE, fields=[])
            for hit in sorted(hits.readable, key=lambda hit: hit.index):  # the newest index of a row of them
                places[hit.id] = Place(hit.index, hit.routing)
        return places

    async def _shards_of(self, name: str) -> Mapping[str, int]:
        now = trio.current_time()
        if now - self._looked_at >= _BELIEVED:
            self._shards = await shards_of(self._client, name)
            self._looked_at = now
        return self._shards
