"""Searches that see everything or say so: a partial result is an outage, not an answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio
from attrs import evolve, frozen

from wazuh_comms_trio.backends.opensearch.client.client import (
    IndexerUnavailable,
    OpenSearchClient,
    ReplyTooLarge,
    decode,
    decode_around,
    path,
)
from wazuh_comms_trio.backends.opensearch.client.content_errors import may_be_content
from wazuh_comms_trio.backends.opensearch.client.found import Found, read_found
from wazuh_comms_trio.backends.opensearch.client.multi_get import Place, get_many
from wazuh_comms_trio.backends.opensearch.client.queries import Query, encode_json
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.http.client.connection import HttpReply

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


class _RawHits(msgspec.Struct):
    hits: list[msgspec.Raw] = []
    total: _Total | None = None


@frozen
class Hits:
    """``total``: how many match in all, if that was asked; ``seen``: how many were in the answer, those that can't be
    read too; ``last``: what the last of these was sorted by, ``before``: what the last one was that was sorted by
    something else; ``gone``: how many weren't there any more when they were read."""

    readable: Sequence[Found] = ()
    unreadable: Sequence[Found] = ()
    total: int | None = None
    last: Sequence[Any] | None = None
    gone: int = 0
    before: Sequence[Any] | None = None

    @property
    def seen(self) -> int:
        return len(self.readable) + len(self.unreadable) + self.gone

    def without_last(self) -> Hits:
        """The hits without those that were sorted by the same as the last, for the next page to begin with; counted as
        gone."""
        if self.before is None:
            return self
        readable = [each for each in self.readable if each.sort != self.last]
        unreadable = [each for each in self.unreadable if each.sort != self.last]
        gone = self.seen - len(readable) - len(unreadable)
        return evolve(self, readable=readable, unreadable=unreadable, last=self.before, gone=gone, before=None)


class _Shards(msgspec.Struct):
    total: int = 0
    successful: int = 0
    failed: int = 0


class _SearchReply(msgspec.Struct):
    hits: _RawHits
    timed_out: bool = False
    shards: _Shards | None = msgspec.field(name="_shards", default=None)
    scroll_id: str | None = msgspec.field(name="_scroll_id", default=None)


class _RefreshReply(msgspec.Struct):
    shards: _Shards = msgspec.field(name="_shards", default_factory=_Shards)


def read_hits(reply: HttpReply) -> tuple[Hits, str | None]:
    """Reads an answer to a search, and its scroll's id. Pure. Raises ``IndexerUnavailable`` where it isn't one, or
    isn't complete."""
    whole, raw = decode_around(reply, _SearchReply, "hits", "hits")
    shards = whole.shards
    if whole.timed_out or (shards is not None and shards.successful < shards.total):
        raise IndexerUnavailable("the search saw only a part of the index")
    found = [read_found(each) for each in raw]
    total = whole.hits.total
    hits = Hits(
        [each for each in found if each.problem is None],
        [each for each in found if each.problem is not None],
        None if total is None else total.value,
        found[-1].sort if found else None,
        before=next((each.sort for each in reversed(found) if each.sort != found[-1].sort), None),
    )
    return hits, whole.scroll_id


async def _ask(
    client: OpenSearchClient, target: str, body: Mapping[str, Any], query: Mapping[str, str]
) -> tuple[Hits, str | None] | None:
    """Names what can't be read in the log. None: it failed, perhaps for a document that the indexer can't give, or for
    documents that are too much for one answer."""
    try:
        reply = await _post(client, target, body, query)
    except ReplyTooLarge:
        return None
    if may_be_content(reply):
        return None
    found = read_hits(reply)
    for each in found[0].unreadable:
        client.unreadable.note(each.unreadable())
    return found


async def _ask_without_texts(
    client: OpenSearchClient, target: str, body: Mapping[str, Any], query: Mapping[str, str]
) -> tuple[Hits, str | None]:
    """Searches again for the same hits, without their documents."""
    bare = body if "scroll_id" in body else {**body, "_source": False}
    return read_hits(await _post(client, target, bare, query))


