"""The state index in the indexer: ``EventIndex`` through ``_bulk``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import trio
from attrs import define

from wazuh_comms_trio.backends.base import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.documents import NotADocument, equal_json, read_object, refused
from wazuh_comms_trio.backends.opensearch_bulk import (
    FILTER,
    BulkItem,
    Part,
    create_line,
    delete_line,
    is_bad_request,
    judge,
    middle,
    plain_lines,
    read_items,
    split,
    to_result,
    update_line,
)
from wazuh_comms_trio.backends.opensearch_calls import Call, Calls
from wazuh_comms_trio.backends.opensearch_client import (
    NDJSON,
    IndexerUnavailable,
    OpenSearchClient,
    decode,
    describe,
    error_of,
    path,
)
from wazuh_comms_trio.backends.opensearch_probe import probe_index
from wazuh_comms_trio.backends.opensearch_queries import LONGEST_ID, is_possible_id
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


#: As a number it is found five times faster than as bytes.
_NEWLINE: Final = 10
_BRACE: Final = ord("{")
#: Checks the grammar and decodes nothing.
_check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode
_check_lines: Final = msgspec.json.Decoder(msgspec.Raw).decode_lines
_encode_id: Final = msgspec.json.Encoder().encode


class _Source(msgspec.Struct):
    index: str = msgspec.field(name="_index", default="")
    id: str = msgspec.field(name="_id", default="")
    found: bool = False
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))
    error: Any = None


class _Sources(msgspec.Struct):
    docs: list[_Source]


def _is_object(body: bytes) -> bool:
    """Quickly; what it doubts is looked at more closely."""
    try:
        _check_json(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return body.startswith(b"{") and body.isascii()


def encode(operation: DocumentOperation) -> bytes | ItemResult:
    """Its lines of a bulk body, the document's bytes as they are; a result instead for what would sink a whole call, or
    would be read differently than it was meant."""
    if not is_possible_id(operation.document_id):
        return refused(f"the document id is empty, longer than {LONGEST_ID} bytes, or no text")
    if operation.action == "delete":
        return delete_line(operation.index, operation.document_id)
    body = operation.body if operation.body is not None else b""
    if not _is_object(body):
        try:
            read_object(body)
        except NotADocument as exc:
            return refused(str(exc))
    if _NEWLINE in body:  # between its values, since it is valid JSON
        body = msgspec.json.format(body, indent=-1)
    if operation.action == "create":
        return create_line(operation.index, operation.document_id) + body + b"\n"
    return b"".join((update_line(operation.index, operation.document_id), b'{"doc":', body, b"}\n"))


def encode_plain(operations: Sequence[DocumentOperation]) -> list[bytes] | None:
    """As ``encode`` for each, in a third of the time: what is checked is checked for all at once. None when one of them
    isn't what real agents write (ASCII on one line), or is a delete, or isn't sound: then each is looked at."""
    ids = "".join([operation.document_id for operation in operations])
    # Encoded, an id without anything to escape is only two quotes longer.
    if not ids.isascii() or len(_encode_id(ids)) != len(ids) + 2:
        return None
    lines = []
    bodies = []
    for operation in operations:
        body = operation.body
        if not 0 < len(operation.document_id) <= LONGEST_ID or not body or operation.action == "delete":
            return None
        bodies.append(body)
        lines.append(plain_lines(operation.action, operation.index, operation.document_id, body))
    together = b"\n".join(bodies)
    if not together.isascii():
        return None
    if together.count(b"\n") != len(bodies) - 1 or {body[0] for body in bodies} != {_BRACE}:
        return None
    try:
        values = _check_lines(together)
    except (msgspec.DecodeError, RecursionError):
        return None
    # Values as long as the bodies, one for each, are the bodies: none has two, and none goes over two.
    return lines if list(map(len, values)) == list(map(len, bodies)) else None


@define
class _Batch:
    """One call of ``bulk`` under way: results by position, None where there is none yet."""

    operations: Sequence[DocumentOperation]
    lines: list[bytes]
    positions: list[int]
    boundaries: list[int]
    results: list[ItemResult | None]
    conflicts: list[int]

    def settle(self, start: int, items: Sequence[BulkItem]) -> None:
        results, positions = self.results, self.positions
        for offset, item in enumerate(items, start):
            results[positions[offset]] = to_result(item)
            if item.error is not None and judge(item) == "exists":
                self.conflicts.append(positions[offset])

    def all_results(self) -> Sequence[ItemResult]:
        return [result if result is not None else _NOT_TRIED for result in self.results]


class OpenSearchEvents:
    """``largest``: bytes of one call; what the indexer itself turns out to take at most counts too. Calls live in
    ``nursery``."""

    def __init__(self, client: OpenSearchClient, nursery: trio.Nursery, *, largest: int) -> None:
        self._client = client
        self._calls = Calls(nursery, client.bulk_places, strays=client.bulk_places.value)
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
        if not batch.lines:
            await trio.lowlevel.checkpoint()
            return batch.all_results()

        async def apply(call: Call[Sequence[ItemResult]]) -> Sequence[ItemResult]:
            await self._send_all(batch, call)
            if batch.conflicts and not call.stray:
                await self._compare(batch)
            return batch.all_results()

        return await self._calls.run(operations, apply)

    async def _send_all(self, batch: _Batch, call: Call[Sequence[ItemResult]]) -> None:
        """In order; after a part that came to nothing no later one is sent, or one agent's events would overtake each
        other."""
        parts = split([len(line) for line in batch.lines], batch.boundaries, self._current_limit())
        parts.reverse()
        while parts and not call.stray:
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
        body = b"".join(batch.lines[part.start : part.stop])
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
            batch.results[batch.positions[part.start]] = ItemResult(400, reason, Outcome.REFUSED)
            return []
        if reply.status in (413, 429) and not alone and part.size > _SMALLEST_LIMIT:
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
        """A create of what is there with equal content did what it should: it was this agent's earlier try, perhaps, or
        the indexer's own. One whose document has gone since is to be tried again."""
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
        wanted = [{"_index": operation.index, "_id": operation.document_id} for operation in operations]
        query = {"filter_path": "docs._index,docs._id,docs.found,docs._source,docs.error.type"}
        found = await self._client.json("POST", "/_mget", {"docs": wanted}, query=query, type=_Sources)
        if len(found.docs) != len(wanted) or any(document.error for document in found.docs):
            raise IndexerUnavailable("not all documents could be read")
        return [bytes(document.source) if document.found else None for document in found.docs]

    async def get(self, index: str, document_id: str) -> bytes | None:
        if not is_possible_id(document_id):
            return None
        reply = await self._client.request(
            "GET", path(index, "_doc", document_id), query={"filter_path": "found,_source"}
        )
        if reply.status == 404 and error_of(reply).type in ("", "index_not_found_exception"):
            return None
        document: _Source = decode(reply, _Source)
        return bytes(document.source) if document.found else None


