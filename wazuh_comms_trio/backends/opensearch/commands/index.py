"""The documents of commands: read, created, and changed only as they were last seen (optimistic concurrency)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import trio
from attrs import evolve

from wazuh_comms_trio.backends.opensearch.client.bulk import (
    QUERY_VERSIONS,
    BulkItem,
    create_line,
    judge,
    partial,
    read_items,
    replace_if_line,
    update_if_line,
)
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.client.content_errors import is_content
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.multi_get import get_many
from wazuh_comms_trio.backends.opensearch.client.places import Places
from wazuh_comms_trio.backends.opensearch.client.queries import (
    LONGEST_ID,
    Query,
    by_time,
    encode_json,
    is_possible_id,
)
from wazuh_comms_trio.backends.opensearch.client.search import Hits, Refresher, search
from wazuh_comms_trio.backends.opensearch.commands.documents import ESSENTIAL, Document, find_problem, read
from wazuh_comms_trio.backends.opensearch.commands.indexed import read_indexed
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.backends.unreadable import escaped

logger = logging.getLogger(__name__)

Decide = Callable[[Document], Mapping[str, Any] | None]
"""From a document as it is to what has to be merged in, or None to leave it. Called again when others were faster."""

Place = Sequence[Any]
"""What a document is sorted by."""

#: Of one search at most (``index.max_result_window``).
LARGEST: Final = 10_000
#: Documents in one call.
_BATCH: Final = 500
#: How often a change that others overtook is tried, and the longest pause between, in seconds.
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.05
#: Seconds until an index that couldn't be sorted is asked again: it may have been made anew.
_SORTED_AGAIN: Final = 300.0


class Refused(Exception):
    """Raised where the index will never take this change. The text is its reason."""


class CommandIndex:
    """``wall_clock`` in epoch seconds."""

    def __init__(
        self, client: OpenSearchClient, name: IndexName, *, wall_clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._client = client
        self._name = name
        self._now = wall_clock
        self._rng = rng
        self._refresher = Refresher(client)
        self._places = Places(client, self._refresher)
        self._unsortable_until = -math.inf

    @property
    def staleness(self) -> float:
        """Seconds for which ``search`` may not yet show what was written."""
        return self._refresher.staleness

    async def read(self, ids: Sequence[str]) -> dict[str, Document]:
        """Reads commands that exist and can be read, as they are at this moment. Raises ``BackendUnavailable``."""
        return (await self._read(ids))[0]

    async def read_one(self, document_id: str) -> Document | None:
        """Reads one command; None when there is none. Raises ``BackendUnavailable``, ``DocumentUnreadable``."""
        readable, unreadable = await self._read([document_id])
        for found in unreadable.values():
            raise found.unreadable()
        return readable.get(document_id)

    async def read_for_change(self, ids: Sequence[str], spoilt: Collection[str] = ()) -> dict[str, Document]:
        """As ``read``; of one that can't be read as a whole, what its steps need, if that can; or else, and of those
        that are ``spoilt``, what is indexed of it."""
        readable, unreadable = await self._read([document_id for document_id in ids if document_id not in spoilt])
        if unreadable:
            essential, unreadable = await self._read(list(unreadable), ESSENTIAL)
            readable |= {document_id: evolve(document, partial=True) for document_id, document in essential.items()}
        wanted = [document_id for document_id in ids if document_id in unreadable or document_id in spoilt]
        if wanted:
            name = await self._name.get()
            await self._refresher.refresh(name)
            readable |= await read_indexed(self._client, name, wanted, self._now())
        return readable

    async def _read(
        self, ids: Sequence[str], fields: Sequence[str] = ()
    ) -> tuple[dict[str, Document], dict[str, Found]]:
        """Reads commands; those that can be read, and those that can't."""
        name = await self._name.get()
        places = await self._places.find(name, ids)
        if places is not None:
            ids = [document_id for document_id in ids if document_id in places]
        found = await get_many(self._client, name, ids, fields=fields, places=places)
        for document_id, place in (places or {}).items():
            if document_id in found:
                found[document_id].routing = place.routing
        now = self._now()
        readable = {document_id: read(each, now) for document_id, each in found.items() if each.problem is None}
        return readable, {document_id: each for document_id, each in found.items() if each.problem is not None}

    async def search(self, query: Query, *, order: str, size: int) -> list[Document]:
        """Commands that match now and can be read, by their time. Raises ``BackendUnavailable``."""
        return (await self._search(query, order, size))[0]

    async def newest(self, query: Query, size: int) -> AsyncGenerator[list[Document], None]:
        """All commands that match and can be read, the newest first, up to ``size`` at a time. Where the index can't be
        sorted the first ``LARGEST`` that are found. Raises ``BackendUnavailable``."""
        after: Place | None = None
        while True:
            found, hits = await self._page(query, "desc", size, after=after)
            if hits.last is None and hits.seen >= size:
                found = await self.search(query, order="desc", size=LARGEST)
            yield found
            if hits.last is None or hits.seen < size:
                return
            after = hits.last

    async def page(self, query: Query, size: int, after: Place | None) -> tuple[list[Document], int, Place | None]:
        """What matches now and can be read, the oldest first, how many of this kind there are in all, and after which
        place there may be more (None: there isn't, or the index can't be sorted). Raises ``BackendUnavailable``."""
        found, hits = await self._page(query, "asc", size, True, after)
        for hit in hits.readable:
            if hit.judged(find_problem).problem is not None:  # nobody is offered it
                self._client.unreadable.note(hit.unreadable())
        total = hits.seen if hits.total is None else hits.total
        return found, total - len(hits.unreadable), hits.last if hits.seen >= size else None

    async def _search(
        self, query: Query, order: str, size: int, count: bool = False, after: Place | None = None
    ) -> tuple[list[Document], Hits]:
        name = await self._name.get()
        await self._refresher.refresh(name)
        hits = await self._sorted(name, query, order, size, count, after)
        return self._documents(hits), hits

    async def _page(
        self, query: Query, order: str, size: int, count: bool = False, after: Place | None = None
    ) -> tuple[list[Document], Hits]:
        """As ``_search``. A full page doesn't end among documents of one place: the next one is of those behind it."""
        found, hits = await self._search(query, order, size, count, after)
        if hits.seen < size or (after is None and hits.total == hits.seen):
            return found, hits
        if await self._places.are_numbered_apart(await self._name.get()):
            hits = hits.without_last()
        return self._documents(hits), hits

    def _documents(self, hits: Hits) -> list[Document]:
        now = self._now()
        return [read(hit, now) for hit in hits.readable]

    async def _sorted(self, name: str, query: Query, order: str, size: int, count: bool, after: Place | None) -> Hits:
        """Searches in an order; in none, for a while, where the indexer refuses that order: other refusals are told as
        they are."""
        refusal: IndexerUnavailable | None = None
        if trio.current_time() >= self._unsortable_until:
            sort = [by_time("@timestamp", order), {"_seq_no": {"order": order}}]
            try:
                hits = await search(self._client, name, query, sort=sort, size=size, count=count, after=after)
                self._unsortable_until = -math.inf
                return hits
            except IndexerUnavailable as exc:
                if exc.reply is None or exc.reply.status != 400:
                    raise
                refusal = exc
        hits = await search(self._client, name, query, size=size, count=count)
        if refusal is not None:
            if self._unsortable_until == -math.inf:
                logger.warning("indexer: %s can't be sorted by @timestamp, which should be a date: %s", name, refusal)
            self._unsortable_until = trio.current_time() + _SORTED_AGAIN
        return hits

    async def create(self, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Document]:
        """Creates those documents that weren't there before; what is there stays as it is and is missing in the answer.
        Raises ``BackendUnavailable``, ``Refused``."""
        if not all(map(is_possible_id, sources)):
            raise Refused(f"an id is empty, longer than {LONGEST_ID} bytes, or no text")
        name = await self._name.get()
        made: dict[str, Document] = {}
        if await self._places.are_several(name):  # the indexer itself looks at the one alone that is written to
            present = await self._places.find(name, list(sources)) or {}
            sources = {i: source for i, source in sources.items() if i not in present}
        for batch in _batches(sources.items()):
            lines = []
            for document_id, source in batch:
                lines += [create_line(name, document_id), b"%b\n" % encode_json(source)]
            for (document_id, source), item in zip(batch, await self._bulk(lines, len(batch)), strict=True):
                verdict = judge(item)
                if verdict == "refused":
                    raise Refused(_reason(item))
                if verdict == "passing":
                    raise IndexerUnavailable(f"{name}: {item.status} {_reason(item)}")
                if verdict == "done":
                    made[document_id] = Document(document_id, source, item.seq_no, item.primary_term, self._now())
        return made

    async def change(self, documents: Mapping[str, Document | None], decide: Decide) -> dict[str, Document]:
        """Changes documents; each is returned as it is afterwards, those that don't exist are missing. ``documents``:
        as last seen, None for one to be read first.

        A conflict may be the indexer's own repetition of our write, which happened: so after every conflict the
        document is read again and ``decide`` sees what is true. Raises ``BackendUnavailable`` when for one of them
        nothing can be said; others may have been changed. What the index refuses is logged and stays as it is; so does
        what can't be read as a whole, and would be pending still: it is missing, too."""
        done: dict[str, Document] = {}
        unread = [document_id for document_id, document in documents.items() if document is None]
        known = {document_id: document for document_id, document in documents.items() if document is not None}
        spoilt: set[str] = set()
        for attempt in range(_ATTEMPTS):
            if unread:
                known |= await self.read_for_change(unread, spoilt)
            wanted: list[tuple[Document, Mapping[str, Any]]] = []
            for document_id, document in known.items():
                changes = decide(document)
                if changes is None:
                    done[document_id] = document
                elif document.partial and document.after(changes, -1, -1).status == "pending":
                    text = "%s/%s stays pending: an agent would get it without what the indexer can't give"
                    where = document.index or await self._name.get()
                    self._client.failures.refused("commands that stay pending", text, where, escaped(document_id))
                else:
                    wanted.append((document, changes))
            unread, known = await self._write(wanted, done, spoilt), {}
            if not unread:
                return done
            await trio.sleep(_PAUSE * attempt * self._rng.random())
        raise IndexerUnavailable("others change the same commands all the time")

    async def _write(
        self, wanted: Sequence[tuple[Document, Mapping[str, Any]]], done: dict[str, Document], spoilt: set[str]
    ) -> list[str]:
        """Fills ``done``, and ``spoilt`` with those into which the indexer can't merge anything; returns these, and
        those that others changed meanwhile."""
        name = await self._name.get()
        conflicts: list[str] = []
        failure: IndexerUnavailable | None = None
        for batch in _batches(wanted):
            lines = []
            for document, changes in batch:
                index = document.index or name
                version = (document.id, document.seq_no, document.primary_term, document.routing)
                if document.rebuilt:
                    whole = document.after(changes, -1, -1).source
                    lines += [replace_if_line(index, *version), b"%b\n" % encode_json(whole)]
                else:
                    lines += [update_if_line(index, *version), partial(changes)]
            for (document, changes), item in zip(batch, await self._bulk(lines, len(batch)), strict=True):
                verdict = judge(item)
                if item.error is None:
                    if document.rebuilt:
                        text = "%s/%s was written anew, without what the indexer couldn't give"
                        logger.warning(text, document.index or name, escaped(document.id))
                    done[document.id] = document.after(changes, item.seq_no, item.primary_term)
                elif item.status == 409:
                    conflicts.append(document.id)
                elif is_content(item.error) and not document.rebuilt:
                    spoilt.add(document.id)
                    conflicts.append(document.id)
                elif verdict == "passing":
                    failure = IndexerUnavailable(f"{name}: {item.status} {_reason(item)}")
                elif verdict == "refused":
                    text = "indexer: %s refuses a change of %s: %s"
                    values = name, document.id, _reason(item)
                    self._client.failures.refused("refused changes of commands", text, *values)
                    done[document.id] = document
        if failure is not None:
            raise failure
        return conflicts

    async def _bulk(self, lines: Sequence[bytes], count: int) -> list[BulkItem]:
        body = b"".join(lines)
        reply = await self._client.request(
            "POST", "/_bulk", body, query=QUERY_VERSIONS, content_type=NDJSON, repeatable=False
        )
        return read_items(reply, count)


def _reason(item: BulkItem) -> str:
    return "" if item.error is None else (item.error.reason or item.error.type)


def _batches(items: Iterable[Any]) -> Iterable[list[Any]]:
    whole = list(items)
    for start in range(0, len(whole), _BATCH):
        yield whole[start : start + _BATCH]
