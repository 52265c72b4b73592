"""The state index in the indexer: ``EventIndex`` through ``_bulk``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import chain
from typing import Final

import msgspec
import trio
from attrs import define, evolve, field

from wazuh_comms_trio.backends.document_rules import ABSENT, FORMER, Key, changed_later, key_of, overtaken
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.json_values import equal_json
from wazuh_comms_trio.backends.opensearch.client.bulk import (
    QUERY,
    BulkItem,
    Part,
    is_bad_request,
    is_missing,
    is_out_of_fields,
    is_queue_full,
    judge,
    middle,
    read_items,
    split,
    to_result,
)
from wazuh_comms_trio.backends.opensearch.client.bulk_encoding import Encoded, encode, encode_all
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.detached_calls import BulkCall, DetachableCalls
from wazuh_comms_trio.backends.opensearch.client.error_details import describe, error_of
from wazuh_comms_trio.backends.opensearch.client.found import read_found_text
from wazuh_comms_trio.backends.opensearch.client.queries import is_possible_id
from wazuh_comms_trio.backends.opensearch.events.own_documents import (
    BYTES_PER_DOCUMENT,
    BYTES_PER_TURN,
    NOT_TRIED,
    Corrections,
    plan_write,
)
from wazuh_comms_trio.backends.opensearch.events.probe import probe_index
from wazuh_comms_trio.backends.opensearch.events.stored_documents import (
    Stored,
    StoredDocuments,
    Unreadable,
    size_of,
    version_of,
    worked_out,
)
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.caches.refusal_cause import RefusalCause

logger = logging.getLogger(__name__)

#: Below this a call isn't made smaller because the indexer has no room for it: the next one has to wait. Nor is an
#: event too large at once, whatever a proxy says, which may refuse all.
_SMALLEST_LIMIT: Final = 64 * 1024
#: Seconds after which a limit that was met is tried again at twice its size.
_FORGIVE_AFTER: Final = 60.0
_OUT_OF_FIELDS: Final = (
    "documents with new ones go to the quarantine, whoever made those that are there; `wazuh-comms indexer check` says"
    " what to do"
)


@define
class _Batch:
    """One call of ``bulk`` under way: results by position, None where there is none yet. ``conflicts`` are the
    positions of creates of what exists, ``to_correct`` of operations on an agent's own documents that have to be put
    right, ``refused`` of what was refused for good. ``out_of_fields``: indices that have as many as they may."""

    operations: Sequence[DocumentOperation]
    encoded: Encoded
    sizes: Sequence[int]
    boundaries: Sequence[int]
    results: list[ItemResult | None]
    conflicts: list[int]
    to_correct: list[int]
    refused: list[int]
    out_of_fields: set[str] = field(factory=set)

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
            if item.error is None:
                continue
            verdict = judge(item)
            exists = verdict == "exists"
            if self.operations[position].own and (exists or is_missing(item)):
                self.to_correct.append(position)
            elif exists:
                self.conflicts.append(position)
            elif verdict == "refused":
                self.refused.append(position)
                if is_out_of_fields(item):
                    self.out_of_fields.add(self.operations[position].index)
            elif is_missing(item):
                results[position] = evolve(to_result(item), version=ABSENT)

    def set_version(self, position: int, version: str) -> None:
        """Sets the document's version in a result that is there."""
        result = self.results[position]
        if result is not None:
            self.results[position] = evolve(result, version=version)

    def all_results(self) -> Sequence[ItemResult]:
        return [result if result is not None else NOT_TRIED for result in self.results]


