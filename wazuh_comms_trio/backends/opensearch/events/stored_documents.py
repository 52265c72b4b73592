"""Single documents of the state indices as they are stored: read with what the next conditional write needs, and
written under a condition."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.document_rules import ABSENT, Key
from wazuh_comms_trio.backends.opensearch.client.bulk import (
    FILTER,
    BulkItem,
    is_bad_request,
    is_queue_full,
    read_items,
    split,
)
from wazuh_comms_trio.backends.opensearch.client.bulk_encoding import SHARD_WAIT
from wazuh_comms_trio.backends.opensearch.client.client import (
    NDJSON,
    IndexerUnavailable,
    OpenSearchClient,
    decode_around,
    describe,
    error_of,
)
from wazuh_comms_trio.backends.opensearch.client.found import FoundText, read_found_text
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

#: Documents that are read in one call.
AT_ONCE: Final = 100

_QUERY: Final = {
    "filter_path": ",".join(
        f"docs.{part}" for part in ("_index", "_id", "found", "_source", "_seq_no", "_primary_term", "error.type")
    )
}


@frozen
class Stored:
    """A document as it is in the indexer at a moment; ``body`` as it stands there, sound JSON or not."""

    body: bytes
    seq_no: int
    primary_term: int

    @property
    def version(self) -> str:
        """What it is known by later. With its content's: an index that was made anew counts from the beginning."""
        return f"{self.seq_no}.{self.primary_term}.{sha256(self.body).hexdigest()[:16]}"


class Unreadable(Exception):
    """Why one document couldn't be read."""


@frozen
class Write:
    """An action line and the line after it (None: it has none), both without their ends."""

    head: bytes
    body: bytes | None


class _Documents(msgspec.Struct):
    docs: list[msgspec.Raw]


class StoredDocuments:
    """``limit``: bytes of one call, as is known at the moment. Calls hold the place of the bulk call around them."""

    def __init__(self, client: OpenSearchClient, limit: Callable[[], int]) -> None:
        self._client = client
        self._limit = limit

    async def read(self, keys: Sequence[Key]) -> Sequence[Stored | Unreadable | None]:
        """In order, in real time, None for what isn't there. Raises ``BackendUnavailable``."""
        found: list[Stored | Unreadable | None] = []
        for start in range(0, len(keys), AT_ONCE):
            wanted = [{"_index": index, "_id": document_id} for index, document_id in keys[start : start + AT_ONCE]]
            reply = await self._client.request("POST", "/_mget", encode_json({"docs": wanted}), query=_QUERY)
            _, docs = decode_around(reply, _Documents, "docs")
            if len(docs) != len(wanted):
                raise IndexerUnavailable("not all documents could be read")
            found += [_stored(read_found_text(document)) for document in docs]
        return found

    async def write(self, writes: Sequence[Write]) -> Sequence[BulkItem | None]:
        """The answers in order, None where nothing can be said. Doesn't raise."""
        sizes = [len(write.head) + len(write.body or b"") + 2 for write in writes]
        parts = split(sizes, range(len(writes)), self._limit())
        return [item for part in parts for item in await self._write_part(writes[part.start : part.stop])]

    async def _write_part(self, writes: Sequence[Write]) -> Sequence[BulkItem | None]:
        lines = [line for write in writes for line in (write.head, write.body) if line is not None]
        body = b"\n".join([*lines, b""])
        query = {**FILTER, "timeout": SHARD_WAIT}
        try:
            reply = await self._client.request(
                "POST", "/_bulk", body, query=query, content_type=NDJSON, repeatable=False, has_place=True
            )
            if reply.status == 200:
                return read_items(reply, len(writes))
            error = error_of(reply)
            is_too_much = reply.status == 413 or (reply.status == 429 and not is_queue_full(error))
            if not (is_bad_request(reply, error) or is_too_much):
                raise IndexerUnavailable(describe(reply), reply=reply)
        except BackendUnavailable as exc:
            logger.warning("indexer: documents could not be replaced: %s", exc)
            return [None] * len(writes)
        if len(writes) == 1:
            return [None if reply.status == 429 else BulkItem(400, error=error)]
        half = len(writes) // 2
        return [*await self._write_part(writes[:half]), *await self._write_part(writes[half:])]


def _stored(document: FoundText) -> Stored | Unreadable | None:
    if document.error is not None and document.error.type != "index_not_found_exception":
        return Unreadable(document.error.type)
    return Stored(bytes(document.source), document.seq_no, document.primary_term) if document.found else None


def version_of(stored: Stored | Unreadable | None) -> str:
    """As ``DocumentOperation.expected``; empty where it isn't known."""
    if isinstance(stored, Unreadable):
        return ""
    return ABSENT if stored is None else stored.version
