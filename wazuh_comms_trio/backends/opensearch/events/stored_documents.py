"""Single documents of the state indices as they are stored: read with what the next conditional write needs, and
written under a condition."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Final, TypeVar

import msgspec
import trio
from attrs import frozen

from wazuh_comms_trio.backends.document_rules import ABSENT, Key
from wazuh_comms_trio.backends.opensearch.client.bulk import (
    QUERY,
    BulkItem,
    is_bad_request,
    is_queue_full,
    read_items,
    split,
)
from wazuh_comms_trio.backends.opensearch.client.client import (
    NDJSON,
    IndexerUnavailable,
    OpenSearchClient,
    ReplyTooLarge,
    decode_around,
)
from wazuh_comms_trio.backends.opensearch.client.content_errors import is_content, may_be_content
from wazuh_comms_trio.backends.opensearch.client.error_details import describe, error_of
from wazuh_comms_trio.backends.opensearch.client.found import FoundText, read_found_text
from wazuh_comms_trio.backends.opensearch.client.queries import encode_json
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.http.client.connection import HttpReply

#: Documents that are read in one call: at first, and at most, once they are found to be small. Bytes of an
#: answer: they may be of any size, whatever is written to them.
_FIRST_AT_ONCE: Final = 100
_MOST_AT_ONCE: Final = 1000
_BYTES_AT_ONCE: Final = 16 * 1024 * 1024
#: Bytes from which on a thread works on them, so that the event loop goes on meanwhile.
_IN_THREAD: Final = 1024 * 1024

#: Such threads at a time: the event loop shares the interpreter with them.
_MOST_THREADS: Final = 2
_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("threads for large documents")

T = TypeVar("T")

_PARTS: Final = ("_index", "_id", "found", "_source", "_seq_no", "_primary_term", "error")
_QUERY: Final = {"filter_path": ",".join(f"docs.{part}" for part in _PARTS)}
#: Has each document looked at on its own: one that the indexer can't give fails alone then.
_ONE_BY_ONE: Final = {**_QUERY, "_source_includes": "*"}
_WITHOUT_SOURCE: Final = {**_QUERY, "_source": "false"}
#: The same of one document of several.
_NO_SOURCE: Final[Mapping[str, bool]] = {"_source": False}
#: Of a document that the indexer can't give: no JSON, and so other content than any event's.
_NOT_GIVEN: Final = b"?"


@frozen
class Stored:
    """A document as it is in the indexer at a moment; ``body`` as it stands there, sound JSON or not."""

    body: bytes
    seq_no: int
    primary_term: int

    @property
    def version(self) -> str:
        """The document's version as it is known by later. With its content's: an index that was made anew counts from
        the beginning."""
        return f"{self.seq_no}.{self.primary_term}.{sha256(self.body).hexdigest()[:16]}"


class Unreadable(Exception):
    """Why one document couldn't be read."""


class Unread(Unreadable):
    """A document that is there, and whose content wasn't asked for."""

    def __init__(self, seq_no: int, primary_term: int) -> None:
        super().__init__("not asked for")
        self.seq_no = seq_no
        self.primary_term = primary_term


@frozen
class Write:
    """An action line and the line after it (None: it has none), both without their ends."""

    head: bytes
    body: bytes | None


class _Documents(msgspec.Struct):
    docs: list[msgspec.Raw]