_FOUND: Final = {"filter_path": "found,_source"}
_NOT_TRIED: Final = ItemResult(503, "not now", Outcome.PASSING)
_SAME: Final = ItemResult(200, "noop")


def _prepare(operations: Sequence[DocumentOperation], boundaries: Sequence[int]) -> _Batch:
    """What can't be sent has its result already, and the boundaries of the rest are moved."""
    results: list[ItemResult | None] = [None] * len(operations)
    lines = encode_plain(operations) if operations else None
    if lines is not None:
        return _Batch(operations, lines, list(range(len(lines))), list(boundaries), results, [])
    batch = _Batch(operations, [], [], [], results, [])
    edges = set(boundaries)
    for position, operation in enumerate(operations):
        if position in edges:
            batch.boundaries.append(len(batch.lines))
        encoded = encode(operation)
        if isinstance(encoded, ItemResult):
            batch.results[position] = encoded
        else:
            batch.lines.append(encoded)
            batch.positions.append(position)
    return batch


def _halves(batch: _Batch, part: Part) -> list[Part]:
    cut = middle(part, batch.boundaries)
    return [
        Part(start, stop, sum(map(len, batch.lines[start:stop])))
        for start, stop in ((part.start, cut), (cut, part.stop))
    ]


def _deleted_later(batch: _Batch, position: int) -> bool:
    """Whether a later operation of the same call is why the document isn't there."""
    operation = batch.operations[position]
    return any(
        later.action == "delete" and later.document_id == operation.document_id and later.index == operation.index
        for later in batch.operations[position + 1 :]
    )
