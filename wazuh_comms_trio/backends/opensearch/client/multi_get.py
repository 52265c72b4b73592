"""Reads by id: in real time, many in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.opensearch.client.client import (
    IndexerUnavailable,
    OpenSearchClient,
    ReplyTooLarge,
    decode_around,
    path,
)
from wazuh_comms_trio.backends.opensearch.client.content_errors import is_content, may_be_content, why_not_given
from wazuh_comms_trio.backends.opensearch.client.found import Found, read_found
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json, is_possible_id
from wazuh_comms_trio.http.client.connection import HttpReply

#: Ids in one call.
LARGEST_BATCH: Final = 500
#: Bytes of an answer with several documents; more of them are asked for in several calls.
_LARGEST_REPLY: Final = 32 * 1024 * 1024


class _Documents(msgspec.Struct):
    docs: list[msgspec.Raw]


#: Asks for whole documents such that each is looked at on its own.
_EVERY_FIELD: Final = "*"


@frozen
class Place:
    """Where a document lies: its index, of those behind an alias, and what its writer had it routed by."""

    index: str
    routing: str | None = None


async def get_many(
    client: OpenSearchClient,
    index: str,
    ids: Sequence[str],
    *,
    fields: Sequence[str] = (),
    places: Mapping[str, Place] | None = None,
) -> Mapping[str, Found]:
    """Documents that exist, by id, as they are at this moment; one whose source can't be read says so
    (``Found.problem``), and the log. ``fields``: of their source; none is all. ``places``: of those that aren't where
    their id has them. Raises ``BackendUnavailable``, also when only one of them couldn't be looked at."""
    found: dict[str, Found] = {}
    ids = [document_id for document_id in ids if is_possible_id(document_id)]  # another would spoil the call for all
    batches = [ids[start : start + LARGEST_BATCH] for start in range(0, len(ids), LARGEST_BATCH)]
    while batches:
        batch = batches.pop()
        try:
            found |= await _get(client, index, batch, fields, places or {})
        except ReplyTooLarge:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            batches += [batch[:half], batch[half:]]
    for document in found.values():
        if document.problem is not None:
            client.unreadable.note(document.unreadable())
    return found


async def _get(
    client: OpenSearchClient, index: str, ids: Sequence[str], fields: Sequence[str], places: Mapping[str, Place]
) -> dict[str, Found]:
    # No filter_path: for it the indexer writes documents anew, and some that a search can't show would look sound here.
    query = {"_source_includes": ",".join(fields)} if fields else None
    reply = await _ask(client, index, ids, query, places)
    if may_be_content(reply) and not fields:
        reply = await _ask(client, index, ids, {"_source_includes": _EVERY_FIELD}, places)
    found: dict[str, Found] = {}
    not_given: dict[str, str] = {}
    for document_id, document in zip(ids, _read(reply, index, ids), strict=True):
        if document.error is not None:
            if not is_content(document.error):
                raise IndexerUnavailable(f"{index}: {document.error.type}: {document.error.reason}")
            not_given[document_id] = why_not_given(document.error)
        elif document.found:
            document.id, document.index = document_id, document.index or index
            found[document_id] = document
    if not_given:
        reply = await _ask(client, index, list(not_given), {"_source": "false"}, places)
        for document_id, document in zip(not_given, _read(reply, index, list(not_given)), strict=True):
            if document.found:
                document.id, document.index = document_id, document.index or index
                document.problem = not_given[document_id]
                found[document_id] = document
    return found


async def _ask(
    client: OpenSearchClient,
    index: str,
    ids: Sequence[str],
    query: Mapping[str, str] | None,
    places: Mapping[str, Place],
) -> HttpReply:
    body: Mapping[str, Any] = {"docs": [_asked(i, index, places) for i in ids]} if places else {"ids": ids}
    largest = _LARGEST_REPLY if len(ids) > 1 else None
    return await client.request("POST", path(index, "_mget"), encode_json(body), query=query, largest_reply=largest)


def _asked(document_id: str, index: str, places: Mapping[str, Place]) -> Mapping[str, str]:
    place = places.get(document_id, Place(index))
    where = {} if place.routing is None else {"routing": place.routing}
    return {"_index": place.index, "_id": document_id, **where}


def _read(reply: HttpReply, index: str, ids: Sequence[str]) -> Sequence[Found]:
    """Raises ``IndexerUnavailable``."""
    _, docs = decode_around(reply, _Documents, "docs")
    if len(docs) != len(ids):
        raise IndexerUnavailable(f"{index}: {len(ids)} documents were asked for, {len(docs)} answered")
    return [read_found(raw) for raw in docs]