class StoredDocuments:
    """Reads and writes single documents; ``limit``: bytes of one call, as is known at the moment. Calls hold the place
    of the bulk call around them."""

    def __init__(self, client: OpenSearchClient, limit: Callable[[], int]) -> None:
        self._client = client
        self.failures = client.failures
        self._limit = limit
        self._count = _FIRST_AT_ONCE  # that were found to be few enough bytes

    @property
    def at_once(self) -> int:
        """How many documents the next call reads."""
        return self._count

    async def pages(
        self, keys: Iterable[Key], unread: Collection[Key] = ()
    ) -> AsyncGenerator[Mapping[Key, Stored | Unreadable | None], None]:
        """Each once and in order, as it is at that moment, None for what isn't there; so many together as are to be in
        memory together. ``unread``: of which the content isn't wanted, which is most of what reading costs the indexer;
        they are ``Unread``. Raises ``BackendUnavailable``."""
        left = list(dict.fromkeys(keys))
        most = self._count  # of these: what other calls read meanwhile may be smaller
        while left:
            count = min(most, len(left))
            try:
                page = await self._read(left[:count], _BYTES_AT_ONCE if count > 1 else None, unread)
            except ReplyTooLarge as exc:
                if count > 1:
                    self._count = most = count // 2
                    continue
                page = {left[0]: Unreadable(str(exc))}
            else:
                read = [stored for stored in page.values() if not isinstance(stored, Unread)]
                if read:  # the others are taken to be like these
                    size = sum(map(size_of, read)) * count // len(read)
                    self._count = most = _next_count(count, size)
            del left[:count]
            yield page

    async def read(self, key: Key) -> Stored | Unreadable | None:
        """Reads one document, in real time; None where it isn't there. Raises ``BackendUnavailable``."""
        return (await self._read([key], None))[key]

    async def versions(self, keys: Sequence[Key]) -> Sequence[str]:
        """The versions, as ``version_of``, of what ``read`` finds; the documents of one call at most are in memory."""
        found: dict[Key, str] = {}
        async with aclosing(self.pages(keys)) as pages:
            async for page in pages:
                for key, stored in page.items():
                    found[key] = await worked_out(size_of(stored), version_of, stored)
        return [found[key] for key in keys]

    async def _read(
        self, keys: Sequence[Key], largest: int | None, unread: Collection[Key] = ()
    ) -> Mapping[Key, Stored | Unreadable | None]:
        """Raises ``ReplyTooLarge`` above ``largest`` bytes, and of one document above what the client takes."""
        wanted: list[Mapping[str, str | bool]] = [
            {"_index": index, "_id": document_id, **(_NO_SOURCE if (index, document_id) in unread else {})}
            for index, document_id in keys
        ]
        reply = await self._ask(wanted, _QUERY, largest)
        if may_be_content(reply):
            reply = await self._ask(wanted, _ONE_BY_ONE, largest)
        documents = await worked_out(len(reply.body), _documents, reply, len(wanted))
        not_given = [place for place, document in enumerate(documents) if _is_not_given(document)]
        if not_given:
            versions = _documents(
                await self._ask([wanted[place] for place in not_given], _WITHOUT_SOURCE, largest), len(not_given)
            )
            for place, document in zip(not_given, versions, strict=True):
                document.source = msgspec.Raw(_NOT_GIVEN)
                documents[place] = document
        return {
            key: _unread(document) if key in unread and document.found else _stored(document)
            for key, document in zip(keys, documents, strict=True)
        }

    async def _ask(
        self, wanted: Sequence[Mapping[str, str | bool]], query: Mapping[str, str], largest: int | None
    ) -> HttpReply:
        body = encode_json({"docs": wanted})
        return await self._client.request("POST", "/_mget", body, query=query, largest_reply=largest)

    async def write(self, writes: Sequence[Write]) -> Sequence[BulkItem | None]:
        """Writes documents; the answers in order, None where nothing can be said. Doesn't raise."""
        sizes = [len(write.head) + len(write.body or b"") + 2 for write in writes]
        parts = split(sizes, range(len(writes)), self._limit())
        return [item for part in parts for item in await self._write_part(writes[part.start : part.stop])]

    async def _write_part(self, writes: Sequence[Write]) -> Sequence[BulkItem | None]:
        lines = [line for write in writes for line in (write.head, write.body) if line is not None]
        body = b"\n".join([*lines, b""])
        try:
            reply = await self._client.request(
                "POST", "/_bulk", body, query=QUERY, content_type=NDJSON, repeatable=False, has_place=True
            )
            if reply.status == 200:
                return read_items(reply, len(writes))
            error = error_of(reply)
            is_too_much = reply.status == 413 or (reply.status == 429 and not is_queue_full(error))
            if not (is_bad_request(reply, error) or is_too_much):
                raise IndexerUnavailable(describe(reply), reply=reply)
        except BackendUnavailable as exc:
            self.failures.refused("failures to replace documents", "indexer: documents could not be replaced: %s", exc)
            return [None] * len(writes)
        if len(writes) == 1:
            return [None if reply.status == 429 else BulkItem(400, error=error)]
        half = len(writes) // 2
        return [*await self._write_part(writes[:half]), *await self._write_part(writes[half:])]


def _next_count(count: int, size: int) -> int:
    """How many documents to read after ``count`` of ``size`` bytes: more than at first only where they would be an
    eighth of what an answer may have, since the next ones may be larger."""
    fitting = count * _BYTES_AT_ONCE // max(1, size)
    return max(1, min(_MOST_AT_ONCE, max(fitting // 8, min(_FIRST_AT_ONCE, fitting // 2))))


async def worked_out(size: int, function: Callable[..., T], *arguments: object) -> T:
    """What ``function``, which looks at so many bytes, makes of these; in a thread where that takes long. Cancelled, it
    runs on for nothing."""
    if size < _IN_THREAD:
        return function(*arguments)
    return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True, limiter=_limiter())


def _limiter() -> trio.CapacityLimiter:
    try:
        return _threads.get()
    except LookupError:
        _threads.set(limiter := trio.CapacityLimiter(_MOST_THREADS))
        return limiter


def size_of(stored: Stored | Unreadable | None) -> int:
    return len(stored.body) if isinstance(stored, Stored) else 0


def _documents(reply: HttpReply, count: int) -> list[FoundText]:
    """The documents of an answer. Raises ``IndexerUnavailable``."""
    _, docs = decode_around(reply, _Documents, "docs")
    if len(docs) != count:
        raise IndexerUnavailable("not all documents could be read")
    return [read_found_text(document) for document in docs]


def _is_not_given(document: FoundText) -> bool:
    return document.error is not None and is_content(document.error)


def _stored(document: FoundText) -> Stored | Unreadable | None:
    if document.error is not None and document.error.type != "index_not_found_exception":
        return Unreadable(document.error.type)
    return Stored(bytes(document.source), document.seq_no, document.primary_term) if document.found else None


def _unread(document: FoundText) -> Unread:
    return Unread(document.seq_no, document.primary_term)


def version_of(stored: Stored | Unreadable | None) -> str:
    """A document's version as ``DocumentOperation.expected``; empty where it isn't known."""
    if isinstance(stored, Unreadable):
        return ""
    return ABSENT if stored is None else stored.version
