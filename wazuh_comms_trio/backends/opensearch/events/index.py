"""The state index in the indexer: ``EventIndex`` through ``_bulk``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
import trio
from attrs import define

from wazuh_comms_trio.backends.document_rules import equal_json
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.opensearch.client.bulk import (
    FILTER,
    BulkItem,
    Part,
    is_bad_request,
    is_queue_full,
    judge,
    middle,
    read_items,
    split,
    to_result,
)
from wazuh_comms_trio.backends.opensearch.client.bulk_encoding import Encoded, encode_all
from wazuh_comms_trio.backends.opensearch.client.client import (
    NDJSON,
    IndexerUnavailable,
    OpenSearchClient,
    decode_around,
    describe,
    error_of,
    path,
)
from wazuh_comms_trio.backends.opensearch.client.detached_calls import BulkCall, DetachableCalls
from wazuh_comms_trio.backends.opensearch.client.found import read_found_text
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json, is_possible_id
from wazuh_comms_trio.backends.opensearch.events.probe import probe_index
from wazuh_comms_trio.errors import BackendUnavailable

logger = logging.getLogger(__name__)

#: How long the indexer itself waits for a shard that is moving, before it says so item by item.
_SHARD_WAIT: Final = "10s"
#: Below this a call isn't made smaller because the indexer has no room for it: the next one has to wait.
_SMALLEST_LIMIT: Final = 64 * 1024
#: Seconds after which a limit that was met is tried again at twice its size.
_FORGIVE_AFTER: Final = 60.0
#: Documents compared in one call.
_COMPARED_AT_ONCE: Final = 100


class _Documents(msgspec.Struct):
    docs: list[msgspec.Raw]


@define
class _Batch:
    """One call of ``bulk`` under way: results by position, None where there is none yet."""

    operations: Sequence[DocumentOperation]
    encoded: Encoded
    sizes: Sequence[int]
    boundaries: Sequence[int]
    results: list[ItemResult | None]
    conflicts: list[int]

    def settle(self, start: int, items: Sequence[BulkItem]) -> None:
        results, positions = self.results, self.encoded.positions[start : start + len(items)]
        first = items[0]
        if first.error is None and items.count(first) == len(items):
            same = to_result(first)
            for position in positions:
                results[position] = same
            return
        for position, item in zip(positions, items, strict=True):
            results[position] = to_result(item)
            if item.error is not None and judge(item) == "exists":
                self.conflicts.append(position)

    def all_results(self) -> Sequence[ItemResult]:
        return [result if result is not None else _NOT_TRIED for result in self.results]


class OpenSearchEvents:
    """``largest``: bytes of one call; what the indexer itself turns out to take at most counts too. Calls live in
    ``nursery``."""

    def __init__(self, client: OpenSearchClient, nursery: trio.Nursery, *, largest: int) -> None:
        self._client = client
        self._calls = DetachableCalls(nursery, client.bulk_places, most_detached=client.bulk_places.value)
        self._largest = largest
        self._limit = largest
        self._limited_at = 0.0

    async def probe(self) -> None:
        await probe_index(self._client)

    async def bulk(
        self, operations: Sequence[DocumentOperation], *, boundaries: Sequence[int] = ()
    ) -> Sequence[ItemResult]:
        """Cancelled: what is under way goes on, and a later call that touches the same documents waits for it."""
        batch = _prepare(operations, boundaries)
        if not batch.encoded:
            await trio.lowlevel.checkpoint()
            return batch.all_results()

        async def apply(call: BulkCall[Sequence[ItemResult]]) -> Sequence[ItemResult]:
            await self._send_all(batch, call)
            if batch.conflicts and not call.detached:
                await self._compare(batch)
            return batch.all_results()

        return await self._calls.run(operations, apply)

    async def _send_all(self, batch: _Batch, call: BulkCall[Sequence[ItemResult]]) -> None:
        """In order; after a part that came to nothing no later one is sent, or one agent's events would overtake each
        other."""
        parts = split(batch.sizes, batch.boundaries, self._current_limit())
        parts.reverse()
        while parts and not call.detached:
            part = parts.pop()
            try:
                parts.extend(reversed(await self._send(batch, part)))
            except BackendUnavailable as exc:
                if not part.start:
                    raise
                logger.warning("indexer: a bulk call stopped in the middle: %s", exc)
                return

    async def _send(self, batch: _Batch, part: Part) -> list[Part]:
        """One call. Returns the parts to send instead, when it was too much or something in it can't be read."""
        body = batch.encoded.wire(part.start, part.stop)
        query = {**FILTER, "timeout": _SHARD_WAIT}
        reply = await self._client.request(
            "POST", "/_bulk", body, query=query, content_type=NDJSON, repeatable=False, has_place=True
        )
        if reply.status == 200:
            batch.settle(part.start, read_items(reply, part.stop - part.start))
            return []
        error = error_of(reply)
        alone = part.stop - part.start == 1
        if is_bad_request(reply, error) or (reply.status == 413 and alone):
            if not alone:
                return _halves(batch, part)
            reason = error.reason or "the document is too large"
            batch.results[batch.encoded.positions[part.start]] = ItemResult(400, reason, Outcome.REFUSED)
            return []
        is_too_much = reply.status == 413 or (reply.status == 429 and not is_queue_full(error))
        if is_too_much and not alone and part.size > _SMALLEST_LIMIT:
            self._lower_limit(part.size)
            return _halves(batch, part)
        raise IndexerUnavailable(describe(reply), reply=reply)

    def _current_limit(self) -> int:
        now = trio.current_time()
        if self._limit < self._largest and now - self._limited_at > _FORGIVE_AFTER:
            self._limit = min(self._largest, 2 * self._limit)
            self._limited_at = now
        return self._limit

    def _lower_limit(self, refused_size: int) -> None:
        self._limit = max(_SMALLEST_LIMIT, min(self._limit, refused_size // 2))
        self._limited_at = trio.current_time()
        logger.info("indexer: too large a bulk call at %d bytes; the next ones are smaller", refused_size)

    # --- creates that met a document ---

    async def _compare(self, batch: _Batch) -> None:
        """A create that met a document with the same content did what it should: the document comes from this agent's
        earlier try, perhaps, or from a repetition by the indexer. A create whose document has gone since is to be tried
        again."""
        for start in range(0, len(batch.conflicts), _COMPARED_AT_ONCE):
            positions = batch.conflicts[start : start + _COMPARED_AT_ONCE]
            try:
                stored = await self._read([batch.operations[position] for position in positions])
            except BackendUnavailable as exc:
                logger.warning("indexer: documents that exist could not be compared: %s", exc)
                for position in batch.conflicts[start:]:
                    batch.results[position] = _NOT_TRIED
                return
            for position, present in zip(positions, stored, strict=True):
                operation = batch.operations[position]
                if present is None and not _deleted_later(batch, position):
                    batch.results[position] = _NOT_TRIED
                elif present is not None and equal_json(present, operation.body or b""):
                    batch.results[position] = _SAME

    async def _read(self, operations: Sequence[DocumentOperation]) -> Sequence[bytes | None]:
        """Their documents as they stand there; one that is no sound JSON is other content than any event's."""
        wanted = [{"_index": operation.index, "_id": operation.document_id} for operation in operations]
        query = {"filter_path": "docs._index,docs._id,docs.found,docs._source,docs.error.type"}
        reply = await self._client.request("POST", "/_mget", encode_json({"docs": wanted}), query=query)
        _, docs = decode_around(reply, _Documents, "docs")
        if len(docs) != len(wanted):
            raise IndexerUnavailable("not all documents could be read")
        found = [read_found_text(document) for document in docs]
        if any(document.error is not None for document in found):
            raise IndexerUnavailable("not all documents could be read")
        return [bytes(document.source) if document.found else None for document in found]

    async def get(self, index: str, document_id: str) -> bytes | None:
        if not is_possible_id(document_id):
            return None
        reply = await self._client.request(
            "GET", path(index, "_doc", document_id), query={"filter_path": "found,_source"}
        )
        if reply.status == 404 and error_of(reply).type in ("", "index_not_found_exception"):
            return None
        if reply.status != 200:
            raise IndexerUnavailable(describe(reply), reply=reply)
        document = read_found_text(reply.body)
        return bytes(document.source) if document.found else None


_NOT_TRIED: Final = ItemResult(503, "not now", Outcome.PASSING)
_SAME: Final = ItemResult(200, "noop")


def _prepare(operations: Sequence[DocumentOperation], boundaries: Sequence[int]) -> _Batch:
    """What can't be sent has its result already, and the boundaries of the rest are moved."""
    encoded = encode_all(operations)
    results: list[ItemResult | None] = [None] * len(operations)
    for position, result in encoded.refused.items():
        results[position] = result
    return _Batch(operations, encoded, encoded.sizes(), encoded.item_boundaries(boundaries), results, [])


def _halves(batch: _Batch, part: Part) -> list[Part]:
    cut = middle(part, batch.boundaries)
    return [Part(start, stop, sum(batch.sizes[start:stop])) for start, stop in ((part.start, cut), (cut, part.stop))]


def _deleted_later(batch: _Batch, position: int) -> bool:
    """Whether a later operation of the same call is why the document isn't there."""
    operation = batch.operations[position]
    return any(
        later.action == "delete" and later.document_id == operation.document_id and later.index == operation.index
        for later in batch.operations[position + 1 :]
    )
