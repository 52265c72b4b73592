"""The bulk API as pure functions: what is sent, what an answer means for each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import ItemResult, Outcome
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, decode_around
from wazuh_comms_trio.backends.opensearch.client.content_errors import is_content
from wazuh_comms_trio.backends.opensearch.client.error_details import ErrorDetail
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json
from wazuh_comms_trio.backends.opensearch.client.slices import lenient_text
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS
from wazuh_comms_trio.http.client.connection import HttpReply

#: Of a write; it would be a minute.
SHARD_WAIT: Final = "10s"
#: How often the indexer itself tries an update again that another writer overtook.
_RETRIES: Final = b',"retry_on_conflict":3}}\n'

_encode: Final = msgspec.json.Encoder().encode


class BulkItem(msgspec.Struct, gc=False):
    """The answer to one item."""

    status: int
    result: str = ""
    error: ErrorDetail | None = None
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)


class _Item(msgspec.Struct, gc=False):
    create: BulkItem | None = None
    index: BulkItem | None = None
    update: BulkItem | None = None
    delete: BulkItem | None = None


class _BulkReply(msgspec.Struct):
    items: list[_Item] = []


class _RawReply(msgspec.Struct):
    items: list[msgspec.Raw]


_ITEMS: Final = b'{"items":['
_decode_reply: Final = msgspec.json.Decoder(_BulkReply).decode
_decode_item: Final = msgspec.json.Decoder(_Item).decode

_ANSWER: Final = "items.*.status,items.*.result,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
#: What each call asks for: every item has a ``status``, so that none vanishes and positions hold; and how long the
#: indexer itself waits for a shard that is on no node, before it says so item by item.
QUERY: Final[Mapping[str, str]] = {"filter_path": _ANSWER, "timeout": SHARD_WAIT}
#: The same with what the next conditional write needs.
QUERY_VERSIONS: Final[Mapping[str, str]] = {**QUERY, "filter_path": f"{_ANSWER},items.*._seq_no,items.*._primary_term"}


def read_items(reply: HttpReply, count: int) -> list[BulkItem]:
    """The answers by position. Raises ``IndexerUnavailable`` for an answer that is no success, or has another number of
    items: of a call cut short by one line the indexer drops the last item and says nothing."""
    if (uniform := _uniform_item(reply, count)) is not None:
        return [uniform] * count
    items = [item.create or item.update or item.delete or item.index for item in _read_all(reply)]
    whole = [item for item in items if item is not None]
    if len(whole) != count:
        raise IndexerUnavailable(f"a bulk call of {count} items got {len(whole)} answers", reply=reply, sent=True)
    return whole


def _read_all(reply: HttpReply) -> Sequence[_Item]:
    """Reasons quote documents: what of them is no sound text costs no other item its answer."""
    if 200 <= reply.status < 300:
        try:
            return _decode_reply(reply.body).items
        except DECODE_ERRORS:
            pass
    _, slices = decode_around(reply, _RawReply, "items")
    return list(map(_read_item, slices))


def _read_item(text: msgspec.Raw | bytes) -> _Item:
    """One item of an answer; empty where it is no item. What is no sound text becomes question marks."""
    try:
        return _decode_item(text)
    except DECODE_ERRORS:
        try:
            return _decode_item(lenient_text(bytes(text)))
        except (ValueError, RecursionError):
            return _Item()


def _uniform_item(reply: HttpReply, count: int) -> BulkItem | None:
    """The item of a success that says the same of each; None where it must be read as a whole. Most are such: a
    thousand documents were created."""
    body = reply.body
    end = body.find(b"}}")
    if reply.status != 200 or not body.startswith(_ITEMS) or end < 0:
        return None
    item = body[len(_ITEMS) : end + 2]
    if len(body) != len(_ITEMS) + count * (len(item) + 1) + 1 or body != _ITEMS + b",".join([item] * count) + b"]}":
        return None
    try:
        read = _decode_item(item)
    except DECODE_ERRORS:
        return None
    return read.create or read.update or read.delete or read.index


# --- what is sent ---


@lru_cache(maxsize=1000)
def _opening(action: str, index: str) -> bytes:
    """What the lines of one action on one index begin with: there are few of those, and many lines."""
    return b'{"%b":{"_index":%b,"_id":' % (action.encode(), _encode(index))


def create_line(index: str, document_id: str) -> bytes:
    return _opening("create", index) + _encode(document_id) + b"}}\n"


@lru_cache(maxsize=1000)
def around_id(action: str, index: str) -> tuple[str, str]:
    """The text before and after an id that stands in an action line as it is, the line's end left out."""
    after = _RETRIES.decode().rstrip() if action == "update" else "}}"
    return f'{_opening(action, index).decode()}"', f'"{after}'


def update_line(index: str, document_id: str) -> bytes:
    return _opening("update", index) + _encode(document_id) + _RETRIES


def update_if_line(index: str, document_id: str, seq_no: int, primary_term: int, routing: str | None = None) -> bytes:
    """An update that happens only to this very version of the document."""
    return _conditional("update", index, document_id, seq_no, primary_term, routing)


def replace_if_line(index: str, document_id: str, seq_no: int, primary_term: int, routing: str | None = None) -> bytes:
    """As ``update_if_line``, with the whole document after it."""
    return _conditional("index", index, document_id, seq_no, primary_term, routing)