class OpenSearchEvents:
    """``largest``: bytes of one call; what the indexer itself turns out to take at most counts too. Calls live in
    ``nursery``."""

    def __init__(self, client: OpenSearchClient, nursery: trio.Nursery, *, largest: int) -> None:
        self._client = client
        self._calls = DetachableCalls(nursery, client.bulk_places, most_detached=client.bulk_places.most)
        self._largest = largest
        self._limit = largest
        self._limited_at = 0.0
        self._documents = StoredDocuments(client, self._current_limit)
        self._refusals = RefusalCause()

    async def probe(self) -> None:
        await probe_index(self._client)

    async def bulk(
        self,
        operations: Sequence[DocumentOperation],
        *,
        boundaries: Sequence[int] = (),
        is_open: Callable[[int], bool] | None = None,
    ) -> Sequence[ItemResult]:
        """Cancelled: what is under way goes on, and a later call that touches the same documents waits for it."""
        if any(operation.expected for operation in operations):
            return await self._calls.run(operations, partial(self._apply_exactly, operations))
        batch = _prepare(operations, boundaries)
        if not batch.encoded and not batch.refused:
            await trio.lowlevel.checkpoint()
            return batch.all_results()

        async def apply(call: BulkCall[Sequence[ItemResult]]) -> Sequence[ItemResult]:
            if batch.encoded:
                await self._send_all(batch, call)
            if batch.conflicts and not call.detached:
                await self._compare(batch)
            if batch.to_correct:

                def is_wanted(position: int) -> bool:
                    return not call.detached and (is_open is None or is_open(position))

                await Corrections(operations, batch.results, batch.to_correct, is_wanted).make(self._documents)
            if batch.refused and not call.detached:
                await self._note_versions(batch)
            return batch.all_results()

        return await self._calls.run(operations, apply)

    async def _send_all(self, batch: _Batch, call: BulkCall[Sequence[ItemResult]]) -> None:
        """Sends all parts in order; after a part that came to nothing no later one is sent, or one agent's events would
        overtake each other."""
        parts = split(batch.sizes, batch.boundaries, self._current_limit())
        parts.reverse()
        while parts and not call.detached:
            part = parts.pop()
            try:
                parts.extend(reversed(await self._send(batch, part)))
            except BackendUnavailable as exc:
                if not part.start:
                    raise
                text = "indexer: a bulk call stopped in the middle: %s"
                self._client.failures.refused("bulk calls that stopped in the middle", text, exc)
                return

    async def _send(self, batch: _Batch, part: Part) -> list[Part]:
        """Sends one call. Returns the parts to send instead, when it was too much or something in it can't be read."""
        body = batch.encoded.wire(part.start, part.stop)
        reply = await self._client.request(
            "POST", "/_bulk", body, query=QUERY, content_type=NDJSON, repeatable=False, has_place=True
        )
        if reply.status == 200:
            batch.settle(part.start, read_items(reply, part.stop - part.start))
            self._refusals.taken(key_of(batch.operations[n]) for n in batch.encoded.positions[part.start : part.stop])
            for index in batch.out_of_fields:
                text = "indexer: %s takes no further fields: %s"
                self._client.failures.refused(f"documents with new fields for {index}", text, index, _OUT_OF_FIELDS)
            return []
        error = error_of(reply)
        alone = part.stop - part.start == 1
        if is_bad_request(reply, error) or (reply.status == 413 and alone and self._is_too_large(batch, part)):
            if not alone:
                return _halves(batch, part)
            reason = error.reason or "the document is too large"
            refused = ItemResult(400, reason, Outcome.REFUSED, cause=error.cause)
            batch.results[batch.encoded.positions[part.start]] = refused
            return []
        is_too_much = reply.status == 413 or (reply.status == 429 and not is_queue_full(error))
        if is_too_much and not alone and (part.size > _SMALLEST_LIMIT or reply.status == 413):
            if part.size > _SMALLEST_LIMIT:
                self._lower_limit(part.size)
            return _halves(batch, part)
        raise IndexerUnavailable(describe(reply), reply=reply)

    def _is_too_large(self, batch: _Batch, part: Part) -> bool:
        """Whether an operation that is alone in its call is refused (413) for its own size. A small one is where others
        are taken between two tries of it."""
        if part.size > _SMALLEST_LIMIT:
            return True
        if not self._refusals.is_its_own(key_of(batch.operations[batch.encoded.positions[part.start]])):
            return False
        text = "indexer: something before it takes no event of %d bytes: it is in the quarantine"
        self._client.failures.refused("events of less than 64 KiB that are too large", text, part.size)
        return True

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
        former = changed_later(batch.operations, batch.results, set(batch.conflicts))
        deleted_at = _last_deletes(batch.operations)  # by the same call: then it isn't gone for another reason
        waiting: dict[Key, list[int]] = {}
        for position in batch.conflicts:
            waiting.setdefault(key_of(batch.operations[position]), []).append(position)
        worked = 0
        try:
            async with aclosing(self._documents.pages(waiting)) as pages:
                async for page in pages:
                    for position, present in _at_positions(page, waiting):
                        worked += size_of(present) + BYTES_PER_DOCUMENT
                        if worked >= BYTES_PER_TURN:
                            worked = 0
                            await trio.lowlevel.checkpoint()
                        operation = batch.operations[position]
                        is_gone = present is None and deleted_at.get(key_of(operation), -1) < position
                        if isinstance(present, Unreadable) or is_gone:
                            batch.results[position] = NOT_TRIED
                        elif present is not None and await _holds(present, operation):
                            batch.results[position] = _SAME
                        elif present is not None:
                            version = FORMER if position in former else await _version(present)
                            batch.set_version(position, version)
        except BackendUnavailable as exc:
            text = "indexer: documents that exist could not be compared: %s"
            self._client.failures.refused("failures to compare documents", text, exc)
            for position in chain.from_iterable(waiting.values()):
                batch.results[position] = NOT_TRIED

    async def _note_versions(self, batch: _Batch) -> None:
        """What the documents are, of the operations that were refused for good; that they are refused holds without."""
        keys = [key_of(batch.operations[position]) for position in batch.refused]
        try:
            versions = await self.versions(keys)
        except BackendUnavailable as exc:
            text = "indexer: documents whose events are refused could not be read: %s"
            self._client.failures.refused("failures to read documents of refused events", text, exc)
            return
        former = changed_later(batch.operations, batch.results, set(batch.refused))
        for position, version in zip(batch.refused, versions, strict=True):
            batch.set_version(position, FORMER if version and position in former else version)

    async def versions(self, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        readable = [key for key in documents if is_possible_id(key[1])]
        found = dict(zip(readable, await self._documents.versions(readable), strict=True))
        return [found.get(key, "") for key in documents]

    # --- one after the other, each to the very document that it expects ---

    async def _apply_exactly(
        self, operations: Sequence[DocumentOperation], call: BulkCall[Sequence[ItemResult]]
    ) -> Sequence[ItemResult]:
        return [NOT_TRIED if call.detached else await self._apply_one(operation) for operation in operations]

    async def _apply_one(self, operation: DocumentOperation) -> ItemResult:
        encoded = encode(operation)
        if isinstance(encoded, ItemResult):
            return encoded
        present = await self._documents.read(key_of(operation))
        version = await _version(present)
        if isinstance(present, Unreadable):
            return NOT_TRIED
        if operation.expected and operation.expected != version:
            return overtaken(operation.document_id, version)
        unconditional = [msgspec.structs.replace(operation, expected="")]
        planned = await worked_out(size_of(present), plan_write, key_of(operation), unconditional, present)
        if planned is None:
            return NOT_TRIED
        write, (result,) = planned
        if write is None:
            return result
        (item,) = await self._documents.write([write])
        if item is None:
            return NOT_TRIED
        if item.status == 409:
            return overtaken(operation.document_id, "")
        verdict = judge(item)
        return result if verdict == "done" else to_result(item)

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


_SAME: Final = ItemResult(200, "noop")


def _at_positions(
    page: Mapping[Key, Stored | Unreadable | None], waiting: dict[Key, list[int]]
) -> list[tuple[int, Stored | Unreadable | None]]:
    """What was read, by the positions that wait for it, which don't any more."""
    return [(position, present) for key, present in page.items() for position in waiting.pop(key)]


async def _holds(present: Stored, operation: DocumentOperation) -> bool:
    return await worked_out(size_of(present), equal_json, present.body, operation.body or b"")


async def _version(present: Stored | Unreadable | None) -> str:
    return await worked_out(size_of(present), version_of, present)


def _prepare(operations: Sequence[DocumentOperation], boundaries: Sequence[int]) -> _Batch:
    """Encodes operations; what can't be sent has its result already, and the boundaries of the rest are moved."""
    encoded = encode_all(operations)
    results: list[ItemResult | None] = [None] * len(operations)
    for position, result in encoded.refused.items():
        results[position] = result
    refused = list(encoded.refused)
    return _Batch(operations, encoded, encoded.sizes(), encoded.item_boundaries(boundaries), results, [], [], refused)


def _halves(batch: _Batch, part: Part) -> list[Part]:
    cut = middle(part, batch.boundaries)
    return [Part(start, stop, sum(batch.sizes[start:stop])) for start, stop in ((part.start, cut), (cut, part.stop))]


def _last_deletes(operations: Sequence[DocumentOperation]) -> dict[tuple[str, str], int]:
    """The position where each document is deleted last."""
    return {key_of(operation): place for place, operation in enumerate(operations) if operation.action == "delete"}
