"""Searches that see everything or say so: a partial result is an outage, not an answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, decode, path
from wazuh_comms_trio.backends.opensearch.client.multi_get import Found
from wazuh_comms_trio.backends.opensearch.client.queries import Query
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

_PAGE: Final = 1000
_SCROLL: Final = "1m"
_CLEANUP_TIMEOUT: Final = 2.0
#: The indexer itself waits a minute for a shard that is on no node.
_REFRESH_TIMEOUT: Final = 10.0
#: Seconds after which a right that was missing may have been given.
_ASKED_AGAIN: Final = 300.0
#: More than the refresh interval of any index that is searched here: those of a Wazuh indexer have 5 s.
_UNREFRESHED: Final = 30.0


class _Total(msgspec.Struct):
    value: int = 0


class Hits(msgspec.Struct):
    hits: list[Found] = []
    total: _Total | None = None


class _Shards(msgspec.Struct):
    total: int = 0
    successful: int = 0
    failed: int = 0


class _SearchReply(msgspec.Struct):
    hits: Hits
    timed_out: bool = False
    shards: _Shards | None = msgspec.field(name="_shards", default=None)
    scroll_id: str | None = msgspec.field(name="_scroll_id", default=None)


class _RefreshReply(msgspec.Struct):
    shards: _Shards = msgspec.field(name="_shards", default_factory=_Shards)


def _complete(reply: _SearchReply) -> _SearchReply:
    shards = reply.shards
    if reply.timed_out or (shards is not None and shards.successful < shards.total):
        raise IndexerUnavailable("the search saw only a part of the index")
    return reply


async def search(
    client: OpenSearchClient,
    index: str,
    query: Query,
    *,
    sort: Sequence[Mapping[str, Any]] = (),
    size: int = _PAGE,
    fields: Sequence[str] | None = None,
    count: bool = False,
    after: Sequence[Any] | None = None,
) -> Hits:
    """What matched at the last refresh. ``fields`` of the source, None is all, an empty one none; ``count`` makes
    ``total`` exact; ``after``: what a hit was sorted by, those behind it. Raises ``BackendUnavailable``."""
    body: dict[str, Any] = {"query": query, "size": size, "seq_no_primary_term": True, "track_total_hits": count}
    if sort:
        body["sort"] = list(sort)
        if after is not None:
            body["search_after"] = list(after)
    if fields is not None:
        body["_source"] = list(fields) or False
    found = await client.json(
        "POST", path(index, "_search"), body, query={"allow_partial_search_results": "false"}, type=_SearchReply
    )
    return _complete(found).hits


@asynccontextmanager
async def scroll(
    client: OpenSearchClient, index: str, query: Query, *, fields: Sequence[str] | None = None
) -> AsyncIterator[AsyncIterator[Found]]:
    """All that matched at one moment, however many, in no order. Raises ``BackendUnavailable``."""
    body: dict[str, Any] = {"query": query, "size": _PAGE, "sort": ["_doc"]}
    if fields is not None:
        body["_source"] = list(fields) or False
    options = {"scroll": _SCROLL, "allow_partial_search_results": "false"}
    ids: list[str] = []

    async def pages() -> AsyncIterator[Found]:
        reply = _complete(await client.json("POST", path(index, "_search"), body, query=options, type=_SearchReply))
        while reply.hits.hits:
            for hit in reply.hits.hits:
                yield hit
            if reply.scroll_id is None or len(reply.hits.hits) < _PAGE:
                break
            ids[:] = [reply.scroll_id]
            more = {"scroll": _SCROLL, "scroll_id": reply.scroll_id}
            reply = _complete(await client.json("POST", "/_search/scroll", more, type=_SearchReply))
        if reply.scroll_id is not None:
            ids[:] = [reply.scroll_id]

    found = pages()
    try:
        yield found
    finally:
        with trio.CancelScope(deadline=trio.current_time() + _CLEANUP_TIMEOUT, shield=True):
            await found.aclose()  # type: ignore[attr-defined]  # an async generator has it
            if ids:
                await _forget(client, ids)


async def _forget(client: OpenSearchClient, scroll_ids: Sequence[str]) -> None:
    """The indexer would do it itself a minute later."""
    try:
        await client.request("DELETE", "/_search/scroll", msgspec.json.encode({"scroll_id": list(scroll_ids)}))
    except BackendUnavailable as exc:
        logger.debug("indexer: a scroll stays until it expires: %s", exc)


class Refresher:
    """Makes what was written to an index visible to searches; without the right to, it is left to the index's own
    interval."""

    def __init__(self, client: OpenSearchClient) -> None:
        self._client = client
        self._allowed = True
        self._asked_again_at = 0.0

    @property
    def staleness(self) -> float:
        """Seconds for which a search, after ``refresh``, may not yet show what was written before."""
        return 0.0 if self._allowed else _UNREFRESHED

    async def refresh(self, index: str) -> None:
        """Raises ``BackendUnavailable``."""
        if not self._allowed and trio.current_time() < self._asked_again_at:
            return
        try:
            with trio.fail_after(_REFRESH_TIMEOUT):
                reply = await self._client.request(
                    "POST", path(index, "_refresh"), query={"filter_path": "_shards.failed"}
                )
        except trio.TooSlowError as exc:
            raise IndexerUnavailable(f"{index} can't be refreshed within {_REFRESH_TIMEOUT:g} s") from exc
        if reply.status == 403:
            if self._allowed:
                text = "indexer: no right to refresh %s; searches see what is older than its refresh interval"
                logger.info(text, index)
            self._allowed = False
            self._asked_again_at = trio.current_time() + _ASKED_AGAIN
            return
        self._allowed = self._allowed or reply.status == 200
        if (refreshed := decode(reply, _RefreshReply).shards).failed:
            raise IndexerUnavailable(f"{index}: {refreshed.failed} shards can't be refreshed")