def delete_if_line(index: str, document_id: str, seq_no: int, primary_term: int) -> bytes:
    """As ``update_if_line``; no line after it."""
    return _conditional("delete", index, document_id, seq_no, primary_term, None)


def _conditional(
    action: str, index: str, document_id: str, seq_no: int, primary_term: int, routing: str | None
) -> bytes:
    where = b"" if routing is None else b'"routing":%b,' % _encode(routing)
    line = b'{"%b":{"_index":%b,"_id":%b,%b"if_seq_no":%d,"if_primary_term":%d}}\n'
    return line % (action.encode(), _encode(index), _encode(document_id), where, seq_no, primary_term)


def delete_line(index: str, document_id: str) -> bytes:
    return _opening("delete", index) + _encode(document_id) + b"}}\n"


def partial(document: Any) -> bytes:
    """The source line of an update with a partial document."""
    return b'{"doc":%b}\n' % encode_json(document)


# --- what an answer means ---

#: 400s that are no fault of the document: they end when an operator puts the indexer in order.
_PASSING_TYPES: Final = frozenset({"index_closed_exception", "cluster_block_exception", "validation_exception"})
_PASSING_REASONS: Final = ("no write index is defined for alias", "pipeline with id")

Verdict = Literal["done", "refused", "passing", "exists"]


def judge(item: BulkItem) -> Verdict:
    """What an item's answer means; ``exists``: a create of a document that exists, whose content decides."""
    status = item.status
    if item.error is None:
        return "done" if status < 300 or (status == 404 and item.result == "not_found") else "passing"
    kind, reason = item.error.type, item.error.reason or ""
    if status == 409:
        already = kind == "version_conflict_engine_exception" and "document already exists" in reason
        return "exists" if already else "passing"
    if status == 404:
        return "done" if kind == "document_missing_exception" else "passing"
    if status == 400:
        return "passing" if is_passing_400(item.error) else "refused"
    # A document of which the indexer can't make a new one, with the change in it, stays one: 500.
    return "refused" if status == 413 or is_content(item.error) else "passing"


def is_out_of_fields(item: BulkItem) -> bool:
    """Whether a document is refused since its index has as many fields as it may: any agent may have made them."""
    return item.error is not None and (item.error.reason or "").startswith("Limit of total fields [")


def is_missing(item: BulkItem) -> bool:
    """Whether an item is an update of a document that isn't there."""
    return item.status == 404 and item.error is not None and item.error.type == "document_missing_exception"


def is_passing_400(error: ErrorDetail) -> bool:
    return error.type in _PASSING_TYPES or (error.reason or "").startswith(_PASSING_REASONS)


_OUTCOMES: Final = {
    "done": Outcome.DONE,
    "refused": Outcome.REFUSED,
    "passing": Outcome.PASSING,
    "exists": Outcome.DONE,
}


@lru_cache(maxsize=100)
def _plain(status: int, result: str) -> ItemResult:
    """Of an item without an error: few different ones, one object each."""
    return ItemResult(status, result, _OUTCOMES[judge(BulkItem(status, result))])


def to_result(item: BulkItem) -> ItemResult:
    if item.error is None:
        return _plain(item.status, item.result)
    outcome = _OUTCOMES[judge(item)]
    cause = item.error.cause if outcome is Outcome.REFUSED else ""
    return ItemResult(item.status, item.error.reason or item.error.type, outcome, cause=cause)


def is_bad_request(reply: HttpReply, error: ErrorDetail) -> bool:
    """Whether a whole call was refused for something that is in it (nothing of it was written): one item that the
    indexer can't even read sinks all. A 400 that isn't OpenSearch's own, a proxy's for instance, says nothing of the
    items."""
    return reply.status == 400 and bool(error.type) and not is_passing_400(error)


def is_queue_full(error: ErrorDetail) -> bool:
    """Whether a 429 is about how many calls there are, and not about their size: smaller ones would be more."""
    return error.type == "rejected_execution_exception" and "queue capacity" in (error.reason or "")


# --- how much goes together ---


@frozen
class Part:
    """A run of items, ``start`` to ``stop``, and its size on the wire."""

    start: int
    stop: int
    size: int


def split(sizes: Sequence[int], boundaries: Sequence[int], limit: int) -> list[Part]:
    """Runs of items of at most ``limit`` bytes, in order, cut at ``boundaries`` only (the positions at which packets
    begin), but for a packet that alone exceeds it, which is cut between its items. An item that alone exceeds it stands
    alone."""
    parts: list[Part] = []
    begin = size = 0
    cuts = sorted({0, *(cut for cut in boundaries if 0 < cut < len(sizes)), len(sizes)})
    for first, last in pairwise(cuts):
        packet = sum(sizes[first:last])
        if size and size + packet > limit:
            parts.append(Part(begin, first, size))
            begin, size = first, 0
        if packet <= limit:
            size += packet
            continue
        for position in range(first, last):
            if size and size + sizes[position] > limit:
                parts.append(Part(begin, position, size))
                begin, size = position, 0
            size += sizes[position]
    if size or begin < len(sizes):
        parts.append(Part(begin, len(sizes), size))
    return parts


def middle(part: Part, boundaries: Sequence[int]) -> int:
    """Where a part of several items is halved: between the two packets nearest to its middle, else in its middle."""
    centre = (part.start + part.stop) // 2
    cuts = [cut for cut in boundaries if part.start < cut < part.stop]
    return min(cuts, key=lambda cut: abs(cut - centre), default=centre)
