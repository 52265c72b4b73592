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
from wazuh_comms_trio.backends.opensearch.client.found import Found, read_found
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json, is_possible_id

#: Ids in one call.
LARGEST_BATCH: Final = 500


class _Documents(msgspec.Struct):
    docs: list[msgspec.Raw]


async def get_many(
    client: OpenSearchClient, index: str, ids: Sequence[str], *, fields: Sequence[str] = ()
) -> Mapping[str, Found]:
    """Those that exist, by id, as they are at this moment; one whose source can't be read says so (``Found.problem``),
    and the log. ``fields``: of their source; none is all. Raises ``BackendUnavailable``, also when only one of them
    couldn't be looked at."""
    found: dict[str, Found] = {}
    # No filter_path: for it the indexer writes documents anew, and some that a search can't show would look sound here.
    query = {"_source_includes": ",".join(fields)} if fields else None
    ids = [document_id for document_id in ids if is_possible_id(document_id)]  # another would spoil the call for all
    for start in range(0, len(ids), LARGEST_BATCH):
        wanted = ids[start : start + LARGEST_BATCH]
        reply = await client.request("POST", path(index, "_mget"), encode_json({"ids": wanted}), query=query)
        _, docs = decode_around(reply, _Documents, "docs")
        if len(docs) != len(wanted):
            raise IndexerUnavailable(f"{index}: {len(wanted)} documents were asked for, {len(docs)} answered")
        for document_id, raw in zip(wanted, docs, strict=True):
            document = read_found(raw)
            if document.error is not None:
                raise IndexerUnavailable(f"{index}: {document.error.type}: {document.error.reason}")
            if document.found:
                document.id, document.index = document_id, index
                found[document_id] = document
                if document.problem is not None:
                    client.unreadable.note(document.unreadable())
    return found