async def _post(client: OpenSearchClient, target: str, body: Mapping[str, Any], query: Mapping[str, str]) -> HttpReply:
    """A scroll's next page is given once: asked for again, where its answer was lost, it is the page behind it."""
    return await client.request("POST", target, encode_json(body), query=query, repeatable="scroll_id" not in body)


async def _with_texts(client: OpenSearchClient, hits: Hits, fields: Sequence[str]) -> Hits:
    """Hits that came without their documents, with these, each read on its own, as they are now."""
    documents: dict[tuple[str, str], Found] = {}
    for index in {hit.index for hit in hits.readable}:
        routed = {hit.id: Place(index, hit.routing) for hit in hits.readable if hit.index == index}
        places = routed if any(place.routing for place in routed.values()) else None
        found = await get_many(client, index, list(routed), fields=fields, places=places)
        documents |= {(index, document_id): document for document_id, document in found.items()}
    for hit in hits.readable:
        if document := documents.get((hit.index, hit.id)):
            document.sort = hit.sort
    return evolve(
        hits,
        readable=[each for each in documents.values() if each.problem is None],
        unreadable=[*hits.unreadable, *(each for each in documents.values() if each.problem is not None)],
        gone=len(hits.readable) - len(documents),
    )


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
    values: Sequence[Mapping[str, str]] = (),
) -> Hits:
    """The documents that matched at the last refresh. ``fields`` of the source, None is all, an empty one none;
    ``count`` makes ``total`` exact; ``after``: what a hit was sorted by, those behind it; ``values``: fields of which
    the indexed values are given. Raises ``BackendUnavailable``."""
    body: dict[str, Any] = {"query": query, "size": size, "seq_no_primary_term": True, "track_total_hits": count}
    if sort:
        body["sort"] = list(sort)
        if after is not None:
            body["search_after"] = list(after)
    if fields is not None:
        body["_source"] = list(fields) or False
    if values:
        body["docvalue_fields"] = list(values)
    target, options = path(index, "_search"), {"allow_partial_search_results": "false"}
    if (found := await _ask(client, target, body, options)) is not None:
        return found[0]
    hits, _ = await _ask_without_texts(client, target, body, options)
    return hits if fields == [] else await _with_texts(client, hits, fields or ())


@asynccontextmanager
async def scroll(
    client: OpenSearchClient,
    index: str,
    query: Query,
    *,
    fields: Sequence[str] | None = None,
    unreadable: bool = False,
) -> AsyncIterator[AsyncIterator[Found]]:
    """All documents that matched at one moment, however many, in no order, and some twice where the indexer can't give
    one of them. ``unreadable``: those that can't be read are among them. Raises ``BackendUnavailable``."""
    body: dict[str, Any] = {"query": query, "size": _PAGE, "sort": ["_doc"]}
    if fields is not None:
        body["_source"] = list(fields) or False
    options = {"scroll": _SCROLL, "allow_partial_search_results": "false"}
    ids: list[str] = []

    async def pages() -> AsyncIterator[Found]:
        bare = False
        target, asked, query = path(index, "_search"), body, options
        while True:
            page = None if bare else await _ask(client, target, asked, query)
            if page is None and not bare:
                # Of this scroll nothing more can be had: from the beginning, without documents' texts.
                bare, target, asked, query = True, path(index, "_search"), body, options
            hits, scroll_id = page or await _ask_without_texts(client, target, asked, query)
            if scroll_id is not None:
                ids[:] = [scroll_id]
            if bare and fields != []:
                hits = await _with_texts(client, hits, fields or ())
            for hit in [*hits.readable, *(hits.unreadable if unreadable else ())]:
                yield hit
            if scroll_id is None or hits.seen < _PAGE:
                return
            target, asked, query = "/_search/scroll", {"scroll": _SCROLL, "scroll_id": scroll_id}, {}

    found = pages()
    try:
        yield found
    finally:
        with trio.CancelScope(deadline=trio.current_time() + _CLEANUP_TIMEOUT, shield=True):
            await found.aclose()  # type: ignore[attr-defined]  # an async generator has it
            if ids:
                await _forget(client, ids)


async def _forget(client: OpenSearchClient, scroll_ids: Sequence[str]) -> None:
    """Ends a scroll; the indexer would do it itself a minute later."""
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
        """Refreshes the index. Raises ``BackendUnavailable``."""
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
