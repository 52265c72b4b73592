"""Reads by id: in real time, many in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from wazuh_comms_trio.backends.opensearch.client.client import (
    IndexerUnavailable,
    OpenSearchClient,
    decode_around,
    path,
)
from wazuh_comms_trio.backends.opensearch.client.content_errors import is_content, may_be_content, why_not_given
from wazuh_comms_trio.backends.opensearch.client.found import Found, read_found
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json, is_possible_id
from wazuh_comms_trio.http.client.connection import HttpReply

#: Ids in one call.
LARGEST_BATCH: Final = 500


class _Documents(msgspec.Struct):
    docs: list[msgspec.Raw]


#: Asks for whole documents such that each is looked at on its own.
_EVERY_FIELD: Final = "*"


async def get_many(
    client: OpenSearchClient, index: str, ids: Sequence[str], *, fields: Sequence[str] = ()
) -> Mapping[str, Found]:
    """Those that exist, by id, as they are at this moment; one whose source can't be read says so (``Found.problem``),
    and the log. ``fields``: of their source; none is all. Raises ``BackendUnavailable``, also when only one of them
    couldn't be looked at."""
    found: dict[str, Found] = {}
    ids = [document_id for document_id in ids if is_possible_id(document_id)]  # another would spoil the call for all
    for start in range(0, len(ids), LARGEST_BATCH):
        found |= await _get(client, index, ids[start : start + LARGEST_BATCH], fields)
    for document in found.values():
        if document.problem is not None:
            client.unreadable.note(document.unreadable())
    return found


async def _get(client: OpenSearchClient, index: str, ids: Sequence[str], fields: Sequence[str]) -> dict[str, Found]:
    # No filter_path: for it the indexer writes documents anew, and some that a search can't show would look sound here.
    query = {"_source_includes": ",".join(fields)} if fields else None
    reply = await _ask(client, index, ids, query)
    if may_be_content(reply) and not fields:
        reply = await _ask(client, index, ids, {"_source_includes": _EVERY_FIELD})
    found: dict[str, Found] = {}
    not_given: dict[str, str] = {}
    for document_id, document in zip(ids, _read(reply, index, ids), strict=True):
        if document.error is not None:
            if not is_content(document.error):
                raise IndexerUnavailable(f"{index}: {document.error.type}: {document.error.reason}")
            not_given[document_id] = why_not_given(document.error)
        elif document.found:
            document.id, document.index = document_id, index
            found[document_id] = document
    if not_given:
        reply = await _ask(client, index, list(not_given), {"_source": "false"})
        for document_id, document in zip(not_given, _read(reply, index, list(not_given)), strict=True):
            if document.found:
                document.id, document.index, document.problem = document_id, index, not_given[document_id]
                found[document_id] = document
    return found


async def _ask(client: OpenSearchClient, index: str, ids: Sequence[str], query: Mapping[str, str] | None) -> HttpReply:
    return await client.request("POST", path(index, "_mget"), encode_json({"ids": ids}), query=query)


def _read(reply: HttpReply, index: str, ids: Sequence[str]) -> Sequence[Found]:
    """Raises ``IndexerUnavailable``."""
    _, docs = decode_around(reply, _Documents, "docs")
    if len(docs) != len(ids):
        raise IndexerUnavailable(f"{index}: {len(ids)} documents were asked for, {len(docs)} answered")
    return [read_found(raw) for raw in docs]
